"""What a person looks at after a run: the figures, and one HTML page that tells the whole story by itself."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.config import Config
from pipeline.data.manifest import Manifest
from pipeline.evaluation import figures
from pipeline.evaluation.metrics import Evaluation
from pipeline.tracking import runs
from pipeline.training.task import TrainingResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.evaluation.decision import Decision


def log_evaluation(uri: str, run_id: str, config: Config, data: Manifest, result: TrainingResult) -> dict[str, str]:
    """Put `figures/` and `evaluation/evaluation.json` among the run's artifacts; return the figures as SVG by name."""
    drawn = draw(config, data, result)
    for name, figure in drawn.items():
        runs.log_figure(uri, run_id, figure, f"figures/{name}.png")
    runs.log_text(uri, run_id, as_json(result.evaluation), "evaluation/evaluation.json")
    return {name: figures.as_svg(figure) for name, figure in drawn.items()}


def draw(config: Config, data: Manifest, result: TrainingResult) -> dict[str, Figure]:
    """Return the figures of a run by name."""
    found, best_epoch = result.evaluation, result.best.epoch
    if data.label.classes:
        return {
            "loss_curves": figures.draw_curves(result.history, "accuracy", best_epoch),
            "confusion_matrix": figures.draw_confusion(np.array(found.confusion, float), data.label.classes),
            "calibration": figures.draw_calibration(found.calibration),
        }
    stats, histogram = data.label.stats, np.array(found.histogram, float)
    assert stats is not None
    return {
        "loss_curves": figures.draw_curves(result.history, "rmse", best_epoch),
        "predicted_vs_actual": figures.draw_predicted_vs_actual(histogram, stats.min, stats.max, config.label.column),
    }


def render(
    config: Config,
    data: Manifest,
    result: TrainingResult,
    decision: Decision | None,
    seconds: dict[str, float],
    drawn: dict[str, str],
    run_id: str,
) -> str:
    """Return the report as one HTML page that needs nothing from elsewhere: no script, no style sheet, no font.

    ``drawn``: its figures as SVG.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters |= {"number": _number, "share": _share, "whole": lambda value: f"{value:,}"}
    template = page.from_string((Path(__file__).parent / "report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        name=config.folder.name,
        run_id=run_id,
        config=config,
        data=data,
        best=result.best,
        epochs=len(result.history),
        found=result.evaluation,
        decision=decision,
        seconds=seconds,
        figures={name: Markup(svg) for name, svg in drawn.items()},
    )


def as_json(evaluation: Evaluation) -> str:
    """Return an evaluation as JSON; what is not a number is null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(plain(asdict(evaluation)), indent=1, ensure_ascii=False)


def _number(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:,.4g}"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"
