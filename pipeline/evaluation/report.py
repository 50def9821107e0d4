"""What a person looks at after a run: the figures, and the report, one HTML page that needs no other file."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.config import Config
from pipeline.data.manifest import Manifest
from pipeline.evaluation import figures
from pipeline.evaluation.intervals import interval
from pipeline.evaluation.metrics import EpochRecord, Evaluation, Importance

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.evaluation.baselines import Beside
    from pipeline.evaluation.decision import Decision


@dataclass(frozen=True)
class TrainedRun:
    """What figures and page show of a training."""

    name: str
    """Of the use case."""
    run_id: str
    data: Manifest
    config: Config
    history: Sequence[EpochRecord]
    best_epoch: int
    """The epoch whose weights are kept."""
    evaluation: Evaluation
    """Of the kept weights, on the rows of the measured split."""
    validation: Evaluation
    """Of the kept weights, on the validation rows."""
    uncalibrated: Evaluation | None
    """Like ``evaluation``, before temperature scaling; None where nothing is scaled."""
    temperature: float
    threshold: float
    importance: Sequence[Importance]


def draw(run: TrainedRun) -> dict[str, Figure]:
    """Return the figures of a run by name."""
    more = {"importance": figures.draw_importance(run.importance, run.data.label.task)} if run.importance else {}
    label, evaluation, split = run.data.label, run.evaluation, run.data.measured_split
    if label.classes:
        return {
            "loss_curves": figures.draw_curves(run.history, "accuracy", run.best_epoch),
            "confusion_matrix": figures.draw_confusion(np.array(evaluation.confusion, float), label.classes, split),
            "calibration": figures.draw_calibration(
                evaluation.calibration, run.uncalibrated.calibration if run.uncalibrated else ()
            ),
            **more,
        }
    stats, histogram = label.stats, np.array(evaluation.histogram, float)
    assert stats is not None
    return {
        "loss_curves": figures.draw_curves(run.history, "rmse", run.best_epoch),
        "predicted_vs_actual": figures.draw_predicted_vs_actual(histogram, stats.min, stats.max, label.column, split),
        **more,
    }


def render(
    run: TrainedRun, decision: Decision | None, beside: Beside | None, seconds: dict[str, float], svg: dict[str, str]
) -> str:
    """Return the report as one HTML page without script, style sheet or font from elsewhere.

    ``seconds`` holds the time of each stage, ``svg`` the figures by name.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters |= {"number": _number, "share": _share, "whole": lambda value: f"{value:,}"}
    metric, weights = run.config.gate_metric, run.config.training.class_weights
    template = page.from_string((Path(__file__).parent / "report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        name=run.name,
        run_id=run.run_id,
        data=run.data,
        split=run.config.split,
        threshold_rule=run.config.label.threshold if run.config.label.threshold_rule else None,
        weighing=[
            *([f"label.weight: {run.data.weight}"] if run.data.weight else []),
            *([f"training.class_weights: {weights}"] if weights != "none" else []),
        ],
        best_epoch=run.best_epoch,
        epochs=len(run.history),
        evaluation=run.evaluation,
        intervals={name: interval(run.evaluation, name) for name in run.evaluation.metrics},
        validation=run.validation,
        uncalibrated=run.uncalibrated,
        temperature=run.temperature,
        threshold=run.threshold,
        decision=decision,
        beside=beside,
        metric=metric,
        better=beside.better(metric) if beside else [],
        seconds=seconds,
        figures={name: Markup(text) for name, text in svg.items()},
    )


def as_json(run: TrainedRun) -> str:
    """Return evaluation and importance as JSON, with null for NaN and infinite numbers."""
    measured = {**asdict(run.evaluation), "importance": [asdict(importance) for importance in run.importance]}

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(plain(measured), indent=1, ensure_ascii=False)


def _number(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:,.4g}"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"
