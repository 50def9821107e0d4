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
    """What the gate decided about a candidate, and why."""

    decision: Literal["promoted", "rejected", "blocked"]
    """`rejected`: it is not better, or not good enough. `blocked`: the two cannot be compared; a person must look."""
    reason: str
    metric: str
    candidate: float | None
    """The candidate's metric on the validation rows."""
    champion: float | None
    """The champion's metric on the same rows; None when there is no champion, or it cannot be measured."""
    model: str
    """Name of the registered model."""
    version: str
    """The candidate's."""
    champion_version: str | None
    """Of the champion that the candidate was compared with."""


@dataclass(frozen=True)
class Verdict:
    """A decision without the names of what it is about."""

    decision: Literal["promoted", "rejected", "blocked"]
    reason: str


def decide(config: Config, candidate: Evaluation | None, champion: Evaluation | None) -> Verdict:
    """Return whether the candidate becomes the champion, from what both are on the same rows."""
    gate, metric = config.tracking.gate, config.gate_metric
    ours = finite_metric(candidate, metric)
    if candidate is None or ours is None:
        return Verdict("blocked", f"{metric} of the candidate cannot be measured on these validation rows")
    for name, threshold in gate.thresholds.items():
        reached = candidate.metrics[name]
        is_enough = reached <= threshold if name in LOWER_IS_BETTER else reached >= threshold
        if not is_enough:  # so NaN is not enough either
            bound = "at most" if name in LOWER_IS_BETTER else "at least"
            return Verdict("rejected", f"{name} is {reached:.6g}, but must be {bound} {threshold:.6g}")
    if champion is None:
        return Verdict("promoted", f"there was no champion; {metric} is {ours:.6g}")
    theirs = finite_metric(champion, metric)
    if theirs is None:
        return Verdict("blocked", f"{metric} of the champion cannot be measured on these validation rows")
    gain = theirs - ours if metric in LOWER_IS_BETTER else ours - theirs
    # the last bits of a sum depend on the order in which Spark's tasks end
    noise = 1e-9 * max(abs(ours), abs(theirs))
    gain = 0.0 if abs(gain) <= noise else gain
    compared = f"{metric} is {ours:.6g}, the champion's {theirs:.6g}"
    if gain > 0 and gain >= gate.min_improvement - noise:
        return Verdict("promoted", f"{compared}: better by {gain:.6g}")
    wanted = f"more than 0 and at least {gate.min_improvement:.6g}" if gate.min_improvement else "more than 0"
    return Verdict("rejected", f"{compared}: better by {gain:.6g}, but that must be {wanted}")


def finite_metric(evaluation: Evaluation | None, metric: str) -> float | None:
    """Return a metric; None where it was not measured, or is not a finite number."""
    value = math.nan if evaluation is None else evaluation.metrics[metric]
    return value if math.isfinite(value) else None
