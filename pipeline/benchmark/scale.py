"""Growth: W2 with more and more rows, on one rank and two; a line through the figures, and what it says of larger ones.

The model of a job's time, each constant measured: launch + rows / preparation rate + epochs x (rows / (ranks x row
rate)), in memory or streamed. It is fitted to all sizes but the largest, which it then has to predict.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from pyspark.sql import SparkSession

from pipeline import session, shards, tracking
from pipeline.benchmark import peers, report, work
from pipeline.console import log

ROWS = (500_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000)
CACHES = ("memory", "stream")
_EPOCHS = 2


def run(work_dir: str, rows: tuple[int, ...] = ROWS) -> dict[str, Any]:
    """Measure preparation, epochs and peak memory for each size; return the summary for the last line of stdout."""
    folder = Path(work_dir).resolve() / "benchmark"
    spark = session.get_session("scale", folder)
    no_op = peers.no_op_launch()
    measured = [_measure(spark, folder, size) for size in rows]
    fits = {name: _fit(rows, [size[name] for size in measured]) for name in measured[0]}
    summary: dict[str, Any] = {
        "status": "ok",
        "machine": {"cores": os.cpu_count()},
        "rows": list(rows),
        "launch_s": round(no_op, 2),
        "measured": {name: [size[name] for size in measured] for name in measured[0]},
        "fits": fits,
    }
    for name, fit in fits.items():
        log.info("%s: %s", name, "  ".join(f"{key} {value:.4g}" for key, value in fit.items()))
    uri = tracking.tracking_uri(work.write_use_case(folder, folder / "none.csv"))
    return {**summary, "run_id": report.keep(uri, "scale", summary, _draw(rows, summary["measured"]))}


def _measure(spark: SparkSession, folder: Path, rows: int) -> dict[str, float]:
    csv = work.write_csv(spark, folder, rows)
    config = work.write_use_case(folder / "scale", csv, epochs=_EPOCHS)
    shards.open_data_dir(config)
    seconds, prepared = peers.prepare(spark, config)
    found = {"preparation s": seconds}
    for cache in CACHES:
        for ranks in (1, 2):
            result = peers.train(spark, config, prepared, ranks, cache)
            found[f"epoch s, {ranks} rank(s), {cache}"] = peers.after_the_first(peers.epoch_seconds(result))
            found[f"peak MiB, {ranks} rank(s), {cache}"] = max(result.peak_mib)
    config.data_dir.remove()
    log.info("%s rows: %s", f"{rows:,}", "  ".join(f"{name} {value:.3g}" for name, value in found.items()))
    return {name: round(value, 3) for name, value in found.items()}


def _fit(rows: tuple[int, ...], values: list[float]) -> dict[str, float]:
    """Return the line through all sizes but the largest, and what it says of that one.

    Relative errors are what is made least (weights 1 / value): otherwise the small sizes would not count.
    """
    size, value = np.array(rows, float) / 1e6, np.array(values)
    slope, start = np.polyfit(size[:-1], value[:-1], 1, w=1 / value[:-1])
    predicted = float(start + slope * size[-1])
    return {
        "per million rows": round(float(slope), 4),
        "at 0": round(float(start), 4),
        "largest predicted": round(predicted, 3),
        "largest measured": values[-1],
        "off by": round(predicted / values[-1] - 1, 3),
    }


def _draw(rows: tuple[int, ...], measured: dict[str, list[float]]) -> Figure:
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    size = [count / 1e6 for count in rows]
    for name, values in measured.items():
        (right if name.startswith("peak") else left).plot(size, values, marker="o", label=name)
    left.set(xlabel="million rows", ylabel="seconds", title="time")
    right.set(xlabel="million rows", ylabel="MiB", title="memory of a rank", ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return figure
