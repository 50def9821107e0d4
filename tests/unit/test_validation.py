"""The validation rows choose the epoch: those that the packaged model refuses have no say in it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from conftest import UseCase
from datasets import write_dataset
from pipeline.data.specs import net_spec
from pipeline.model.network import TabularNet
from pipeline.training.components import make_loss
from pipeline.training.loader import MemoryShard
from pipeline.training.validation import fit_threshold, validate


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_rows_that_a_model_refuses_do_not_choose_the_epoch(use_case: UseCase, tmp_path: Path, task: str) -> None:
    features = {"numeric": ["a"], "categorical": [{"column": "k", "unknown": "refuse", "encoding": "embedding"}]}
    config = use_case(features=features, label={"column": "y", "task": task})
    data = write_dataset(tmp_path / "data", 20, 10, 1).model_copy(update={"vocabularies": {"k": ["x", "y"]}})
    if task == "regression":
        stats = data.numeric["a"]
        data = data.model_copy(update={"label": data.label.model_copy(update={"classes": [], "stats": stats})})
    net = TabularNet(net_spec(config, data))
    codes = torch.tensor([0.0, 1.0, 2.0, 2.0, 0.0])  # 2 is no code of the vocabulary
    labels = torch.tensor([0, 1, 1, 0, 1]) if task == "classification" else torch.tensor([3.0, 4.0, 90.0, -7.0, 2.0])
    shard = MemoryShard(torch.stack([torch.arange(5.0), codes], dim=1), labels)
    given = cast(Any, SimpleNamespace(data=data, config=config))

    def measured() -> Any:
        return validate(net, make_loss(task, net.spec), shard, given, torch.device("cpu")).split_metrics()

    before = measured()
    vectors = dict(net.named_parameters())["embeddings.0_k.weight"]
    with torch.no_grad():
        vectors[2] += 5.0
    assert measured() == before
    with torch.no_grad():
        vectors[1] += 5.0
    assert measured().loss != before.loss


def test_rows_that_a_model_refuses_do_not_choose_the_threshold(use_case: UseCase, tmp_path: Path) -> None:
    features = {"numeric": ["a"], "categorical": [{"column": "k", "unknown": "refuse"}]}
    config = use_case(features=features, label={"column": "y", "positive": "odd", "threshold": "recall>=0.9"})
    data = write_dataset(tmp_path / "data", 20, 10, 1).model_copy(update={"vocabularies": {"k": ["x", "y"]}})
    data = data.model_copy(update={"label": data.label.model_copy(update={"positive": "odd"})})
    net = TabularNet(net_spec(config, data))
    codes = torch.arange(60) % 3
    labels = torch.where(codes == 2, 1, torch.arange(60) // 7 % 2)
    given, rows = cast(Any, SimpleNamespace(data=data, config=config)), torch.stack([torch.arange(60.0), codes], dim=1)

    def chosen(kept: torch.Tensor) -> float:
        alone = cast(Any, SimpleNamespace(add_up=lambda vector, name: vector))
        return fit_threshold(net, given, alone, MemoryShard(rows[kept], labels[kept]), 1.0)

    assert chosen(torch.ones(60, dtype=torch.bool)) == chosen(codes != 2)
