"""Metrics from sums that ranks and Spark tasks can add up: rows never leave the process that has read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.data.manifest import LabelData
from pipeline.evaluation.slices import Slice

Counts = npt.NDArray[np.float64]

HISTOGRAM_BINS = 40
CALIBRATION_BINS = 10
# Scores are binned by asinh of the log-odds against 1 in as many as there are classes: fine around what a model says
# that knows nothing, and still telling 1e-100 from 1e-101.
_SCORE_RANGE = 7.0
_SCORE_BINS = 2**14  # per class; fewer for more than 16 classes
_FEWEST_SCORE_BINS = 2**11  # so that 1,000 classes take 32 MiB
_LISTED_SLICES = 20


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
    """How good a model is on the validation rows."""

    rows: int
    refused: int
    """Rows that the model had no answer for; each counts as an answer of somebody who knows nothing."""
    metrics: dict[str, float]
    """accuracy, log_loss, calibration_error, and precision, recall, f1, roc_auc as means over the classes; or rmse, mae
    and r2."""
    classes: list[ClassScores] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)
    """(classes, classes) rows; first index actual, second predicted."""
    calibration: list[CalibrationBin] = field(default_factory=list)
    histogram: list[list[int]] = field(default_factory=list)
    """Regression: (bins, bins) rows, actual × predicted, both over the range of the training rows' labels."""
    slices: list[Slice] = field(default_factory=list)
    """Those with more errors than the average, the worst ones first, at most 20."""


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

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> EpochRecord:
        """Return the record that `dataclasses.asdict` has turned into ``fields``. Raises TypeError, KeyError."""
        splits = {name: SplitMetrics(**fields[name]) for name in ("train", "validation")}
        return cls(**{**fields, **splits})


