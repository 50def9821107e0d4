"""The gate's rule, as a pure function: whether a candidate becomes the champion."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pipeline.config import Config
from pipeline.config.settings import LOWER_IS_BETTER
from pipeline.evaluation.comparison import Bound, Paired, bound, level_of_try
from pipeline.evaluation.metrics import Evaluation

_FEW_COPIES = 1.05

Outcome = Literal["promoted", "rejected", "blocked"]


@dataclass(frozen=True)
class Decision:
    """The gate's decision about a candidate, and the reason."""

    decision: Outcome
    """`rejected`: it is not surely better, or misses a threshold. `blocked`: they cannot be compared; a person must
    look."""
    reason: str
    metric: str
    candidate: float | None
    """The candidate's metric on the compared rows."""
    champion: float | None
    """The champion's metric on the same rows; None without a champion, or if it cannot be measured."""
    model: str
    """Name of the registered model."""
    version: str
    """Of the candidate."""
    champion_version: str | None
    """Of the champion before the decision."""
    rows: int = 0
    """Test rows that were compared: those that the champion does not know."""
    attempt: int = 1
    """This is the n-th model that was measured on these test rows; each further one must be surer."""
    method: str = ""
    """What the confidence comes from."""


@dataclass(frozen=True)
class Verdict:
    """The rule's result, before model and versions are added."""

    decision: Outcome
    reason: str
    method: str = ""


def decide(
    config: Config, candidate: Evaluation, paired: Paired, champion_version: str | None, attempt: int = 1
) -> Verdict:
    """Return whether the candidate becomes the champion.

    ``candidate`` is measured on all test rows, and must reach every threshold there. ``paired`` is the candidate beside
    the champion on the rows that this one does not know, or beside the constant answer if there is no champion.
    ``attempt`` says how many models were measured on these test rows, this one included.
    """
    gate, metric = config.tracking.gate, config.gate_metric
    for name, threshold in gate.thresholds.items():
        value = candidate.metrics[name]
        is_enough = value <= threshold if name in LOWER_IS_BETTER else value >= threshold
        if not is_enough:  # NaN is not enough either
            limit = "at most" if name in LOWER_IS_BETTER else "at least"
            return Verdict("rejected", f"{name} is {value:.6g}, but must be {limit} {threshold:.6g}")
    if champion_version and paired.rows < gate.min_rows:
        problem = f"the champion, version {champion_version}, does not know {paired.rows} of {candidate.rows} test rows"
        advice = "train with its features, seed and fractions, or keep rows on their sides with split.group on an id; "
        advice += "jobs/gate.py --promote overrules"
        return Verdict("blocked", f"{problem}, but tracking.gate.min_rows is {gate.min_rows}: {advice}")
    reference = "champion" if champion_version else "constant answer"
    for who, value in (("candidate", paired.candidate), (reference, paired.reference)):
        if not math.isfinite(value):
            return Verdict("blocked", f"{metric} of the {who} cannot be measured on {paired.rows} test rows")
    return _beside_champion(config, paired, attempt) if champion_version else _first(config, paired)


def _first(config: Config, paired: Paired) -> Verdict:
    """Compare with the constant answer."""
    metric = config.gate_metric
    compared = f"{metric} is {paired.candidate:.6g}, the constant answer's {paired.reference:.6g}"
    if metric == "calibration_error":  # the constant answer is calibrated, and knows nothing
        problem = "there was no champion, and calibration_error does not tell whether a model beats the constant answer"
        return Verdict("blocked", f"{problem}: take another tracking.gate.metric, or jobs/gate.py --promote")
    measured = _bound(config, paired, 0.0, 1 - config.tracking.gate.confidence)
    if measured.is_above:
        return Verdict("promoted", f"there was no champion; {compared}", measured.method)
    sure = f"on {paired.rows} test rows that may be chance ({measured.method})" if measured.gain > 0 else "not better"
    return Verdict("rejected", f"there was no champion, but {compared}: {sure}", measured.method)


def _beside_champion(config: Config, paired: Paired, attempt: int) -> Verdict:
    gate, metric = config.tracking.gate, config.gate_metric
    limit = -gate.margin if gate.margin is not None else gate.min_improvement
    measured = _bound(config, paired, limit, level := level_of_try(gate.confidence, attempt))
    compared = f"{metric} is {paired.candidate:.6g}, the champion's {paired.reference:.6g} on {paired.rows} test rows"
    how = f"{measured.method}, confidence {1 - level:.2%}"
    how += f" for model {attempt} on these rows" if attempt > 1 else ""
    if gate.margin is not None:
        worse = f"worse by at most {max(0.0, -measured.lowest):.6g}"
        if measured.is_above:
            return Verdict("promoted", f"{compared}: {worse} ({how})", measured.method)
        return Verdict("rejected", f"{compared}: perhaps {worse}, but the margin is {gate.margin:.6g} ({how})", how)
    if measured.is_above:
        return Verdict("promoted", f"{compared}: better by {measured.gain:.6g} ({how})", measured.method)
    if measured.gain <= 0:
        return Verdict("rejected", f"{compared}: better by {measured.gain:.6g}, but that must be more than 0", how)
    required = f"more than {limit:.6g}" if limit else "more than chance explains"
    return Verdict("rejected", f"{compared}: better by {measured.gain:.6g}, but that must be {required} ({how})", how)


def _bound(config: Config, paired: Paired, limit: float, level: float) -> Bound:
    metric = config.gate_metric
    # rows of a group, and rows that are alike, are right or wrong together
    is_count = metric == "accuracy" and not config.split.group and paired.copies < _FEW_COPIES
    return bound(paired, limit, level, lower_is_better=metric in LOWER_IS_BETTER, is_count=is_count)
