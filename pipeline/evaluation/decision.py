"""The gate's rule, as a pure function: whether a candidate becomes the champion."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pipeline.config import Config
from pipeline.config.settings import LOWER_IS_BETTER
from pipeline.evaluation.metrics import Evaluation


@dataclass(frozen=True)
class Decision:
    """The gate's decision about a candidate, and the reason."""

    decision: Literal["promoted", "rejected", "blocked"]
    """`rejected`: it is not better, or misses a threshold. `blocked`: they cannot be compared; a person must look."""
    reason: str
    metric: str
    candidate: float | None
    """The candidate's metric on the validation rows."""
    champion: float | None
    """The champion's metric on the same rows; None without a champion, or if it cannot be measured."""
    model: str
    """Name of the registered model."""
    version: str
    """Of the candidate."""
    champion_version: str | None
    """Of the champion before the decision."""


@dataclass(frozen=True)
class Verdict:
    """The rule's result, before model and versions are added."""

    decision: Literal["promoted", "rejected", "blocked"]
    reason: str


def decide(config: Config, candidate: Evaluation | None, champion: Evaluation | None) -> Verdict:
    """Return whether the candidate becomes the champion, from both evaluations on the same rows.

    It must reach every threshold, and be better than the champion by at least `gate.min_improvement`.
    """
    gate, metric = config.tracking.gate, config.gate_metric
    candidate_value = finite_metric(candidate, metric)
    if candidate is None or candidate_value is None:
        return Verdict("blocked", f"{metric} of the candidate cannot be measured on these validation rows")
    for name, threshold in gate.thresholds.items():
        value = candidate.metrics[name]
        is_enough = value <= threshold if name in LOWER_IS_BETTER else value >= threshold
        if not is_enough:  # NaN is not enough either
            bound = "at most" if name in LOWER_IS_BETTER else "at least"
            return Verdict("rejected", f"{name} is {value:.6g}, but must be {bound} {threshold:.6g}")
    if champion is None:
        return Verdict("promoted", f"there was no champion; {metric} is {candidate_value:.6g}")
    champion_value = finite_metric(champion, metric)
    if champion_value is None:
        return Verdict("blocked", f"{metric} of the champion cannot be measured on these validation rows")
    gain = champion_value - candidate_value if metric in LOWER_IS_BETTER else candidate_value - champion_value
    # the last bits of a sum depend on the order in which Spark's tasks end
    noise = 1e-9 * max(abs(candidate_value), abs(champion_value))
    gain = 0.0 if abs(gain) <= noise else gain
    compared = f"{metric} is {candidate_value:.6g}, the champion's {champion_value:.6g}"
    if gain > 0 and gain >= gate.min_improvement - noise:
        return Verdict("promoted", f"{compared}: better by {gain:.6g}")
    required = f"more than 0 and at least {gate.min_improvement:.6g}" if gate.min_improvement else "more than 0"
    return Verdict("rejected", f"{compared}: better by {gain:.6g}, but that must be {required}")


def finite_metric(evaluation: Evaluation | None, metric: str) -> float | None:
    """Return a metric; None if it was not measured, or is not a finite number."""
    value = math.nan if evaluation is None else evaluation.metrics[metric]
    return value if math.isfinite(value) else None
