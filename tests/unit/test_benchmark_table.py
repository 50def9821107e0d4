"""What a benchmark makes of its turns; the parts that measure are in tests/spark."""

from __future__ import annotations

import pytest

from benchmark import report, scale, suite


def test_the_median_of_the_turns_is_compared_with_its_limit() -> None:
    measured = suite.Measured()
    for ours, peer in ((1.0, 4.0), (9.0, 1.0), (2.0, 1.0)):
        measured.compare(suite.FLOOR, ours, peer)
        measured.compare(suite.PREPARATION, ours, 1.0)
    measured.compare(suite.SHUFFLE, 0.1, 1)
    table = measured.table()
    # the ratio of the medians, and the ratios of the turns around it
    assert table[suite.FLOOR] == {"value": 2.0, "min": 0.25, "max": 9.0, "limit": 2.0, "aim": 1.4, "met": True}
    assert table[suite.PREPARATION]["met"] is False
    lines = report.table(table).splitlines()
    assert (
        lines[2]
        == f"| {suite.PREPARATION} | 2.00 | 1.00–9.00 | ≤ 1.3 | ≤ 1.1 | missed by 53.8%; tried: {report.NOTES} |"
    )
    assert lines[3].endswith("| met |")
    assert lines[4] == f"| {suite.SHUFFLE} | 0.10 | 0.10–0.10 | – | ≤ 0.2 |  |"
    assert report.draw_ratios(table).axes


def test_a_line_through_the_smaller_sizes_predicts_the_largest() -> None:
    rows = (1_000_000, 2_000_000, 4_000_000, 8_000_000)
    fit = scale.fit(rows, [3.0, 5.0, 9.0, 20.0])
    assert fit["per million rows"] == pytest.approx(2.0)
    assert fit["largest predicted"] == pytest.approx(17.0)
    assert fit["off by"] == pytest.approx(17 / 20 - 1)


def test_the_costs_are_recovered_from_figures_that_they_generate() -> None:
    costs = scale.Costs(9.0, 1e-6, 1.5, 9e-6, 2e-3, 8e-8, 4e-4, 3e-9, 2e-6)
    rows = (500_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000)

    def stages(size: int, ranks: int, cache: str, hidden: int = scale.HIDDEN[0]) -> dict[str, float]:
        made = scale.job_seconds(costs, size, ranks, 2, scale.weights(hidden), cache == "stream")
        epoch = sum(value for name, value in made.items() if name.startswith("epoch"))
        where = f"{ranks} rank(s), {cache}"
        return {
            "preparation s": made["preparation"],
            f"launch s, {where}": made["launch"],
            f"epoch s, {where}": epoch,
        }

    def measured(size: int) -> dict[str, float]:
        return stages(size, 2, "memory") | stages(size, 2, "stream")

    steps = {
        (hidden, ranks): stages(rows[0], ranks, "memory", hidden)[f"epoch s, {ranks} rank(s), memory"]
        / (rows[0] / ranks / 1024)
        for hidden in scale.HIDDEN
        for ranks in (1, 2)
    }
    fits = {name: scale.fit(rows, [measured(size)[name] for size in rows]) for name in measured(rows[0])}
    fitted = scale.constants(steps, fits, cores=2)
    assert vars(fitted) == pytest.approx(vars(costs), rel=0.01)
    checked = scale.compare(fitted, rows[-1], 2, measured(rows[-1]))
    assert len(checked) == 7
    whole = sum(measured(rows[-1])[f"{stage} s, 2 rank(s), stream"] for stage in ("launch", "epoch", "epoch"))
    assert checked["run of 2 epochs s, 2 rank(s), stream"]["measured"] == pytest.approx(
        measured(rows[-1])["preparation s"] + whole, abs=0.01
    )
    assert all(abs(stage["off by"]) < 0.01 for stage in checked.values())
