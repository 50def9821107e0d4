"""The standard error of each metric, from the delete-a-group jackknife (Kott 2001).

The rows are in buckets by a hash of their values. Each metric is computed without each bucket in turn.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pipeline.data.manifest import LabelData
from pipeline.evaluation.comparison import jackknife_error
from pipeline.evaluation.intervals import BUCKETS
from pipeline.evaluation.sums import MetricSums

MOST_ROWS = 1_000_000
"""Of more rows about as many are in the buckets, chosen by their hash; the errors are scaled to all rows."""
_MOST_CLASSES = 100  # a bucket holds a matrix of classes x classes
_SCORE_BINS = 4_096  # of all classes together
_TOGETHER = 100_000  # rows that are sorted into buckets at once


class BucketSums:
    """The sums of each bucket; the vectors of several ranks are added element by element."""

    def __init__(self, label: LabelData, rows: int, device: torch.device | str = "cpu") -> None:
        """Start from zero; ``rows`` is the number of rows of all ranks, 0 if there are to be no buckets."""
        classes = len(label.classes)
        self._label, self._share = label, min(1.0, MOST_ROWS / max(1, rows))
        self._bins = max(16, _SCORE_BINS // max(1, classes))
        self._waiting: list[tuple[Tensor, ...]] = []
        buckets = 0 if classes > _MOST_CLASSES or not rows else BUCKETS
        self.vector = torch.zeros((buckets, len(self._sums().vector)), dtype=torch.float64, device=device)

    def _sums(self, device: torch.device | str = "cpu") -> MetricSums:
        return MetricSums(self._label, device, with_detail=bool(self._label.classes), score_bins=self._bins)

    def add(
        self, answers: Tensor, labels: Tensor, refused: Tensor, features: Tensor, predicted: Tensor | None = None
    ) -> None:
        """Count a batch as :meth:`MetricSums.add` does; ``features`` (rows, features) decide about the bucket."""
        if not len(self.vector):
            return
        place = row_hash(features, labels)
        chosen = place % MOST_ROWS < round(self._share * MOST_ROWS)
        batch = (place // MOST_ROWS % BUCKETS, answers, labels, refused, *([] if predicted is None else [predicted]))
        self._waiting.append(tuple(part[chosen] for part in batch))
        if sum(len(waiting[0]) for waiting in self._waiting) >= _TOGETHER:
            self.flush()

    def flush(self) -> None:
        """Count what waits; before the vector is read."""
        if not self._waiting:
            return
        buckets, answers, labels, refused, *predicted = map(torch.cat, zip(*self._waiting, strict=True))
        self._waiting.clear()
        for bucket in torch.unique(buckets).tolist():
            inside = buckets == bucket
            sums = self._sums(self.vector.device)
            chosen = predicted[0][inside] if predicted else None
            sums.add(answers[inside], labels[inside], refused=refused[inside], predicted=chosen)
            self.vector[bucket] += sums.vector

    def standard_errors(self) -> dict[str, float]:
        """Return the standard error of each metric; none where too few buckets hold a row."""
        filled = self.vector[self.vector.any(dim=1)].cpu()
        if len(filled) < 2:
            return {}
        whole, left = filled.sum(dim=0), self._sums()
        values = []
        for bucket in filled:
            left.vector.copy_(whole - bucket)
            values.append(left.metrics)
        columns = {name: np.array([value[name] for value in values]) for name in values[0]}
        return {name: math.sqrt(self._share) * jackknife_error(column) for name, column in columns.items()}


def row_hash(features: Tensor, labels: Tensor) -> Tensor:
    """Return a number of at least 0 for each row, (rows,), that depends on its values only."""
    bits = torch.cat([features.float().view(torch.int32), labels.float().view(torch.int32).unsqueeze(1)], dim=1).long()
    mixed = torch.zeros(len(bits), dtype=torch.int64, device=bits.device)
    for column in range(bits.shape[1]):  # int64 wraps around
        mixed = (mixed ^ bits[:, column]) * 0x5851F42D4C957F2D + 0x14057B7EF767814F
        mixed = mixed ^ (mixed >> 29)
    return mixed & 0x7FFFFFFFFFFFFFFF
