"""Records of how good a model is, and the formulas that make metrics of the sums in `sums.py`; without torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.slices import Slice

Counts = npt.NDArray[np.float64]

HISTOGRAM_BINS = 40
CALIBRATION_BINS = 10
_LISTED_SLICES = 20
_NO_VALUES = ("(rare or unseen)", "(missing)")  # of the two codes after a vocabulary's


@dataclass(frozen=True)
class ClassScores:
    """One class against all others."""

    name: str
    support: int
    """Rows of this class."""
    precision: float
    recall: float
    f1: float
    roc_auc: float
    """NaN when there are no rows of this class, or no others."""


@dataclass(frozen=True)
class CalibrationBin:
    """Rows whose most probable class has a probability in one tenth of 0…1."""

    rows: int
    confidence: float
    """Mean probability of the predicted class."""
    accuracy: float


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on the rows of one split."""

    rows: int
    refused: int
    """Rows that the model had no answer for; each counts like the answer of a model that knows no better."""
    metrics: dict[str, float]
    """accuracy, log_loss, calibration_error, and precision, recall, f1, roc_auc as means over the classes, or these and
    pr_auc of the positive class; or rmse, mae and r2."""
    classes: list[ClassScores] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)
    """(classes, classes) rows; first index actual, second predicted."""
    calibration: list[CalibrationBin] = field(default_factory=list)
    histogram: list[list[int]] = field(default_factory=list)
    """Regression: (bins, bins) rows, actual × predicted, both over the range of the training rows' labels."""
    slices: list[Slice] = field(default_factory=list)
    """The slices with more errors than the average, the worst first, at most 20."""
    loss: float | None = None
    """What training minimizes, as a mean over the rows; None where the network is not at hand, only its answers."""
    standard_errors: dict[str, float] = field(default_factory=dict)
    """How far each metric is off, as a rule: see evaluation/bucket_sums.py. Empty where that was not measured."""


@dataclass(frozen=True)
class Importance:
    """How much worse a model is without what one feature says."""

    feature: str
    growth: float
    """Of the log loss, or of the rmse, when the feature's values are shuffled; a mean over several shuffles."""
    spread: float
    """Standard deviation over the shuffles."""


@dataclass(frozen=True)
class SplitMetrics:
    """One epoch's numbers of one split, over all ranks."""

    rows: int
    loss: float
    """Mean over the rows."""
    metrics: dict[str, float]
    """accuracy; or rmse, mae (both in the label's unit) and r2."""


@dataclass(frozen=True)
class EpochRecord:
    """One epoch's numbers; the same on all ranks."""

    epoch: int
    """Counts from 1."""
    train: SplitMetrics
    """Of the weights as they were at each step."""
    validation: SplitMetrics
    """Of the weights at the epoch's end."""
    learning_rate: float
    """At the epoch's last step."""
    rows_per_s: float
    """Training rows of all ranks per second, validation included."""
    ranks: int
    ended_ms: int
    """When the epoch ended, in milliseconds since 1970."""

    @property
    def values(self) -> dict[str, float]:
        """All numbers except the time, by their names in MLflow, such as `train_loss` or `validation_accuracy`."""
        values: dict[str, float] = {"epoch": self.epoch}
        for name, split in (("train", self.train), ("validation", self.validation)):
            values |= {f"{name}_rows": split.rows, f"{name}_loss": split.loss}
            values |= {f"{name}_{metric}": value for metric, value in split.metrics.items()}
        return values | {"learning_rate": self.learning_rate, "rows_per_s": self.rows_per_s, "ranks": self.ranks}

    def line(self, epochs: int) -> str:
        """Return the record as one line for people; ``epochs`` is the number that the training may take."""
        metric = "accuracy" if "accuracy" in self.validation.metrics else "rmse"
        train, validation = self.train, self.validation
        return (
            f"epoch {self.epoch:>{len(str(epochs))}}/{epochs}  "
            f"loss {train.loss:.4f}  validation loss {validation.loss:.4f}  "
            f"{metric} {train.metrics[metric]:.4f}  validation {metric} {validation.metrics[metric]:.4f}  "
            f"{self.rows_per_s:,.0f} rows/s"
        )

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> EpochRecord:
        """Return the record that `dataclasses.asdict` has turned into ``fields``. Raises TypeError, KeyError."""
        splits = {name: SplitMetrics(**fields[name]) for name in ("train", "validation")}
        return cls(**{**fields, **splits})


def classification_metrics(confusion: Counts) -> dict[str, float]:
    """Return the accuracy of a confusion matrix: rows are actual classes, columns predicted ones, then "no answer"."""
    total = confusion.sum()
    return {"accuracy": float(np.trace(confusion) / total) if total else math.nan}


