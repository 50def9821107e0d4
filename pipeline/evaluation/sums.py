"""The sums over rows from which all metrics follow; ranks and Spark tasks add them up.

torchmetrics is not used: its states are several tensors per metric. Here one flat vector serves the ranks' sum, the
checkpoint and Spark. torchmetrics would also be a new dependency in every rank and model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.config.label import ThresholdRule
from pipeline.data.manifest import LabelData
from pipeline.evaluation import metrics
from pipeline.evaluation.metrics import CALIBRATION_BINS, HISTOGRAM_BINS, Counts, Evaluation, SplitMetrics
from pipeline.evaluation.threshold import best_edge

# Scores are binned by asinh of the log-odds against 1 in as many as there are classes. The bins are fine around the
# score of a model that knows no better, and still separate 1e-100 from 1e-101.
_SCORE_RANGE = 7.0
_SCORE_BINS = 2**14  # per class; fewer for more than 16 classes
_FEWEST_SCORE_BINS = 2**11  # so that 1,000 classes take 32 MiB


def _probability(place: float) -> float:
    """Return the probability of two classes whose score is at ``place``, from 0 to 1, of the range of scores."""
    probability = 1 / (1 + math.exp(-math.sinh((2 * place - 1) * _SCORE_RANGE)))
    return min(probability, 1 - 2**-53)


class MetricSums:
    """Adds up rows, loss and errors of batches on the network's device, in float64 and as one vector.

    The vectors of several ranks or Spark tasks are added element by element. Without ``with_detail`` the sums are what
    each epoch needs; with it, they are all that an :class:`Evaluation` needs.
    """

    def __init__(
        self,
        label: LabelData,
        device: torch.device | str = "cpu",
        *,
        with_detail: bool = False,
        category_sizes: Sequence[int] = (),
        score_bins: int | None = None,
        is_weighted: bool = False,
    ) -> None:
        """Start from zero.

        ``category_sizes`` are the numbers of codes of the features to slice by, unseen values included.
        ``score_bins`` is the number of bins of each class's scores, from which ROC AUC follows. ``is_weighted`` says
        that rows have weights in the loss; all else counts each row once.
        """
        self._label = label
        self._with_detail = with_detail
        classes = len(label.classes)
        # The last column of the confusion matrix is "no answer".
        shapes: dict[str, tuple[int, ...]] = {"confusion": (classes, classes + 1)} if classes else {"errors": (4,)}
        shapes |= {"loss": (), "rows": ()} | ({"weight": ()} if is_weighted else {})
        if with_detail and classes:
            bins = score_bins or max(_FEWEST_SCORE_BINS, min(_SCORE_BINS, 16 * _SCORE_BINS // classes))
            shapes |= {"log_loss": (), "scores": (classes, 2, bins), "calibration": (CALIBRATION_BINS, 3)}
        elif with_detail:
            shapes |= {"refused": (), "histogram": (HISTOGRAM_BINS, HISTOGRAM_BINS)}
        shapes |= {f"slice{i}": (size, 2) for i, size in enumerate(category_sizes)}
        self._counted = classes * (classes + 1)
        lengths = [math.prod(shape) for shape in shapes.values()]
        self.vector = torch.zeros(sum(lengths), dtype=torch.float64, device=device)
        # Views: to add to a part is to add to the vector.
        pieces = torch.split(self.vector, lengths)
        self._part = {name: piece.view(shapes[name]) for name, piece in zip(shapes, pieces, strict=True)}

    @property
    def counts(self) -> Tensor:
        """The confusion matrix as a part of the vector: whole numbers, whose sum is the same in any order."""
        return self.vector[: self._counted]

    @property
    def others(self) -> Tensor:
        """The rest of the vector."""
        return self.vector[self._counted :]

    def add(
        self,
        answers: Tensor,
        labels: Tensor,
        loss: Tensor | None = None,
        *,
        codes: Tensor | None = None,
        refused: Tensor | None = None,
        predicted: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> None:
        """Count one batch; nothing is waited for.

        ``answers``: (rows, classes) logits, with detail probabilities; or (rows,) or (rows, 1) predicted numbers.
        ``labels``: (rows,) codes or numbers that are right. All numbers are counted from the label's offset.
        ``loss``: the sum over the rows. ``codes``: int64
        (rows, categorical features) to slice by. Where ``refused`` (rows,) is true, the model has no answer. The row
        counts like the answer of a model that knows no better: no class at equal probabilities, or the mean label.
        ``predicted`` (rows,) are the codes of the predicted classes, if these are not the most probable ones.
        ``weights`` (rows,) are those by which the loss was multiplied.
        """
        self._part["rows"].add_(len(labels))
        if weights is not None:
            self._part["weight"].add_(weights.sum())
        if loss is not None:
            self._part["loss"].add_(loss)
        if self._label.classes:
            error = self._add_classes(answers, labels, refused, predicted)
        else:
            error = self._add_numbers(answers, labels, refused)
        for i in range(codes.shape[1] if codes is not None else 0):
            assert codes is not None
            self._count(f"slice{i}", codes[:, i] * 2)
            self._count(f"slice{i}", codes[:, i] * 2 + 1, error.double())

    def _count(self, name: str, cells: Tensor, weights: Tensor | None = None) -> None:
        """Add ``weights``, or 1, to the ``cells`` of a part, which are indices into the flat part."""
        cells = cells.flatten()
        weights = torch.ones_like(cells, dtype=torch.float64) if weights is None else weights
        self._part[name].view(-1).scatter_add_(0, cells, weights)

    def _add_classes(self, answers: Tensor, labels: Tensor, refused: Tensor | None, predicted: Tensor | None) -> Tensor:
        """Count answers that are classes; return which rows are wrong: bool (rows,)."""
        classes = len(self._label.classes)
        predicted = answers.argmax(dim=1) if predicted is None else predicted
        if refused is not None:
            predicted = torch.where(refused, classes, predicted)
            answers = torch.where(refused.unsqueeze(1), 1 / classes, answers)
        self._count("confusion", labels * (classes + 1) + predicted)
        is_wrong = predicted != labels
        if self._with_detail:
            # calibration is of the most probable class, whatever the threshold
            is_right = answers.argmax(dim=1) == labels
            if refused is not None:
                is_right &= ~refused
            self._add_probabilities(answers.double(), labels, is_right.double())
        return is_wrong

    def _add_probabilities(self, answers: Tensor, labels: Tensor, right: Tensor) -> None:
        """Count what the metrics of probabilities need: log loss, a histogram of scores per class, calibration."""
        classes = answers.shape[1]
        # scikit-learn clips like this, too.
        tiny = float(np.finfo(np.float64).eps)
        self._part["log_loss"].sub_(answers.gather(1, labels.unsqueeze(1)).clip(tiny, 1 - tiny).log().sum())

        bins = self._part["scores"].shape[2]
        inside = answers.clip(1e-300, 1 - 1e-16)
        score = torch.asinh(inside.log() - torch.log1p(-inside) + math.log(classes - 1))
        binned = ((score / _SCORE_RANGE + 1) / 2 * bins).clip(0, bins - 1).long()
        numbers = torch.arange(classes, device=labels.device)
        is_class = (labels.unsqueeze(1) == numbers).long()
        self._count("scores", (numbers * 2 + is_class) * bins + binned)

        confidence = answers.amax(dim=1)
        edges = torch.from_numpy(np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]).to(labels.device)
        place = torch.searchsorted(edges, confidence)
        for column, weights in enumerate((torch.ones_like(right), confidence, right)):
            self._count("calibration", place * 3 + column, weights)

    def _add_numbers(self, answers: Tensor, labels: Tensor, refused: Tensor | None) -> Tensor:
        """Count answers that are numbers; return the squared errors: float64 (rows,)."""
        stats = self._label.stats
        assert stats is not None
        mean, low = stats.mean - stats.offset, stats.min - stats.offset
        predicted, actual = answers.reshape(labels.shape).double(), labels.double()
        if refused is not None:
            predicted = torch.where(refused, mean, predicted)
        error, deviation = predicted - actual, actual - mean
        squared = error.square()
        sums = [squared.sum(), error.abs().sum(), deviation.sum(), deviation.square().sum()]
        self._part["errors"] += torch.stack(sums)
        if self._with_detail:
            if refused is not None:
                self._part["refused"].add_(refused.sum())
            span = (stats.max - stats.min) or 1.0
            row, column = (
                ((values - low) / span * HISTOGRAM_BINS).clip(0, HISTOGRAM_BINS - 1).long()
                for values in (actual, predicted)
            )
            self._count("histogram", row * HISTOGRAM_BINS + column)
        return squared

    def split_metrics(self) -> SplitMetrics:
        """Return the numbers of an epoch."""
        return SplitMetrics(round(self._part["rows"].item()), self._mean("loss"), self._base_metrics())

    def _mean(self, name: str) -> float:
        """Return a mean over the rows; of the loss, over their weights."""
        by = "weight" if name == "loss" and "weight" in self._part else "rows"
        total = self._part[by].item()
        return self._part[name].item() / total if total else math.nan

    @property
    def metrics(self) -> dict[str, float]:
        """All metrics that these sums hold."""
        return self.evaluate().metrics if self._with_detail else self._base_metrics()

    def _base_metrics(self) -> dict[str, float]:
        if self._label.classes:
            return metrics.classification_metrics(self._counts("confusion"))
        return metrics.regression_metrics([self._part["rows"].item(), *self._part["errors"].tolist()])

    def evaluate(self, vocabularies: dict[str, list[str]] | None = None, *, has_loss: bool = False) -> Evaluation:
        """Return all metrics of sums with detail; ``vocabularies`` name the features and codes of the slices.

        ``has_loss`` says whether every batch came with its loss.
        """
        rows, classes = round(self._part["rows"].item()), self._label.classes
        loss = self._mean("loss") if has_loss else None
        errors = [self._counts(f"slice{i}") for i in range(len(vocabularies or {}))]
        slices = metrics.worst_slices(errors, vocabularies or {}, is_rmse=not classes)
        if not classes:
            return Evaluation(
                rows=rows,
                refused=round(self._part["refused"].item()),
                loss=loss,
                metrics=self._base_metrics(),
                histogram=self._counts("histogram").astype(int).tolist(),
                slices=slices,
            )
        confusion, calibration = self._counts("confusion"), self._counts("calibration")
        histograms = self._counts("scores")
        scores, positive = metrics.class_scores(classes, confusion, histograms), self._label.positive_code
        if positive is None:
            of_classes = metrics.mean_scores(scores, confusion)
        else:
            of_classes = metrics.positive_scores(scores[positive], histograms[positive])
        return Evaluation(
            rows=rows,
            refused=round(confusion[:, -1].sum()),
            loss=loss,
            metrics={
                **self._base_metrics(),
                **of_classes,
                "log_loss": self._mean("log_loss"),
                "calibration_error": metrics.calibration_error(calibration),
            },
            classes=scores,
            confusion=confusion[:, :-1].astype(int).tolist(),
            calibration=metrics.calibration_bins(calibration),
            slices=slices,
        )

    def threshold(self, rule: ThresholdRule) -> float | None:
        """Return the probability from which on the positive class is predicted; None without a row of each class."""
        code = self._label.positive_code
        assert code is not None
        others, positives = self._counts("scores")[code]
        edge = best_edge(rule, others, positives)
        return None if edge is None else _probability(edge / len(others))

    def _counts(self, name: str) -> Counts:
        counts: Counts = self._part[name].cpu().numpy()
        return counts
