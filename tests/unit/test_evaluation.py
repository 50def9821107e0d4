"""Metrics from sums, and figures with something in them."""

from __future__ import annotations

import io

import numpy as np
import pytest

from pipeline import evaluation


def test_accuracy_of_a_confusion_matrix() -> None:
    assert evaluation.classification_metrics(np.array([[8.0, 2.0], [1.0, 9.0]])) == {"accuracy": 0.85}


def test_regression_metrics_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

    random = np.random.default_rng(0)
    actual = random.normal(1e6, 3, 1000)  # a mean far from zero: sums of squares alone would cancel
    predicted = actual + random.normal(0, 1, 1000)
    error, deviation = predicted - actual, actual - 1e6
    sums = [1000, (error**2).sum(), abs(error).sum(), deviation.sum(), (deviation**2).sum()]
    metrics = evaluation.regression_metrics(sums)
    assert metrics["rmse"] == pytest.approx(mean_squared_error(actual, predicted) ** 0.5)
    assert metrics["mae"] == pytest.approx(mean_absolute_error(actual, predicted))
    assert metrics["r2"] == pytest.approx(r2_score(actual, predicted))


def test_figures_show_what_they_are_given() -> None:
    history = [
        {"epoch": e, "train_loss": 1 / e, "validation_loss": 2 / e, "train_accuracy": 0.5, "validation_accuracy": 0.6}
        for e in (1, 2, 3)
    ]
    figures = [
        evaluation.draw_curves(history, "accuracy", 3),
        evaluation.draw_confusion(np.array([[3.0, 1.0], [0.0, 0.0]]), ["a", "b"]),
        evaluation.draw_predicted_vs_actual(np.eye(evaluation.HISTOGRAM_BINS), 0.0, 10.0, "mass"),
    ]
    for figure in figures:
        png = io.BytesIO()
        figure.savefig(png)
        assert png.getvalue().startswith(b"\x89PNG")
    loss, accuracy = figures[0].axes
    assert [list(line.get_ydata()) for line in loss.lines[:2]] == [[1, 1 / 2, 1 / 3], [2, 1, 2 / 3]]
    assert accuracy.get_ylabel() == "accuracy"
    assert [text.get_text() for text in figures[1].axes[0].texts] == ["3", "1", "0", "0"]
    assert figures[2].axes[0].get_xlabel() == "actual mass"


def test_a_confusion_matrix_of_many_classes_stays_a_figure() -> None:
    figure = evaluation.draw_confusion(np.eye(500), [str(i) for i in range(500)])
    assert max(figure.get_size_inches()) <= 25
