"""What two models' answers to rows of the test split add up to, in one Spark task or in the driver."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config.label import Label
from pipeline.data import score
from pipeline.data.manifest import LabelData, Manifest
from pipeline.model.offsets import relative

if TYPE_CHECKING:
    import pandas as pd
    from pyspark import Broadcast
    from torch import Tensor

    from pipeline.evaluation.sums import MetricSums
    from pipeline.model.scorer import Scorer

# The columns of a row; those of a model's inputs begin with MODEL, the model's position and `_`.
LABEL = "_gate_label"
MODEL = "_gate_model"
SAMPLED = "_gate_texts"
HASH = "_gate_hash"
KNOWN = "_gate_known"
THEIR_LABEL = "_gate_their_label"

CELLS = "what int, bucket int, cell bigint, amount double"
"""A line for each sum that is not 0."""
WHOLE, CANDIDATE, REFERENCE = 0, 1, 2
"""`what` a sum is of: the candidate on all test rows, and both models on the compared rows of one bucket."""
ALONE = 3
"""The compared rows that only the candidate has right, only the reference, those with another label, and all."""
SKETCH = 5
"""How many test rows have each of the smallest hashes; the hash is the cell."""
SKETCHED = 50
"""Hashes in a sketch: a sample of the different rows, the same whoever takes it."""
BUCKETS = 200
"""The compared rows are in so many buckets, for the jackknife."""
MOST_CLASSES = 100
"""With more classes only accuracy and log_loss are measured in buckets: the others take a matrix of all classes."""
DIFFERENCES = 4
"""The sampled rows in which a feature differs between Spark and the candidate's own path, and the refused ones."""

_AUC_BINS = 4_096  # of all classes together, in the sums of a bucket


class Answers(NamedTuple):
    """What a model says of some rows."""

    values: npt.NDArray[np.float64]
    """Probabilities (rows, classes), or numbers (rows,) counted from the label's offset."""
    refused: npt.NDArray[np.bool_]
    """Which rows (rows,) have no answer."""
    predicted: npt.NDArray[np.int64] | None
    """The codes of the predicted classes (rows,), by the model's own threshold; anything for a refused row."""

    def at(self, rows: npt.NDArray[np.bool_]) -> Answers:
        """Return the answers to some of the rows."""
        return Answers(self.values[rows], self.refused[rows], None if self.predicted is None else self.predicted[rows])


class MeanSums:
    """Accuracy or log loss of the rows of a bucket: a sum over the rows, and their number."""

    def __init__(self, metric: str) -> None:
        import torch

        self._metric, self.vector = metric, torch.zeros(2, dtype=torch.float64)

    def add(self, answers: Tensor, labels: Tensor, *, refused: Tensor, predicted: Tensor | None) -> None:
        """Count a batch as :meth:`MetricSums.add` does."""
        import torch

        right = answers.gather(1, labels.unsqueeze(1)).squeeze(1)
        if self._metric == "accuracy":
            values = ((predicted == labels) & ~refused).double()
        else:
            tiny = float(np.finfo(np.float64).eps)
            no_answer = torch.full_like(right, 1 / answers.shape[1])
            values = -torch.where(refused, no_answer, right).clip(tiny, 1 - tiny).log()
        self.vector += torch.stack([values.sum(), torch.tensor(float(len(values)), dtype=torch.float64)])

    @property
    def metrics(self) -> dict[str, float]:
        """The metric."""
        total, rows = self.vector.tolist()
        return {self._metric: total / rows if rows else math.nan}