class Tally:
    """What predictions add up to, as one vector; those of several ranks or tasks are added element by element."""

    def __init__(self, label: LabelData, category_sizes: Sequence[int] = ()) -> None:
        """Start from zero; ``category_sizes`` are the numbers of codes of the features to slice by."""
        self._label = label
        classes = len(label.classes)
        shapes: dict[str, tuple[int, ...]] = {}
        if classes:
            bins = max(_FEWEST_SCORE_BINS, min(_SCORE_BINS, 16 * _SCORE_BINS // classes))
            # the last column of the confusion matrix is "no answer"
            shapes |= {"confusion": (classes, classes + 1), "scores": (classes, 2, bins), "log_loss": (1,)}
            shapes["calibration"] = (CALIBRATION_BINS, 3)
        else:
            shapes |= {"errors": (4,), "refused": (1,), "histogram": (HISTOGRAM_BINS, HISTOGRAM_BINS)}
        shapes |= {f"slice{i}": (size, 2) for i, size in enumerate(category_sizes)}
        lengths = [math.prod(shape) for shape in shapes.values()]
        self.vector: Counts = np.zeros(sum(lengths))
        pieces = np.split(self.vector, np.cumsum(lengths)[:-1])  # views: adding to a part adds to the vector
        self._part = {name: piece.reshape(shapes[name]) for name, piece in zip(shapes, pieces, strict=True)}

    def add(
        self,
        answers: Counts,
        labels: npt.NDArray[Any],
        codes: npt.NDArray[np.int64] | None = None,
        refused: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Count one batch.

        ``answers`` are probabilities (rows, classes) or predicted numbers (rows,), ``labels`` (rows,) the codes or
        numbers that are right, ``codes`` (rows, categorical features) what to slice by. Where ``refused`` is true, the
        answer is replaced by that of somebody who knows nothing: no class at equal probabilities, or the mean label.
        """
        if refused is None:
            refused = np.zeros(len(labels), dtype=bool)
        wrong = self._add_classes if self._label.classes else self._add_numbers
        error = wrong(answers, labels, refused)
        for i in range(codes.shape[1] if codes is not None else 0):
            assert codes is not None
            part = self._part[f"slice{i}"]
            part += np.stack([np.bincount(codes[:, i], w, len(part)) for w in (np.ones(len(error)), error)], axis=1)

    def _add_classes(self, answers: Counts, labels: npt.NDArray[np.int64], refused: npt.NDArray[np.bool_]) -> Counts:
        rows, classes = len(labels), len(self._label.classes)
        answers = np.where(refused[:, None], 1 / classes, answers)
        predicted = np.where(refused, classes, answers.argmax(axis=1))
        confusion = self._part["confusion"]
        confusion += np.bincount(labels * (classes + 1) + predicted, minlength=confusion.size).reshape(confusion.shape)
        # scikit-learn clips like this, too
        tiny = np.finfo(np.float64).eps
        self._part["log_loss"] -= np.log(np.clip(answers[np.arange(rows), labels], tiny, 1 - tiny)).sum()

        scores = self._part["scores"]
        bins = scores.shape[2]
        inside = np.clip(answers, 1e-300, 1 - 1e-16)
        score = np.arcsinh(np.log(inside) - np.log1p(-inside) + np.log(classes - 1))
        binned = np.clip((score / _SCORE_RANGE + 1) / 2 * bins, 0, bins - 1).astype(np.int64)
        is_class = (labels[:, None] == np.arange(classes)).astype(np.int64)
        cells = (np.arange(classes) * 2 + is_class) * bins + binned
        scores += np.bincount(cells.ravel(), minlength=scores.size).reshape(scores.shape)

        right = (predicted == labels).astype(np.float64)
        confidence = answers.max(axis=1)
        edges = np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]
        place = np.searchsorted(edges, confidence)
        for column, weights in enumerate((np.ones(rows), confidence, right)):
            self._part["calibration"][:, column] += np.bincount(place, weights, CALIBRATION_BINS)
        wrong: Counts = 1 - right
        return wrong

    def _add_numbers(self, answers: Counts, labels: Counts, refused: npt.NDArray[np.bool_]) -> Counts:
        stats = self._label.stats
        assert stats is not None
        answers = np.where(refused, stats.mean, answers)
        error, deviation = answers - labels, labels - stats.mean
        self._part["errors"] += [(error**2).sum(), abs(error).sum(), deviation.sum(), (deviation**2).sum()]
        self._part["refused"] += refused.sum()
        span = (stats.max - stats.min) or 1.0
        place = [
            np.clip((values - stats.min) / span * HISTOGRAM_BINS, 0, HISTOGRAM_BINS - 1).astype(np.int64)
            for values in (labels, answers)
        ]
        histogram = self._part["histogram"]
        cells = np.bincount(place[0] * HISTOGRAM_BINS + place[1], minlength=histogram.size)
        histogram += cells.reshape(histogram.shape)
        squared: Counts = np.square(error)
        return squared

    def evaluate(self, vocabularies: dict[str, list[str]] | None = None) -> Evaluation:
        """Return the metrics of what was counted; ``vocabularies`` name the features and codes of the slices."""
        slices = self._slices(vocabularies or {})
        if not self._label.classes:
            rows = float(self._part["histogram"].sum())
            return Evaluation(
                rows=round(rows),
                refused=round(self._part["refused"].item()),
                metrics=regression_metrics([rows, *self._part["errors"]]),
                histogram=self._part["histogram"].astype(int).tolist(),
                slices=slices,
            )
        confusion = self._part["confusion"]
        support, predicted, hits = confusion.sum(axis=1), confusion[:, :-1].sum(axis=0), np.diag(confusion)
        rows = float(support.sum())
        scores = [
            ClassScores(
                name=name,
                support=round(support[i]),
                precision=float(hits[i] / predicted[i]) if predicted[i] else 0.0,
                recall=float(hits[i] / support[i]) if support[i] else 0.0,
                f1=float(2 * hits[i] / (support[i] + predicted[i])) if support[i] + predicted[i] else 0.0,
                roc_auc=_roc_auc(*self._part["scores"][i]),
            )
            for i, name in enumerate(self._label.classes)
        ]
        there = [score for i, score in enumerate(scores) if support[i] + predicted[i]]
        areas = [score.roc_auc for score in scores if not math.isnan(score.roc_auc)]
        counted, confidence, right = self._part["calibration"].T
        return Evaluation(
            rows=round(rows),
            refused=round(confusion[:, -1].sum()),
            metrics={
                **classification_metrics(confusion),
                # means over the classes that there are, as scikit-learn's average="macro" and multi_class="ovr"
                **{n: _mean([getattr(score, n) for score in there]) for n in ("precision", "recall", "f1")},
                "roc_auc": _mean(areas),
                "log_loss": float(self._part["log_loss"].item() / rows) if rows else math.nan,
                # expected calibration error, Guo et al. 2017, "On calibration of modern neural networks"
                "calibration_error": float(abs(confidence - right).sum() / rows) if rows else math.nan,
            },
            classes=scores,
            confusion=confusion[:, :-1].astype(int).tolist(),
            calibration=[
                CalibrationBin(round(n), float(c / n), float(r / n))
                for n, c, r in zip(counted, confidence, right, strict=True)
                if n
            ],
            slices=slices,
        )

    def _slices(self, vocabularies: dict[str, list[str]]) -> list[Slice]:
        found = []
        for i, (feature, vocabulary) in enumerate(vocabularies.items()):
            rows, error = self._part[f"slice{i}"].T
            average = error.sum() / max(rows.sum(), 1)
            for code in np.flatnonzero(rows):
                value = vocabulary[code] if code < len(vocabulary) else "(not seen in training)"
                mean = error[code] / rows[code]
                shown = float(mean if self._label.classes else math.sqrt(mean))
                if (excess := float(error[code] - rows[code] * average)) > 0:
                    found.append(Slice(feature, value, round(rows[code]), shown, excess))
        return sorted(found, key=lambda s: (-s.excess, s.feature, s.value))[:_LISTED_SLICES]


def classification_metrics(confusion: Counts) -> dict[str, float]:
    """Return the accuracy of a confusion matrix: rows are actual classes, columns predicted ones."""
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


def _roc_auc(others: Counts, positives: Counts) -> float:
    """Return the area under the ROC curve from two histograms of the same scores.

    A pair of rows in one bin counts as a tie, so the error is at most half of the share of such pairs.
    """
    pairs = others.sum() * positives.sum()
    if not pairs:
        return math.nan
    below = np.cumsum(others) - others
    return float((positives * (below + others / 2)).sum() / pairs)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan
