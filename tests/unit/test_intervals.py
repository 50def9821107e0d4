"""Intervals: the standard errors are those of repeated samples, whoever counts the rows and in which order."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.stats import binomtest

from pipeline.data.manifest import LabelData, NumericStats
from pipeline.evaluation import bucket_sums
from pipeline.evaluation.bucket_sums import BucketSums
from pipeline.evaluation.intervals import interval
from pipeline.evaluation.metrics import Evaluation
from pipeline.evaluation.sums import MetricSums

CLASSES = LabelData(column="y", task="classification", classes=["a", "b"], stats=None)
NUMBER = LabelData(column="y", task="regression", classes=[], stats=NumericStats(mean=0.0, std=1.0, min=-4.0, max=4.0))
Sample = tuple[npt.NDArray[np.float64], npt.NDArray[Any], npt.NDArray[np.float64]]
"""Answers, labels and features."""


def drawn(label: LabelData, rng: np.random.Generator, rows: int) -> Sample:
    x = rng.standard_normal((rows, 2))
    if not label.classes:
        return x[:, 0], x[:, 0] + rng.standard_normal(rows), x
    chance = 1 / (1 + np.exp(-2 * x[:, 0]))
    said = 1 / (1 + np.exp(-2 * x[:, 0] - x[:, 1]))
    return np.c_[1 - said, said], (rng.random(rows) < chance).astype(np.int64), x


def counted(label: LabelData, sample: Sample, parts: int = 1, rows: int | None = None) -> dict[str, float]:
    """Return the standard errors that ``parts`` ranks measure together."""
    answers, labels, features = (torch.from_numpy(part) for part in sample)
    total = None
    for part in range(parts):
        mine = BucketSums(label, rows or len(labels))
        for start in range(part * 50, len(labels), parts * 50):
            place = slice(start, start + 50)
            refused = torch.zeros(len(labels[place]), dtype=torch.bool)
            mine.add(answers[place], labels[place], refused, features[place].float())
        mine.flush()
        total = mine if total is None else total
        if total is not mine:
            total.vector += mine.vector
    assert total is not None
    return total.standard_errors()


@pytest.mark.parametrize("label", [CLASSES, NUMBER], ids=["classes", "number"])
def test_they_are_those_of_repeated_samples(label: LabelData) -> None:
    rng, values, errors = np.random.default_rng(0), [], []
    for repeat in range(300):
        sample = drawn(label, rng, 1000)
        sums = MetricSums(label, with_detail=True)
        sums.add(torch.from_numpy(sample[0]), torch.from_numpy(sample[1]))
        values.append(sums.evaluate().metrics)
        if repeat < 20:
            errors.append(counted(label, sample))
    assert errors[0].keys() == values[0].keys()
    for name in values[0]:
        if name == "calibration_error":  # it is not smooth: a sum of absolute values that are nearly 0
            continue
        spread = np.std([value[name] for value in values])
        assert np.mean([error[name] for error in errors]) == pytest.approx(spread, rel=0.15), name


@pytest.mark.parametrize("label", [CLASSES, NUMBER], ids=["classes", "number"])
def test_neither_the_number_of_ranks_nor_the_order_of_rows_matters(label: LabelData) -> None:
    sample = drawn(label, np.random.default_rng(1), 1000)
    order = np.random.default_rng(2).permutation(1000)
    turned = sample[0][order], sample[1][order], sample[2][order]
    once = counted(label, sample)
    for other in (counted(label, sample, parts=3), counted(label, turned)):
        assert other == pytest.approx(once, rel=1e-9)


def test_of_many_rows_some_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = drawn(CLASSES, np.random.default_rng(3), 20_000)
    whole = counted(CLASSES, sample)
    monkeypatch.setattr(bucket_sums, "MOST_ROWS", 5_000)
    some = counted(CLASSES, sample)
    for name in ("accuracy", "log_loss", "f1", "roc_auc"):
        assert some[name] == pytest.approx(whole[name], rel=0.35), name


def test_accuracy_has_wilson_s_interval() -> None:
    for right, rows in ((36, 37), (37, 37), (800, 1000), (0, 5)):
        evaluation = Evaluation(rows, 0, {"accuracy": right / rows}, standard_errors={"accuracy": 0.1})
        expected = binomtest(right, rows).proportion_ci(method="wilson")
        assert interval(evaluation, "accuracy") == pytest.approx((expected.low, expected.high))


def test_an_interval_stays_where_its_metric_can_be() -> None:
    evaluation = Evaluation(
        9, 0, {"roc_auc": 0.99, "rmse": 0.1, "r2": 0.5}, standard_errors={"roc_auc": 0.1, "rmse": 0.1, "r2": 1.0}
    )
    assert (interval(evaluation, "roc_auc") or (0, 0))[1] == 1.0
    assert (interval(evaluation, "rmse") or (1, 1))[0] == 0.0
    assert (interval(evaluation, "r2") or (1, 1))[0] < 0
    assert interval(Evaluation(9, 0, {"f1": 0.5}), "f1") is None
    assert interval(Evaluation(9, 0, {"f1": 1.0}, standard_errors={"f1": 0.0}), "f1") is None


def test_without_rows_or_with_too_many_classes_there_are_none() -> None:
    many = LabelData(column="y", task="classification", classes=[str(i) for i in range(1000)], stats=None)
    assert len(BucketSums(many, 1000).vector) == 0
    assert BucketSums(CLASSES, 10).standard_errors() == {}