def regression_metrics(sums: Sequence[float]) -> dict[str, float]:
    """Return rmse, mae (in the label's unit) and r2 of [rows, Σe², Σ|e|, Σd, Σd²].

    e is prediction minus label, d is label minus any fixed number near its mean (which keeps Σd² - (Σd)²/n exact).
    """
    rows, squared, absolute, deviation, deviation_squared = map(float, sums)
    if not rows:
        return {"rmse": math.nan, "mae": math.nan, "r2": math.nan}
    spread = deviation_squared - deviation**2 / rows
    return {
        "rmse": math.sqrt(squared / rows),
        "mae": absolute / rows,
        "r2": 1 - squared / spread if spread > 0 else math.nan,
    }


def class_scores(classes: Sequence[str], confusion: Counts, scores: Counts) -> list[ClassScores]:
    """Return each class against all others.

    ``confusion``: (classes, classes + 1) rows. ``scores``: (classes, 2, bins) rows by score, of the other classes and
    of this class.
    """
    support, predicted, hits = confusion.sum(axis=1), confusion[:, :-1].sum(axis=0), np.diag(confusion)
    return [
        ClassScores(
            name=name,
            support=round(support[i]),
            precision=float(hits[i] / predicted[i]) if predicted[i] else 0.0,
            recall=float(hits[i] / support[i]) if support[i] else 0.0,
            f1=float(2 * hits[i] / (support[i] + predicted[i])) if support[i] + predicted[i] else 0.0,
            roc_auc=_roc_auc(*scores[i]),
        )
        for i, name in enumerate(classes)
    ]


def mean_scores(scores: Sequence[ClassScores], confusion: Counts) -> dict[str, float]:
    """Return precision, recall, f1 and roc_auc as means, as scikit-learn's average="macro" and multi_class="ovr".

    A class that no row has and none is predicted as does not count.
    """
    occurs = confusion.sum(axis=1) + confusion[:, :-1].sum(axis=0)
    occurring = [score for score, rows in zip(scores, occurs, strict=True) if rows]
    means = {name: _mean([getattr(score, name) for score in occurring]) for name in ("precision", "recall", "f1")}
    return means | {"roc_auc": _mean([score.roc_auc for score in scores if not math.isnan(score.roc_auc)])}


def positive_scores(positive: ClassScores, scores: Counts) -> dict[str, float]:
    """Return precision, recall, f1, roc_auc and pr_auc of the positive class.

    ``scores``: (2, bins) rows by score, of the other class and of this one.
    """
    values = {name: getattr(positive, name) for name in ("precision", "recall", "f1", "roc_auc")}
    return values | {"pr_auc": _average_precision(*scores)}


def calibration_error(calibration: Counts) -> float:
    """Return the expected calibration error (Guo et al. 2017, "On calibration of modern neural networks").

    ``calibration``: per bin of confidence the rows, the sum of the confidences, and the right answers.
    """
    rows, confidence, right = calibration.T
    return float(abs(confidence - right).sum() / rows.sum()) if rows.any() else math.nan


def calibration_bins(calibration: Counts) -> list[CalibrationBin]:
    """Return the bins that hold rows; ``calibration`` as for :func:`calibration_error`."""
    return [CalibrationBin(round(n), float(c / n), float(r / n)) for n, c, r in calibration if n]


def worst_slices(sums: Sequence[Counts], vocabularies: dict[str, list[str]], is_rmse: bool) -> list[Slice]:
    """Return the slices with more errors than the average, the worst first, at most 20.

    ``sums``: of each feature (codes, 2): rows, and wrong answers or squared errors.
    """
    slices = []
    for (feature, vocabulary), (rows, error) in zip(vocabularies.items(), (s.T for s in sums), strict=True):
        average = error.sum() / max(rows.sum(), 1)
        for code in np.flatnonzero(rows):
            value = [*vocabulary[code : code + 1], *_NO_VALUES[max(0, code - len(vocabulary)) :]][0]
            mean = float(error[code] / rows[code])
            if (excess := float(error[code] - rows[code] * average)) > 0:
                slices.append(Slice(feature, value, round(rows[code]), math.sqrt(mean) if is_rmse else mean, excess))
    return sorted(slices, key=lambda s: (-s.excess, s.feature, s.value))[:_LISTED_SLICES]


def _roc_auc(others: Counts, positives: Counts) -> float:
    """Return the area under the ROC curve from two histograms of the same scores.

    A pair of rows in one bin counts as a tie, so the error is at most half of the share of such pairs.
    """
    pairs = others.sum() * positives.sum()
    if not pairs:
        return math.nan
    below = np.cumsum(others) - others
    return float((positives * (below + others / 2)).sum() / pairs)


def _average_precision(others: Counts, positives: Counts) -> float:
    """Return the area under the curve of precision over recall as scikit-learn's average_precision_score sums it.

    The histograms are of the same scores. Rows of one bin count as equal.
    """
    if not positives.sum():
        return math.nan
    hits, chosen = np.cumsum(positives[::-1]), np.cumsum((positives + others)[::-1])
    precision = hits / np.maximum(chosen, 1e-300)
    return float((positives[::-1] * precision).sum() / positives.sum())


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan
