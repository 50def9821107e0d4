"""The positive class: its metrics are scikit-learn's, and its threshold is the best one that the rows offer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from conftest import UseCase
from datasets import write_dataset
from pipeline.config.label import ThresholdRule
from pipeline.data.manifest import LabelData, Manifest
from pipeline.evaluation.answers import constant_class
from pipeline.evaluation.metrics import Evaluation
from pipeline.evaluation.sums import MetricSums
from pipeline.model.choice import chosen_classes
from pipeline.runtime.errors import UserError
from pipeline.train import _warn_of_threshold

ROWS = 4_000


def label_of(positive: str | None) -> LabelData:
    return LabelData(column="y", task="classification", classes=["no", "yes"], stats=None, positive=positive)


def rare(seed: int, rows: int = ROWS) -> tuple[torch.Tensor, torch.Tensor]:
    """Return probabilities (rows, 2) and codes (rows,) of which 6 % are 1."""
    random = np.random.default_rng(seed)
    codes = (random.random(rows) < 0.06).astype(np.int64)
    odds = np.exp(random.normal(size=rows) + 1.5 * codes - 3.0)
    second = odds / (1 + odds)
    return torch.from_numpy(np.stack([1 - second, second], axis=1)), torch.from_numpy(codes)


@pytest.mark.parametrize("positive", [0, 1])
@pytest.mark.parametrize("threshold", [0.5, 0.1])
def test_the_metrics_of_the_positive_class_are_those_of_scikit_learn(positive: int, threshold: float) -> None:
    answers, codes = rare(1)
    sums = MetricSums(label_of(["no", "yes"][positive]), with_detail=True)
    predicted = chosen_classes(answers, positive, threshold)
    sums.add(answers, codes, predicted=predicted)
    measured, is_positive = sums.evaluate().metrics, (codes == positive).numpy()
    chosen = (answers[:, positive] >= threshold).numpy()
    assert ((predicted == positive).numpy() == chosen).all()
    assert measured["accuracy"] == sk.accuracy_score(is_positive, chosen)
    assert measured["precision"] == pytest.approx(sk.precision_score(is_positive, chosen, zero_division=0))
    assert measured["recall"] == pytest.approx(sk.recall_score(is_positive, chosen))
    assert measured["f1"] == pytest.approx(sk.f1_score(is_positive, chosen))
    scores = answers[:, positive].numpy()
    assert measured["pr_auc"] == pytest.approx(sk.average_precision_score(is_positive, scores), abs=2e-3)
    assert measured["roc_auc"] == pytest.approx(sk.roc_auc_score(is_positive, scores), abs=2e-3)


def test_without_a_positive_class_there_is_no_pr_auc() -> None:
    answers, codes = rare(1)
    sums = MetricSums(label_of(None), with_detail=True)
    sums.add(answers, codes)
    measured = sums.evaluate().metrics
    assert "pr_auc" not in measured
    assert measured["f1"] == pytest.approx(sk.f1_score(codes, answers.argmax(dim=1), average="macro"))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rule", ["f1", "recall>=0.8", "recall>=1", "precision>=0.3", "precision >= 0.99"])
def test_a_threshold_is_the_best_of_all(seed: int, rule: str) -> None:
    answers, codes = rare(seed)
    sums = MetricSums(label_of("yes"), with_detail=True)
    for part in range(3):  # as of three ranks
        other = MetricSums(label_of("yes"), with_detail=True)
        other.add(answers[part::3], codes[part::3])
        sums.vector += other.vector
    threshold = sums.threshold(ThresholdRule.parse(rule))
    assert threshold is not None

    scores, labels = answers[:, 1].numpy(), codes.numpy()
    precision, recall, thresholds = sk.precision_recall_curve(labels, scores)
    precision, recall = precision[:-1], recall[:-1]
    chosen = scores >= threshold
    ours = sk.precision_score(labels, chosen), sk.recall_score(labels, chosen)
    parsed = ThresholdRule.parse(rule)
    if parsed.metric == "f1":
        best = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()
        assert sk.f1_score(labels, chosen) == pytest.approx(best, abs=3e-3)
    elif parsed.metric == "recall":
        assert ours[1] >= parsed.least
        assert threshold == pytest.approx(thresholds[recall >= parsed.least].max(), rel=0.02)
    elif (precision >= parsed.least).any():
        assert ours[0] >= parsed.least
        assert ours[1] == pytest.approx(recall[precision >= parsed.least].max(), abs=0.02)
    else:  # no threshold is that precise
        assert ours[0] == pytest.approx(precision.max(), abs=0.02)


def test_a_rare_class_is_found_with_f1() -> None:
    answers, codes = rare(5)
    sums = MetricSums(label_of("yes"), with_detail=True)
    sums.add(answers, codes)
    threshold = sums.threshold(ThresholdRule("f1")) or 0.0
    unseen, labels = rare(6, 20_000)
    at_half = sk.recall_score(labels, chosen_classes(unseen, 1, 0.5))
    assert sk.recall_score(labels, chosen_classes(unseen, 1, threshold)) > 0.4 > 0.15 > at_half


def test_probabilities_are_measured_the_same_with_any_threshold() -> None:
    answers, codes = rare(1)
    measured = []
    for threshold in (0.5, 0.05):
        sums = MetricSums(label_of("yes"), with_detail=True)
        sums.add(answers, codes, predicted=chosen_classes(answers, 1, threshold))
        measured.append(sums.evaluate())
    for name in ("log_loss", "calibration_error", "roc_auc", "pr_auc"):
        assert measured[0].metrics[name] == measured[1].metrics[name], name
    assert measured[0].calibration == measured[1].calibration
    assert measured[0].metrics["recall"] < measured[1].metrics["recall"]


@pytest.mark.parametrize(
    ("threshold", "shares", "expected"),
    [(0.5, [9, 1], 0), (0.05, [9, 1], 1), (0.5, [1, 9], 1), ("f1", [9, 1], 1), ("precision>=0.9", [9, 1], 1)],
)
def test_the_constant_answer_has_the_same_threshold(
    use_case: UseCase, tmp_path: Path, threshold: float | str, shares: list[int], expected: int
) -> None:
    data = write_dataset(tmp_path / "data", 20, 10, 1)
    data.splits["train"].class_counts[:] = shares
    config = use_case(label={"column": "y", "positive": "odd", "threshold": threshold})
    assert constant_class(config.label, data.model_copy(update={"label": label_like(data, "odd")})) == expected
    plain = use_case(label={"column": "y"})
    assert constant_class(plain.label, data) == shares.index(max(shares))


def label_like(data: Manifest, positive: str) -> LabelData:
    return data.label.model_copy(update={"positive": positive})


@pytest.mark.parametrize(("rule", "is_told"), [("precision>=0.9", True), ("precision>=0.4", False), ("f1", False)])
def test_a_rule_that_no_threshold_follows_is_told(
    use_case: UseCase, caplog: pytest.LogCaptureFixture, rule: str, is_told: bool
) -> None:
    config = use_case(label={"column": "y", "positive": "yes", "threshold": rule})
    validation = Evaluation(9, 0, {"precision": 0.5, "recall": 0.2, "f1": 0.3})
    _warn_of_threshold(config, cast(Any, SimpleNamespace(validation=validation, threshold=0.7)))
    told = "label.threshold: precision>=0.9 is not reached on the validation rows: precision is 0.5 there with the"
    assert (told in caplog.text) is is_told


@pytest.mark.parametrize("written", ["0.30", ".3", "3.0e-1", "0.3"])
def test_a_threshold_may_be_written_as_any_number(use_case: UseCase, written: str) -> None:
    label = {"column": "y", "positive": "yes"}
    assert use_case(label=label, overrides=(f"label.threshold={written}",)).label.threshold == 0.3
    assert use_case(label=label, overrides=("label.threshold=recall>=0.8",)).label.threshold == "recall>=0.8"


@pytest.mark.parametrize("present", [0, 1])
def test_without_both_classes_no_threshold_is_chosen(present: int) -> None:
    answers, codes = rare(1)
    sums = MetricSums(label_of("yes"), with_detail=True)
    sums.add(answers[codes == present], codes[codes == present])
    assert sums.threshold(ThresholdRule("f1")) is None


def test_a_threshold_lies_in_the_middle_of_the_scores_between_which_it_may_lie() -> None:
    sums = MetricSums(label_of("yes"), with_detail=True)
    second = torch.tensor([0.1, 0.2, 0.8, 0.9], dtype=torch.float64)
    sums.add(torch.stack([1 - second, second], dim=1), torch.tensor([0, 0, 1, 1]))
    assert sums.threshold(ThresholdRule("f1")) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 0.3}, "threshold is a probability of label.positive: say which class that is"),
        ({"positive": "yes", "threshold": 1.5}, "label.threshold: must be a number between 0 and 1, f1, recall>=0.8"),
        ({"positive": "yes", "threshold": "f2"}, "label.threshold: must be a number between 0 and 1, f1, recall>=0.8"),
        ({"positive": "yes", "threshold": "recall>=2"}, "label.threshold: must be a number between 0 and 1, f1"),
        ({"positive": "ja", "classes": ["no", "yes"]}, "positive 'ja' is not one of no, yes"),
        ({"positive": "a", "classes": ["a", "b", "c"]}, "positive is for two classes, but classes lists 3"),
        ({"positive": "a", "task": "regression"}, "positive is for task: classification, but task is regression"),
        ({"weight": "a"}, "label.weight 'a' is also a feature or the label; a weight is neither"),
        ({"weight": "Y"}, "label.weight 'Y' is also a feature or the label; a weight is neither"),
    ],
)
def test_mistakes_in_the_label_are_one_sentence(use_case: UseCase, settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as mistake:
        use_case(label={"column": "y", **settings})
    assert message in str(mistake.value)
    assert "\n" not in str(mistake.value)


@pytest.mark.parametrize(
    ("weights", "label", "message"),
    [
        ("heavy", {}, "training.class_weights: must be none, balanced or a weight above 0 by class, not 'heavy'"),
        ({"yes": 0}, {}, "training.class_weights: must be none, balanced or a weight above 0 by class"),
        ({"ja": 2}, {"classes": ["no", "yes"]}, "training.class_weights 'ja' is not one of no, yes"),
        ("balanced", {"task": "regression"}, "training.class_weights is for classes, but label.task is regression"),
    ],
)
def test_mistakes_in_class_weights_are_one_sentence(
    use_case: UseCase, weights: object, label: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError) as mistake:
        use_case(label={"column": "y", **label}, training={"class_weights": weights})
    assert message in str(mistake.value)


def test_pr_auc_is_of_the_positive_class(use_case: UseCase) -> None:
    gate = {"tracking": {"gate": {"metric": "pr_auc"}}}
    assert use_case(label={"column": "y", "positive": "yes"}, **gate).gate_metric == "pr_auc"
    with pytest.raises(UserError, match=r"tracking\.gate\.metric 'pr_auc' is of one class: set label\.positive"):
        use_case(label={"column": "y"}, **gate)
