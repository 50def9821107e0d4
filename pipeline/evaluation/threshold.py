"""Where to cut the probability of the positive class: `label.threshold`, from histograms of scores."""

from __future__ import annotations

import numpy as np

from pipeline.config.label import ThresholdRule
from pipeline.evaluation.metrics import Counts


def best_edge(rule: ThresholdRule, others: Counts, positives: Counts) -> float | None:
    """Return the edge of bins from which on rows are predicted to be positive; None without rows of both classes.

    ``others`` and ``positives`` are rows by score, (bins,). An edge is a bin's number, or lies between two such
    numbers: in the middle of the empty bins below the lowest bin that is positive, since no row tells where in these
    the classes part. If no edge reaches the least precision, it is that of the highest precision.
    """
    if not others.sum() or not positives.sum():
        return None
    filled = np.flatnonzero(others + positives)
    hits = np.cumsum(positives[filled][::-1])[::-1]
    chosen = np.cumsum((others + positives)[filled][::-1])[::-1]
    recall, precision = hits / positives.sum(), hits / chosen
    if rule.metric == "f1":
        best = _last_best(2 * hits / (chosen + positives.sum()))
    elif rule.metric == "recall":
        best = int(np.flatnonzero(recall >= rule.least)[-1])
    else:
        reaching = np.flatnonzero(precision >= rule.least)
        best = int(reaching[0]) if len(reaching) else _last_best(precision)
    below = filled[best - 1] + 1 if best else 0
    return float(filled[best] + below) / 2


def _last_best(values: Counts) -> int:
    return len(values) - 1 - int(values[::-1].argmax())
