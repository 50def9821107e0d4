"""What a benchmark makes of its turns; the parts that measure are in tests/spark."""

from __future__ import annotations

import pytest

from pipeline.benchmark import report, scale, suite


def test_the_median_of_the_turns_is_held_against_what_must_be_reached() -> None:
    measured = suite.Measured()
    for ours in (1.0, 9.0, 2.0):
        measured.compare(suite.FLOOR, ours, 1.0)
        measured.compare(suite.PREPARATION, ours, 1.0)
    measured.ratios[suite.SHUFFLE] = [0.1]
    table = measured.table()
    assert table[suite.FLOOR] == {"value": 2.0, "min": 1.0, "max": 9.0, "limit": 2.0, "aim": 1.4, "met": True}
    assert table[suite.PREPARATION]["met"] is False
    lines = report.table(table).splitlines()
    assert lines[2] == f"| {suite.PREPARATION} | 2.00 | 1.00–9.00 | ≤ 1.3 | ≤ 1.1 | missed by 54% |"
    assert lines[3].endswith("| met |")
    assert lines[4] == f"| {suite.SHUFFLE} | 0.10 | 0.10–0.10 | – | ≤ 0.2 |  |"
    assert report.draw_ratios(table).axes


def test_a_line_through_the_smaller_sizes_predicts_the_largest() -> None:
    rows = (1_000_000, 2_000_000, 4_000_000, 8_000_000)
    fit = scale.fit(rows, [3.0, 5.0, 9.0, 20.0])
    assert fit["per million rows"] == pytest.approx(2.0)
    assert fit["largest predicted"] == pytest.approx(17.0)
    assert fit["off by"] == pytest.approx(17 / 20 - 1)
