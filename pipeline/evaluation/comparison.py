"""Whether one model is better than another on the same rows, or only luckier: the statistics of the gate.

Both models answer the same rows, so the difference of a metric is tested in pairs:

- accuracy, rows by themselves: McNemar's exact test of the rows that only one of the two gets right (McNemar 1947).
  Against a bound other than 0 the interval of Agresti and Min, "Simple improved confidence intervals for comparing
  matched proportions" (2005), which adds half a row to each of the four counts.
- all other metrics, and rows in groups: the delete-a-group jackknife (Kott 2001). The rows are in buckets by a hash of
  their values, or by their group. The metric's difference is computed without each bucket in turn, and Student's t says
  how far it may be off. Nothing is drawn at random: the same rows have the same result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Paired:
    """Two models on the same rows: the candidate, and a reference."""

    rows: int
    candidate: float
    """The metric of the candidate on these rows."""
    reference: float
    """The metric of the reference."""
    only_candidate: int
    """Rows for which only the candidate is right; 0 for regression."""
    only_reference: int
    """Rows for which only the reference is right."""
    without_bucket: Sequence[float]
    """Candidate's metric minus the reference's, without each bucket of rows in turn."""
    copies: float = 1.0
    """How many rows are alike, as a mean over the different rows."""


@dataclass(frozen=True)
class Bound:
    """How sure a difference is."""

    gain: float
    """By how much the candidate is better; negative if it is worse."""
    lowest: float
    """With the wanted confidence the gain is above this."""
    is_above: bool
    """Whether the gain is above the limit with this confidence."""
    method: str
    """What the confidence comes from, as people call it."""


def bound(paired: Paired, limit: float, level: float, *, lower_is_better: bool, is_count: bool) -> Bound:
    """Return whether the candidate's gain is above ``limit``, at an error probability of ``level`` at most.

    ``is_count`` says that the metric is accuracy and that the rows do not depend on each other.
    """
    gain = paired.candidate - paired.reference
    gain = -gain if lower_is_better else gain
    if abs(gain) <= 1e-9 * max(abs(paired.candidate), abs(paired.reference)):
        gain = 0.0  # the last bits of a sum depend on the order in which Spark's tasks end
    if not is_count:
        values = np.asarray(paired.without_bucket, dtype=np.float64)
        lowest = gain - jackknife_error(values) * _t_quantile(level, len(values) - 1)
        return Bound(gain, lowest, gain > limit and lowest > limit, f"jackknife over {len(values)} buckets of rows")
    lowest = _matched_bound(paired, level)
    if limit:
        return Bound(gain, lowest, gain > limit and lowest > limit, "interval of Agresti and Min")
    p = mcnemar(paired.only_candidate, paired.only_reference)
    return Bound(gain, lowest, gain > 0 and p <= level, "McNemar's exact test")


def mcnemar(better: int, worse: int) -> float:
    """Return the probability that at least ``better`` of all rows that one model alone has right are by chance."""
    from scipy.stats import binom

    return float(binom.sf(better - 1, better + worse, 0.5)) if better + worse else 1.0


def level_of_try(confidence: float, tries: int) -> float:
    """Return the error probability of the n-th model that is measured on the same rows, n from 1.

    All of them together add up to 1 - ``confidence``: 6 / π² · Σ 1 / n² = 1. So however often equal models are trained,
    one is promoted with that probability at most (Bonferroni, with unequal shares).
    """
    return (1 - confidence) * 6 / (math.pi * tries) ** 2


def _matched_bound(paired: Paired, level: float) -> float:
    from scipy.stats import norm

    n, b, c = paired.rows + 2, paired.only_candidate + 0.5, paired.only_reference + 0.5
    error = math.sqrt(b + c - (b - c) ** 2 / n) / n
    return float((b - c) / n - norm.isf(level) * error)


def jackknife_error(without: npt.NDArray[np.float64]) -> float:
    """Return the standard error of a number from its values without each bucket (buckets,); infinite for one bucket."""
    buckets = len(without)
    if buckets < 2:
        return math.inf
    return float(np.sqrt((buckets - 1) / buckets * np.square(without - without.mean()).sum()))


def _t_quantile(level: float, degrees: int) -> float:
    from scipy.stats import t

    return float(t.isf(level, degrees)) if degrees > 0 else math.inf
