"""Figures show the numbers of a run."""

from __future__ import annotations

import io

import numpy as np

from datasets import an_epoch
from pipeline.evaluation import figures
from pipeline.evaluation.metrics import HISTOGRAM_BINS, CalibrationBin, Importance, SplitMetrics


def test_figures_show_their_numbers() -> None:
    history = [
        an_epoch(
            e, train=SplitMetrics(9, 1 / e, {"accuracy": 0.5}), validation=SplitMetrics(9, 2 / e, {"accuracy": 0.6})
        )
        for e in (1, 2, 3)
    ]
    drawn = [
        figures.draw_curves(history, "accuracy", 3),
        figures.draw_confusion(np.array([[3.0, 1.0], [0.0, 0.0]]), ["a", "b"], "test"),
        figures.draw_predicted_vs_actual(np.eye(HISTOGRAM_BINS), 0.0, 10.0, "mass", "test"),
        figures.draw_importance([Importance("mass", 0.5, 0.1), Importance("a" * 40, -0.1, 0.0)], "regression"),
        figures.draw_calibration([CalibrationBin(3, 0.55, 0.5), CalibrationBin(7, 0.95, 1.0)]),
    ]
    for figure in drawn:
        png = io.BytesIO()
        figure.savefig(png)
        assert png.getvalue().startswith(b"\x89PNG")
        assert figures.as_svg(figure).startswith("<svg")
    loss, accuracy = drawn[0].axes
    assert [np.asarray(line.get_ydata()).tolist() for line in loss.lines[:2]] == [[1, 1 / 2, 1 / 3], [2, 1, 2 / 3]]
    assert accuracy.get_ylabel() == "accuracy"
    assert [text.get_text() for text in drawn[1].axes[0].texts] == ["3", "1", "0", "0"]
    assert drawn[2].axes[0].get_xlabel() == "actual mass"
    assert [text.get_text() for text in drawn[4].axes[0].texts] == ["3", "7"]
    assert [text.get_text() for text in drawn[3].axes[0].get_yticklabels()] == ["a" * 29 + "…", "mass"]


def test_a_confusion_matrix_of_many_classes_stays_a_figure() -> None:
    figure = figures.draw_confusion(np.eye(500), [str(i) for i in range(500)], "test")
    assert max(figure.get_size_inches()) <= 25


def test_a_class_may_be_called_anything() -> None:
    figure = figures.draw_confusion(np.eye(3), ["$5 to $10 \\frac", "<script>alert(1)</script>", "--><b>"], "test")
    svg = figures.as_svg(figure)
    assert "<script" not in svg
    assert "--><b>" not in svg