def sums_of(label: LabelData, metric: str | None = None) -> MetricSums | MeanSums:
    """Return sums for all metrics, or for one in a bucket, which are small."""
    from pipeline.evaluation.sums import MetricSums

    if metric is None:
        return MetricSums(label, with_detail=True)
    if metric in ("accuracy", "log_loss"):
        return MeanSums(metric)
    needs_detail = bool(label.classes)
    bins = max(16, _AUC_BINS // max(1, len(label.classes))) if metric in ("roc_auc", "pr_auc") else 1
    return MetricSums(label, with_detail=needs_detail, score_bins=bins)


def counter(
    models: list[Broadcast[dict[str, bytes]]], data: Manifest, metric: str, classes: list[str], constant: int | None
) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    """Return the function that adds up the answers of the candidate, and of the champion if there is one.

    ``classes`` are the label's texts in the order of the classes. ``constant`` is what :func:`constant_class` returns.
    """

    def count(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        sums = _Sums([score.shipped_model(model) for model in models], data, metric, classes, constant)
        for batch in batches:
            sums.add(batch)
        return sums.cells()

    return count


class _Sums:
    """The sums over the batches of one task."""

    def __init__(
        self, scorers: list[Scorer], data: Manifest, metric: str, classes: list[str], constant: int | None
    ) -> None:
        import pandas as pd

        self._scorers, self._label, self._metric = scorers, data.label, metric
        self._constant, self._constant_class = _constant(data), constant
        self._code_of = pd.Index(classes, dtype=object)
        self._whole, self._alone = sums_of(data.label), np.zeros(4)
        self._in_buckets: dict[tuple[int, int], MetricSums | MeanSums] = {}
        self._sketch: dict[int, int] = {}
        network = scorers[0].spec.network
        self._different = np.zeros(len(network.numeric) + len(network.categorical) + 1)

    def add(self, batch: pa.RecordBatch) -> None:
        """Count a batch of rows."""
        labels, label = batch.column(LABEL).to_pandas(), self._label
        offset = label.stats.offset if label.stats else 0.0
        actual = self._code_of.get_indexer(labels) if label.classes else relative(labels.to_numpy(np.float64), offset)
        # a class that the manifest lacks means that the source has changed, and the number of rows shows it
        known = actual >= 0 if label.classes else np.full(len(actual), True)
        actual = actual[known]
        pair = [self._answers(batch, i, known) for i in range(len(self._scorers))]
        _add(self._whole, pair[0], actual)
        if len(pair) == 1:
            repeated = np.repeat(self._constant, len(actual), axis=0)
            same = None if self._constant_class is None else np.full(len(actual), self._constant_class)
            pair.append(Answers(repeated, np.zeros(len(actual), dtype=bool), same))
        compared = ~batch.column(KNOWN).to_numpy(zero_copy_only=False)[known]
        hashes = batch.column(HASH).to_numpy()[known]
        self._add_to_sketch(hashes)
        buckets = hashes % BUCKETS
        for bucket in np.unique(buckets[compared]):
            inside = compared & (buckets == bucket)
            for what, given in zip((CANDIDATE, REFERENCE), pair, strict=True):
                sums = self._in_buckets.setdefault((what, int(bucket)), sums_of(label, self._metric))
                _add(sums, given.at(inside), actual[inside])
        if label.classes:
            ours, theirs = (~given.refused & (given.predicted == actual) for given in pair)
            self._alone[:2] += (ours & ~theirs & compared).sum(), (theirs & ~ours & compared).sum()
        self._alone[3] += compared.sum()
        if len(self._scorers) > 1:
            others = batch.column(THEIR_LABEL).to_pandas()[known]
            self._alone[2] += (_has_other_label(others, actual, label) & compared).sum()
        self._different += _count_differences(batch, self._scorers[0])

    def _add_to_sketch(self, hashes: npt.NDArray[np.int64]) -> None:
        """Keep the smallest hashes, and how many rows have each."""
        values, counts = np.unique(hashes, return_counts=True)
        for value, count in zip(values[:SKETCHED].tolist(), counts[:SKETCHED].tolist(), strict=True):
            self._sketch[value] = self._sketch.get(value, 0) + count
        self._sketch = dict(sorted(self._sketch.items())[:SKETCHED])

    def _answers(self, batch: pa.RecordBatch, model: int, known: npt.NDArray[np.bool_]) -> Answers:
        import pandas as pd

        scorer = self._scorers[model]
        scored = scorer.score(score.read_inputs(batch, scorer.spec, f"{MODEL}{model}_"))
        values, refused = _values(scored, self._label), scored["reason"].notna().to_numpy()
        classes = pd.Index(self._label.classes, dtype=object)
        predicted = classes.get_indexer(scored["prediction"]) if self._label.classes else None
        return Answers(values, refused, predicted).at(known)

    def cells(self) -> Iterator[pa.RecordBatch]:
        """Yield the sums as :data:`CELLS`."""
        yield _cells(WHOLE, -1, self._whole.vector.numpy())
        for (what, bucket), sums in self._in_buckets.items():
            yield _cells(what, bucket, sums.vector.numpy())
        yield _cells(ALONE, -1, self._alone)
        sketch = np.array([*self._sketch], dtype=np.int64), np.array([*self._sketch.values()], dtype=np.float64)
        yield _lines(SKETCH, -1, *sketch)
        yield _cells(DIFFERENCES, -1, self._different)


def _add(sums: MetricSums | MeanSums, answers: Answers, actual: npt.NDArray[Any]) -> None:
    import torch

    predicted = None if answers.predicted is None else torch.from_numpy(answers.predicted)
    refused = torch.from_numpy(answers.refused)
    sums.add(torch.from_numpy(answers.values), torch.from_numpy(actual), refused=refused, predicted=predicted)


def _cells(what: int, bucket: int, vector: Any) -> pa.RecordBatch:
    """Return the sums that are not 0, a line for each."""
    cells = np.flatnonzero(vector)
    return _lines(what, bucket, cells, vector[cells])


def _lines(what: int, bucket: int, cells: Any, amounts: Any) -> pa.RecordBatch:
    columns = [np.full(len(cells), what, np.int32), np.full(len(cells), bucket, np.int32), cells, amounts]
    return pa.RecordBatch.from_arrays([pa.array(c) for c in columns], names=["what", "bucket", "cell", "amount"])


def constant_class(label: Label, data: Manifest) -> int | None:
    """Return the code of the class that the constant answer predicts; None for a number.

    It is the most frequent one. With `label.positive` it is the positive one if its share reaches the threshold, and
    wherever a rule chooses the threshold, since a constant answer that is always positive is the best by each rule.
    """
    if data.label.stats:
        return None
    shares, positive = _constant(data)[0], data.label.positive_code
    if positive is None:
        return int(shares.argmax())
    is_positive = label.threshold_rule is not None or shares[positive] >= float(label.threshold)
    return positive if is_positive else 1 - positive


def _constant(data: Manifest) -> Any:
    """Return the constant answer (1, outputs): the training rows' shares of the classes, or their mean."""
    if data.label.stats:
        return np.array([[data.label.stats.mean - data.label.stats.offset]])
    counts = np.array(data.splits["train"].class_counts, dtype=np.float64)
    return (counts / counts.sum())[np.newaxis]


def _has_other_label(theirs: pd.Series, codes: Any, label: LabelData) -> Any:
    """Return for which rows, (rows,), the champion's SQL makes another label, or none."""
    if label.classes:
        ours = np.array(label.classes, dtype=object)[codes]
        return theirs.to_numpy(dtype=object) != ours
    offset = label.stats.offset if label.stats else 0.0
    values = theirs.to_numpy(np.float64)
    return ~np.isclose(relative(values, offset), codes, rtol=1e-6, atol=0)


def _count_differences(batch: pa.RecordBatch, scorer: Scorer) -> Any:
    """Return how many sampled rows differ between Spark and the model's own path: in each feature, and in refusals."""
    import pandas as pd

    sampled = batch.column(SAMPLED).to_pandas()
    rows = np.flatnonzero(sampled.notna())
    spec = scorer.spec
    counts = np.zeros(len(spec.network.numeric) + len(spec.network.categorical) + 1)
    if not len(rows) or not spec.features:
        return counts
    ours, reasons = scorer.features(pd.DataFrame(list(sampled.iloc[rows]), dtype=object), read_by_spark=True)
    theirs = score.read_inputs(batch, spec, f"{MODEL}0_").iloc[rows]
    offsets = {number.column: number.offset for number in spec.network.numeric}
    for i, name in enumerate(theirs.columns):
        counts[i] = _is_other(theirs[name], ours[name], offsets.get(name, 0.0)).sum()
    counts[-1] = reasons.notna().sum()
    return counts


def _is_other(one: pd.Series, other: pd.Series, offset: float) -> Any:
    """Return which values differ, (rows,): as text, or as float32 up to a last bit or two of an inexact function.

    Numbers are counted from the offset, as the network takes them.
    """
    if one.dtype == object or other.dtype == object:
        pairs = zip(one, other, strict=True)
        return np.array([a != b and not (a is None and b is None) for a, b in pairs], dtype=bool)
    a, b = one.to_numpy(np.float64), other.to_numpy(np.float64)
    missing_a, missing_b = ~np.isfinite(relative(a, 0.0)), ~np.isfinite(relative(b, 0.0))
    small_a, small_b = relative(a, offset), relative(b, offset)
    return np.where(missing_a | missing_b, missing_a != missing_b, ~np.isclose(small_a, small_b, rtol=1e-6, atol=0))


def _values(scored: pd.DataFrame, label: LabelData) -> Any:
    """Return probabilities in the order of the label's classes, or the predicted numbers, counted from its offset."""
    from pipeline.model.spec import PROBABILITY

    if label.stats:
        return scored["prediction"].to_numpy(np.float64) - label.stats.offset
    return scored[[PROBABILITY + name for name in label.classes]].to_numpy(np.float64)
