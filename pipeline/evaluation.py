"""Metrics from sums that ranks can add up, and figures that a person can read. Rows never leave their rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Counts = npt.NDArray[np.float64]

HISTOGRAM_BINS = 40


def classification_metrics(confusion: Counts) -> dict[str, float]:
    """Return the accuracy of a (classes, classes) confusion matrix: rows are actual, columns predicted."""
    total = confusion.sum()
    return {"accuracy": float(np.trace(confusion) / total) if total else math.nan}


def regression_metrics(sums: Sequence[float]) -> dict[str, float]:
    """Return rmse, mae (in the label's unit) and r2 of [rows, Σe², Σ|e|, Σd, Σd²].

    e is prediction minus label, d is label minus any fixed number near its mean (which keeps Σd² - (Σd)²/n exact).
    """
    rows, squared, absolute, deviation, deviation_squared = sums
    if not rows:
        return {"rmse": math.nan, "mae": math.nan, "r2": math.nan}
    spread = deviation_squared - deviation**2 / rows
    return {
        "rmse": math.sqrt(squared / rows),
        "mae": absolute / rows,
        "r2": 1 - squared / spread if spread > 0 else math.nan,
    }


def draw_curves(history: Sequence[dict[str, float]], metric: str, best_epoch: int) -> Figure:
    """Draw loss and ``metric`` of both splits over the epochs, and mark the epoch whose weights are kept."""
    figure, (left, right) = _canvas(11, 4.2, columns=2)
    epochs = [int(record["epoch"]) for record in history]
    for axes, name in ((left, "loss"), (right, metric)):
        for split, colour in (("train", "tab:blue"), ("validation", "tab:orange")):
            axes.plot(epochs, [record[f"{split}_{name}"] for record in history], color=colour, label=split)
        axes.axvline(best_epoch, color="grey", linestyle=":", label=f"kept weights (epoch {best_epoch})")
        axes.set(xlabel="epoch", ylabel=name, title=name)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def draw_confusion(confusion: Counts, classes: Sequence[str]) -> Figure:
    """Draw the (classes, classes) confusion matrix with counts; rows are actual, columns predicted."""
    size = min(24.0, max(4.5, 0.55 * len(classes) + 2.5))  # inches
    figure, (axes,) = _canvas(size + 1, size)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the actual class")
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted", ylabel="actual", title=f"validation rows: {int(confusion.sum())}")
    if len(classes) <= 30:
        for (row, col), rows in np.ndenumerate(confusion):
            colour = "white" if shares[row, col] > 0.5 else "black"
            axes.text(col, row, f"{int(rows)}", ha="center", va="center", color=colour)
    return figure


def draw_predicted_vs_actual(histogram: Counts, low: float, high: float, label: str) -> Figure:
    """Draw a (bins, bins) histogram of the validation rows, actual × predicted, both from ``low`` to ``high``."""
    from matplotlib.colors import LogNorm

    figure, (axes,) = _canvas(6.5, 5.5)
    filled = np.where(histogram > 0, histogram, np.nan).T
    norm = LogNorm(vmin=1, vmax=max(2.0, float(histogram.max())))
    image = axes.imshow(filled, origin="lower", extent=(low, high, low, high), cmap="viridis", norm=norm)
    figure.colorbar(image, ax=axes, label="validation rows")
    axes.plot([low, high], [low, high], color="grey", linestyle=":")
    axes.set(xlabel=f"actual {label}", ylabel=f"predicted {label}", title=f"validation rows: {int(histogram.sum())}")
    return figure


def _canvas(width: float, height: float, columns: int = 1) -> tuple[Figure, Any]:
    # without pyplot: no global state, no display
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    return figure, [figure.add_subplot(1, columns, i + 1) for i in range(columns)]
