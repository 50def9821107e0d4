"""Metrics from sums equal what scikit-learn computes from the rows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from pipeline.config.settings import CLASSIFICATION_METRICS, REGRESSION_METRICS
from pipeline.data.manifest import LabelData, NumericStats
from pipeline.evaluation.metrics import CALIBRATION_BINS, regression_metrics
from pipeline.evaluation.sums import MetricSums

ROWS, RANKS = 2_000, 3
Array = npt.NDArray[Any]


def label_of(classes: int) -> LabelData:
    names = [f"class {i}" for i in range(classes)]
    return LabelData(column="y", task="classification", classes=names, stats=None)


def predictions(classes: int, sharpness: float = 1.0) -> tuple[Array, Array]:
    random = np.random.default_rng(classes)
    labels = random.choice(classes, ROWS, p=np.arange(1, classes + 1) / sum(range(1, classes + 1)))
    logits = sharpness * (random.normal(size=(ROWS, classes)) + 1.5 * np.eye(classes)[labels])
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True), labels


def summed(
    label: LabelData, answers: Array, labels: Array, codes: Array | None = None, sizes: Sequence[int] = ()
) -> MetricSums:
    """Count each rank's rows by themselves, in batches, and add the vectors up as the ranks do."""
    total = MetricSums(label, with_detail=True, category_sizes=sizes)
    for rank in range(RANKS):
        sums = MetricSums(label, with_detail=True, category_sizes=sizes)
        for start in range(rank, ROWS, 300):
            chosen = slice(start, min(start + 300, ROWS), RANKS)
            some = None if codes is None else torch.from_numpy(codes[chosen])
            sums.add(torch.from_numpy(answers[chosen]), torch.from_numpy(labels[chosen]), codes=some)
        total.vector += sums.vector
    return total


