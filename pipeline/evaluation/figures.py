"""Figures of a run, drawn with matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.evaluation.metrics import CalibrationBin, Counts, EpochRecord, Importance

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_BARS = 20


def draw_curves(history: Sequence[EpochRecord], metric: str, best_epoch: int) -> Figure:
    """Draw loss and ``metric`` of both splits over the epochs, and mark the epoch whose weights are kept."""
    figure, (left, right) = _canvas(11, 4.2, columns=2)
    epochs = [record.epoch for record in history]
    for axes, name in ((left, "loss"), (right, metric)):
        for split, colour in (("train", "tab:blue"), ("validation", "tab:orange")):
            axes.plot(epochs, [record.values[f"{split}_{name}"] for record in history], color=colour, label=split)
        axes.axvline(best_epoch, color="grey", linestyle=":", label=f"kept weights (epoch {best_epoch})")
        axes.set(xlabel="epoch", ylabel=name, title=name)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def draw_confusion(confusion: Counts, classes: Sequence[str], split: str) -> Figure:
    """Draw the (classes, classes) confusion matrix of a split with counts; rows are actual, columns predicted."""
    size = min(24.0, max(4.5, 0.55 * len(classes) + 2.5))  # inches
    figure, (axes,) = _canvas(size + 1, size)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the actual class")
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted", ylabel="actual", title=f"{split} rows: {int(confusion.sum())}")
    if len(classes) <= 30:
        for (row, col), rows in np.ndenumerate(confusion):
            colour = "white" if shares[row, col] > 0.5 else "black"
            axes.text(col, row, f"{int(rows)}", ha="center", va="center", color=colour)
    return figure


def draw_predicted_vs_actual(histogram: Counts, low: float, high: float, label: str, split: str) -> Figure:
    """Draw a (bins, bins) histogram of a split's rows, actual × predicted, both from ``low`` to ``high``."""
    from matplotlib.colors import LogNorm

    figure, (axes,) = _canvas(6.5, 5.5)
    filled = np.where(histogram > 0, histogram, np.nan).T
    norm = LogNorm(vmin=1, vmax=max(2.0, float(histogram.max())))
    image = axes.imshow(filled, origin="lower", extent=(low, high, low, high), cmap="viridis", norm=norm)
    figure.colorbar(image, ax=axes, label=f"{split} rows")
    axes.plot([low, high], [low, high], color="grey", linestyle=":")
    axes.set(xlabel=f"actual {label}", ylabel=f"predicted {label}", title=f"{split} rows: {int(histogram.sum())}")
    return figure


def draw_calibration(bins: Sequence[CalibrationBin], uncalibrated: Sequence[CalibrationBin] = ()) -> Figure:
    """Draw the share of right answers against the predicted probability; a calibrated model is on the diagonal.

    ``uncalibrated`` are the bins before temperature scaling.
    """
    figure, (axes,) = _canvas(5.5, 4.5)
    confidence, accuracy, rows = ([getattr(b, name) for b in bins] for name in ("confidence", "accuracy", "rows"))
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
    if uncalibrated:
        before = [b.confidence for b in uncalibrated], [b.accuracy for b in uncalibrated]
        axes.plot(*before, color="tab:orange", marker=".", label="before temperature scaling")
    axes.plot(confidence, accuracy, color="tab:blue", zorder=2, label="the model")
    if uncalibrated:
        axes.legend(loc="upper left")
    sizes = 20 + 180 * np.array(rows) / max(rows, default=1)
    axes.scatter(confidence, accuracy, sizes, color="tab:blue", zorder=3)
    for x, y, n in zip(confidence, accuracy, rows, strict=True):
        axes.annotate(f"{n}", (x, y), textcoords="offset points", xytext=(0, 9), ha="center", fontsize=8)
    axes.set(xlabel="probability of the predicted class", ylabel="share of right answers", title="calibration")
    axes.set(xlim=(0, 1.03), ylim=(0, 1.08))
    axes.grid(alpha=0.3)
    return figure


def draw_importance(importance: Sequence[Importance], task: str) -> Figure:
    """Draw how much worse the model is when a feature is shuffled, with the spread; at most 20 features."""
    shown = importance[:_MOST_BARS][::-1]
    figure, (axes,) = _canvas(6.5, 1.6 + 0.3 * len(shown))
    names = [i.feature if len(i.feature) <= 30 else i.feature[:29] + "…" for i in shown]
    places = range(len(shown))
    axes.barh(places, [i.growth for i in shown], xerr=[i.spread for i in shown], color="tab:blue", ecolor="grey")
    axes.set_yticks(places, names)
    error = "log loss" if task == "classification" else "rmse"
    axes.set(xlabel=f"growth of the {error} when shuffled", title="importance of the features")
    axes.grid(axis="x", alpha=0.3)
    return figure


def as_svg(figure: Figure) -> str:
    """Return the figure as an `<svg>` element."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def _canvas(width: float, height: float, columns: int = 1) -> tuple[Figure, Any]:
    # without pyplot: no global state, no display
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    rcParams["text.parse_math"] = False  # a class may be called "$5 to $10"

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    return figure, [figure.add_subplot(1, columns, i + 1) for i in range(columns)]
