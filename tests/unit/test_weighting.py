"""Rows weigh in the loss what the settings say: in a step, and where the epoch is chosen."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from conftest import UseCase
from datasets import write_dataset
from pipeline.data.specs import class_weights, net_spec
from pipeline.evaluation.sums import MetricSums
from pipeline.model.network import TabularNet
from pipeline.training.components import make_loss
from pipeline.training.loader import Batch, MemoryShard, joined
from pipeline.training.validation import validate
from pipeline.training.weighting import Weighting, add_up_losses

FEATURES = {"numeric": ["a"], "categorical": ["k"]}


def test_balanced_weights_are_those_of_scikit_learn(use_case: UseCase, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", 21, 10, 1)
    labels = np.repeat([0, 1], data.splits["train"].class_counts)
    theirs = compute_class_weight("balanced", classes=np.array([0, 1]), y=labels)
    config = use_case(features=FEATURES, training={"class_weights": "balanced"})
    assert class_weights(config, data) == pytest.approx(theirs.tolist())
    assert class_weights(use_case(features=FEATURES), data) is None
    named = use_case(features=FEATURES, training={"class_weights": {"odd": 5}})
    assert class_weights(named, data) == [1.0, 5.0]


def test_a_row_weighs_its_own_weight_times_its_class_s(use_case: UseCase, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", 20, 10, 1)
    batch = Batch(torch.zeros(3, 2), torch.tensor([0, 1, 1]), torch.tensor([2.0, 0.0, 0.5]))
    unweighted = Batch(batch.features, batch.labels)
    none = Weighting(use_case(features=FEATURES), data)
    assert not none.is_on
    assert none.of(unweighted) is None
    of_classes = Weighting(use_case(features=FEATURES, training={"class_weights": {"odd": 4}}), data)
    assert of_classes.is_on
    assert cast(Any, of_classes.of(unweighted)).tolist() == [1.0, 4.0, 4.0]
    assert cast(Any, of_classes.of(batch)).tolist() == [2.0, 0.0, 2.0]
    with_column = Weighting(use_case(features=FEATURES), data.model_copy(update={"weight": "w"}))
    assert with_column.is_on
    assert torch.equal(cast(Any, with_column.of(batch)), cast(Any, batch.weights))
    assert add_up_losses(torch.tensor([1.0, 2.0, 4.0]), batch.weights).item() == 4.0
    assert add_up_losses(torch.tensor([1.0, 2.0, 4.0]), None).item() == 7.0


def test_batches_keep_the_weights_of_their_rows() -> None:
    batch = Batch(torch.arange(6.0).view(3, 2), torch.tensor([0, 1, 1]), torch.tensor([0.5, 1.5, 2.5]))
    again = joined([batch.at(slice(1)), batch.at(torch.tensor([2, 1]))]).copy().to(torch.device("cpu"))
    assert cast(Any, again.weights).tolist() == [0.5, 2.5, 1.5]
    assert again.features[:, 0].tolist() == [0.0, 4.0, 2.0]
    assert joined([Batch(batch.features, batch.labels)]).weights is None
    shard = MemoryShard(*batch)
    for part in (*shard.epoch(2, 0, 1, 0), *shard.batches(2)):
        assert torch.equal(cast(Any, part.weights), part.features[:, 0] / 2 + 0.5)
    assert cast(Any, shard.no_rows.weights).tolist() == []


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_validation_loss_is_the_weighted_mean_and_metrics_count_each_row_once(
    use_case: UseCase, tmp_path: Path, task: str
) -> None:
    config = use_case(features=FEATURES, label={"column": "y", "task": task, "weight": "w"})
    data = write_dataset(tmp_path / "data", 20, 10, 1).model_copy(update={"weight": "w"})
    if task == "regression":
        stats = data.numeric["a"]
        data = data.model_copy(update={"label": data.label.model_copy(update={"classes": [], "stats": stats})})
    net = TabularNet(net_spec(config, data)).eval()
    features = torch.stack([torch.arange(9.0), torch.arange(9.0) % 3], dim=1)
    labels = torch.arange(9) % 2 if task == "classification" else torch.arange(9.0)
    weights = torch.tensor([0.0, 1.0, 2.0, 0.0, 0.25, 8.0, 1.0, 1.0, 3.0])
    loss, given = make_loss(task, net.spec), cast(Any, SimpleNamespace(data=data, config=config))
    measured = validate(net, loss, MemoryShard(features, labels, weights), given, torch.device("cpu")).split_metrics()
    with torch.no_grad():
        losses = loss(net(features), labels)
    assert measured.loss == pytest.approx(((losses * weights).sum() / weights.sum()).item(), rel=1e-6)
    assert measured.rows == 9
    plain = cast(Any, SimpleNamespace(data=data.model_copy(update={"weight": None}), config=config))
    unweighted = validate(net, loss, MemoryShard(features, labels), plain, torch.device("cpu")).split_metrics()
    assert unweighted.metrics == measured.metrics
    assert unweighted.loss == pytest.approx(losses.mean().item(), rel=1e-6)


def test_rows_that_all_weigh_nothing_have_no_loss(use_case: UseCase, tmp_path: Path) -> None:
    label = write_dataset(tmp_path / "data", 20, 10, 1).label
    sums = MetricSums(label, is_weighted=True)
    sums.add(torch.zeros(2, 2), torch.tensor([0, 1]), torch.tensor(0.0), weights=torch.zeros(2))
    assert math.isnan(sums.split_metrics().loss)
    assert sums.split_metrics().rows == 2