@pytest.fixture(params=[2, 3, 20])
def classes(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.mark.parametrize("classes", [200, 1000])
def test_each_of_many_classes_has_its_roc_auc(classes: int) -> None:
    for sharpness in (0.2, 1.0):
        answers, labels = predictions(classes, sharpness)
        evaluation = summed(label_of(classes), answers, labels).evaluate()
        present = sorted(set(labels))
        areas = [sk.roc_auc_score(labels == code, answers[:, code]) for code in present]
        assert [evaluation.classes[code].roc_auc for code in present] == pytest.approx(areas, abs=0.01)
        assert evaluation.metrics["roc_auc"] == pytest.approx(np.mean(areas), abs=1e-3)


@pytest.mark.parametrize("sharpness", [0.2, 1.0, 8.0])
def test_classification_metrics_equal_scikit_learn(classes: int, sharpness: float) -> None:
    answers, labels = predictions(classes, sharpness)
    # every third row from each start of 300: all of them, if 300 is a multiple of RANKS
    evaluation = summed(label_of(classes), answers, labels).evaluate()
    assert evaluation.rows == ROWS
    predicted = answers.argmax(axis=1)
    precision, recall, f1, support = sk.precision_recall_fscore_support(labels, predicted, zero_division=0)
    assert [c.support for c in evaluation.classes] == support.tolist()
    for name, expected in (("precision", precision), ("recall", recall), ("f1", f1)):
        assert [getattr(c, name) for c in evaluation.classes] == pytest.approx(expected)
        assert evaluation.metrics[name] == pytest.approx(expected.mean())
    areas = [sk.roc_auc_score(labels == code, answers[:, code]) for code in range(classes)]
    assert [c.roc_auc for c in evaluation.classes] == pytest.approx(areas, abs=1e-3)
    whole = answers[:, 1] if classes == 2 else answers
    assert evaluation.metrics["roc_auc"] == pytest.approx(sk.roc_auc_score(labels, whole, multi_class="ovr"), abs=1e-3)
    assert evaluation.metrics["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
    assert evaluation.metrics["log_loss"] == pytest.approx(sk.log_loss(labels, answers))
    assert evaluation.confusion == sk.confusion_matrix(labels, predicted).tolist()
    assert {*evaluation.metrics, "pr_auc"} == set(CLASSIFICATION_METRICS)  # pr_auc is of a positive class


def test_calibration_equals_scikit_learn(classes: int) -> None:
    answers, labels = predictions(classes)
    evaluation = summed(label_of(classes), answers, labels).evaluate()
    right = answers.argmax(axis=1) == labels
    share, confidence = calibration_curve(right, answers.max(axis=1), n_bins=CALIBRATION_BINS)
    assert [b.accuracy for b in evaluation.calibration] == pytest.approx(share)
    assert [b.confidence for b in evaluation.calibration] == pytest.approx(confidence)
    weights = np.array([b.rows for b in evaluation.calibration]) / ROWS
    assert evaluation.metrics["calibration_error"] == pytest.approx((weights * abs(share - confidence)).sum())


def test_regression_metrics_equal_scikit_learn() -> None:
    random = np.random.default_rng(0)
    actual = random.normal(1e6, 3, ROWS)  # a mean far from zero: sums of squares alone would cancel
    predicted = actual + random.normal(0, 1, ROWS)
    stats = NumericStats(mean=1e6, std=3.0, min=actual.min(), max=actual.max())
    label = LabelData(column="y", task="regression", classes=[], stats=stats)
    evaluation = summed(label, predicted, actual).evaluate()
    assert evaluation.metrics["rmse"] == pytest.approx(sk.mean_squared_error(actual, predicted) ** 0.5)
    assert evaluation.metrics["mae"] == pytest.approx(sk.mean_absolute_error(actual, predicted))
    assert evaluation.metrics["r2"] == pytest.approx(sk.r2_score(actual, predicted))
    assert np.sum(evaluation.histogram) == evaluation.rows == ROWS
    assert set(evaluation.metrics) == set(REGRESSION_METRICS)


def test_an_undefined_metric_is_nan() -> None:
    assert all(math.isnan(value) for value in regression_metrics([0] * 5).values())
    answers = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    sums = MetricSums(label_of(3), with_detail=True)
    sums.add(torch.from_numpy(answers), torch.tensor([0, 0]))
    evaluation = sums.evaluate()
    assert all(math.isnan(c.roc_auc) for c in evaluation.classes)
    assert math.isnan(evaluation.metrics["roc_auc"])
    # the third class is neither there nor predicted: it does not count, as in scikit-learn
    assert evaluation.metrics["recall"] == sk.recall_score([0, 0], [0, 1], average="macro", zero_division=0) == 0.25


def test_a_refused_row_counts_as_an_uninformed_answer() -> None:
    answers, labels = predictions(2)
    sums = MetricSums(label_of(2), with_detail=True)
    refused = np.arange(ROWS) < ROWS // 2
    with_gaps = torch.from_numpy(np.where(refused[:, None], np.nan, answers))
    sums.add(with_gaps, torch.from_numpy(labels), refused=torch.from_numpy(refused))
    evaluation = sums.evaluate()
    assert (evaluation.rows, evaluation.refused) == (ROWS, ROWS // 2)
    right = (answers.argmax(axis=1) == labels) & ~refused
    assert evaluation.metrics["accuracy"] == pytest.approx(right.mean())
    assert evaluation.metrics["log_loss"] == pytest.approx(
        sk.log_loss(labels, np.where(refused[:, None], 0.5, answers))
    )

    label = LabelData(column="y", task="regression", classes=[], stats=NumericStats(mean=5, std=1, min=0, max=9))
    numbers = MetricSums(label, with_detail=True)
    with_gap = torch.tensor([np.nan, 7.0], dtype=torch.float64)
    numbers.add(with_gap, torch.tensor([6.0, 7.0]), refused=torch.tensor([True, False]))
    assert (numbers.evaluate().refused, numbers.evaluate().metrics["mae"]) == (1, 0.5)


def test_slices_name_the_categories_with_most_avoidable_errors_first() -> None:
    labels = np.zeros(ROWS, np.int64)
    codes = np.stack([np.arange(ROWS) % 4, np.arange(ROWS) % 2], axis=1)
    wrong = (codes[:, 0] == 2) & (np.arange(ROWS) % 8 == 2)  # half of the rows of value 2
    answers = np.where(wrong[:, None], [0.4, 0.6], [0.6, 0.4])
    sums = summed(label_of(2), answers, labels, codes, sizes=(4, 3))
    evaluation = sums.evaluate({"colour": ["red", "green", "blue"], "shape": ["round", "square"]})
    worst = evaluation.slices[0]
    assert (worst.feature, worst.value, worst.rows, worst.error) == ("colour", "blue", ROWS // 4, 0.5)
    assert worst.excess == pytest.approx(wrong.sum() - ROWS // 4 * wrong.mean())
    assert [s.value for s in evaluation.slices] == ["blue", "round"]  # the others are better than the average
    assert dataclasses.asdict(evaluation)["slices"][0]["value"] == "blue"


def test_the_vector_of_many_classes_stays_small() -> None:
    assert MetricSums(label_of(1000), with_detail=True).vector.nbytes < 48 * 2**20


@pytest.mark.parametrize("outputs", [3, 1])
def test_an_epoch_s_sums_continue_from_a_kept_part_and_equal_the_detailed_sums(outputs: int) -> None:
    torch.manual_seed(0)
    stats = NumericStats(mean=5, std=2, min=0, max=9)
    regression = LabelData(column="y", task="regression", classes=[], stats=stats)
    label = label_of(outputs) if outputs > 1 else regression
    answers = torch.randn(ROWS, outputs)
    labels = torch.randint(outputs, (ROWS,)) if outputs > 1 else torch.rand(ROWS) * 9
    whole, first = MetricSums(label), MetricSums(label)
    first.add(answers[:700], labels[:700], torch.tensor(1.25))
    rest = MetricSums(label)
    rest.counts.copy_(first.counts)
    rest.others.copy_(first.others)
    rest.add(answers[700:], labels[700:], torch.tensor(2.5))
    for start, end, loss in ((0, 700, 1.25), (700, ROWS, 2.5)):
        whole.add(answers[start:end], labels[start:end], torch.tensor(loss))
    assert torch.equal(whole.vector, rest.vector)
    evaluation = rest.split_metrics()
    assert (evaluation.rows, evaluation.loss) == (ROWS, 3.75 / ROWS)

    detailed = MetricSums(label, with_detail=True)
    detailed.add(torch.softmax(answers.double(), dim=1) if outputs > 1 else answers, labels)
    metrics = detailed.evaluate().metrics
    assert evaluation.metrics == pytest.approx({name: metrics[name] for name in evaluation.metrics})
