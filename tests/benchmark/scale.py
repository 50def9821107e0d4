"""Growth: W2 with more and more rows, on one rank and two; lines through the figures, and their predictions.

Each line is fitted to all sizes but the largest, which it then has to predict. :class:`Costs` are the constants behind
them, and :func:`job_seconds` the model of a whole job that is made of these.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from pyspark.sql import SparkSession

from benchmark import peers, report, work
from pipeline.config import Config
from pipeline.data import shards
from pipeline.data.shards import Prepared
from pipeline.runtime import session
from pipeline.runtime.console import log
from pipeline.training.task import Cache

ROWS = (500_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000)
CACHES: tuple[Cache, ...] = ("memory", "stream")
HIDDEN = (128, 256, 512)
"""Neurons in each of the two hidden layers: how a step grows with the net."""
_EPOCHS = 2


@dataclass(frozen=True)
class Costs:
    """What work costs on the machine that measured it, in seconds."""

    launch: float
    """All of a training but its epochs: an MLflow run is opened, the ranks start, find each other, and end."""
    load_row: float
    """… and for each row of a rank's shard, which is read and checked before the first epoch."""
    prepare: float
    """Of a preparation, whatever its size."""
    prepare_row: float
    """… and for each row, on one core."""
    step: float
    """Of one step of 1,024 rows on one core, without the exchange: what does not grow with the net."""
    step_weight: float
    """… and for each weight of the net."""
    hop: float
    """To hand one message of a step's exchange on to the next rank, as two ranks on one machine measure it: what they
    lose by sharing its memory is in it, a network's latency is not."""
    hop_weight: float
    """… and for each weight of the net."""
    decode_row: float
    """To read and mix one row anew in each epoch, when it is streamed."""


def job_seconds(costs: Costs, rows: int, ranks: int, cores: int, weights: int, streamed: bool) -> dict[str, float]:
    """Return the seconds of preparation (on ``cores``), launch, and one epoch (on ``ranks``) of steps of 1,024 rows.

    The exchange is a ring (gloo): 2 (ranks - 1) hops, each with a share of 1 / ranks of the vector.
    """
    steps = rows / ranks / 1024
    hops = 2 * (ranks - 1)
    return {
        "preparation": costs.prepare + rows * costs.prepare_row / cores,
        "launch": costs.launch + rows / ranks * costs.load_row,
        "epoch: own work": steps * (costs.step + weights * costs.step_weight),
        "epoch: exchange": steps * hops * (costs.hop + weights / ranks * costs.hop_weight),
        "epoch: decoding": rows / ranks * costs.decode_row * streamed,
    }


def run(work_dir: str, rows: tuple[int, ...] = ROWS) -> dict[str, Any]:
    """Measure preparation, epochs and peak memory for each size; return the summary for the last line of stdout."""
    folder = Path(work_dir).resolve() / "benchmark"
    spark = session.get_session("scale", folder)
    steps = _step_seconds(spark, folder, rows[0])
    measured = [_measure(spark, folder, size) for size in rows]
    fits = {name: fit(rows, [size[name] for size in measured]) for name in measured[0]}
    cores = spark.sparkContext.defaultParallelism
    costs = constants(steps, fits, cores)
    checked = compare(costs, rows[-1], cores, measured[-1])
    billion = job_seconds(costs, 10**9, 64, 2 * 64, weights(HIDDEN[0]), streamed=True)
    print(f"{_table(fits)}\n\n{_table(checked)}")
    log.info("of 1,000,000,000 rows on 64 executors with 2 cores: %s", _figures(billion))
    summary: dict[str, Any] = {
        "status": "ok",
        "machine": {"cores": os.cpu_count(), "cpu": report.processor()},
        "rows": list(rows),
        "measured": {name: [size[name] for size in measured] for name in measured[0]},
        "fits": fits,
        "steps": {f"{hidden} wide, {ranks} rank(s)": round(s, 6) for (hidden, ranks), s in steps.items()},
        "costs": asdict(costs),
        "largest by the costs": checked,
        "1e9 rows, 64 executors": {name: round(value, 1) for name, value in billion.items()},
    }
    config = work.write_use_case(folder, folder / "none.csv")
    return {**summary, "run_id": report.keep(config, "scale", summary, _draw(rows, summary["measured"]))}


def weights(hidden: int) -> int:
    """Return the number of parameters of W2's net with two hidden layers of this width."""
    return (work.FEATURES + 1) * hidden + (hidden + 1) * hidden + (hidden + 1) * 2


def _step_seconds(spark: SparkSession, folder: Path, rows: int) -> dict[tuple[int, int], float]:
    """Return what a step takes, by width of the net and number of ranks."""
    seconds = {}
    for hidden in HIDDEN:
        config = work.write_use_case(folder / "steps", work.write_csv(spark, folder, rows), hidden, epochs=_EPOCHS)
        shards.open_data_dir(config)
        prepared = shards.prepare_data(spark, config, peers.RANKS)
        for ranks in (1, 2):
            epoch = peers.after_the_first(peers.epoch_seconds(peers.train(spark, config, prepared, ranks)))
            seconds[hidden, ranks] = epoch / (prepared.manifest.rows.train / ranks / 1024)
            log.info("a net %d wide, %d rank(s): %.2f ms per step", hidden, ranks, 1000 * seconds[hidden, ranks])
    return seconds


def _measure(spark: SparkSession, folder: Path, rows: int) -> dict[str, float]:
    csv = work.write_csv(spark, folder, rows)
    config = work.write_use_case(folder / "scale", csv, epochs=_EPOCHS)
    shards.open_data_dir(config)
    seconds: dict[str, float] = {}
    seconds["preparation s"], prepared = peers.prepare(spark, config)
    for cache in CACHES:
        for ranks in (1, 2):
            seconds |= _trained(spark, config, prepared, ranks, cache)
    config.data_dir.remove()
    log.info("%s rows: %s", f"{rows:,}", _figures(seconds))
    return {name: round(value, 3) for name, value in seconds.items()}


def _trained(spark: SparkSession, config: Config, prepared: Prepared, ranks: int, cache: Cache) -> dict[str, float]:
    begin = time.perf_counter()
    result = peers.train(spark, config, prepared, ranks, cache)
    whole = time.perf_counter() - begin
    where = f"{ranks} rank(s), {cache}"
    return {
        f"epoch s, {where}": peers.after_the_first(peers.epoch_seconds(result)),
        f"training s, {where}": whole,
        f"peak MiB, {where}": max(result.peak_mib),
        f"launch s, {where}": whole - result.train_s,
    }


def fit(rows: tuple[int, ...], values: list[float]) -> dict[str, float]:
    """Return the line through all sizes but the largest, and what it predicts for that one.

    The fit minimizes relative errors (weights 1 / value), so that the small sizes count, too.
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


def constants(steps: dict[tuple[int, int], float], fits: dict[str, dict[str, float]], cores: int) -> Costs:
    """Return how a step grows with the net and the ranks, and what each row adds; the largest size has no part in it.

    Args:
        steps: seconds of a step by the net's width and the number of ranks, 1 and 2.
        fits: what :func:`fit` made of all sizes but the largest.
        cores: on which preparation ran.
    """
    size = [weights(hidden) for hidden in HIDDEN]
    alone, together = ([steps[hidden, ranks] for hidden in HIDDEN] for ranks in (1, 2))
    step_weight, step = np.polyfit(size, alone, 1, w=1 / np.array(alone))
    # two ranks: two hops, each with half of the vector
    hop_weight, hop = np.polyfit(size, np.subtract(together, alone), 1, w=1 / np.array(together))
    streamed, in_memory = (fits[f"epoch s, 2 rank(s), {cache}"]["per million rows"] for cache in ("stream", "memory"))
    prepare, launch = fits["preparation s"], fits["launch s, 2 rank(s), memory"]
    return Costs(
        launch=launch["at 0"],
        load_row=max(0.0, 2 * launch["per million rows"] / 1e6),
        prepare=max(0.0, prepare["at 0"]),
        prepare_row=prepare["per million rows"] / 1e6 * cores,
        step=float(step),
        step_weight=float(step_weight),
        hop=max(0.0, float(hop) / 2),
        hop_weight=max(0.0, float(hop_weight)),
        decode_row=max(0.0, 2 * (streamed - in_memory) / 1e6),
    )


def compare(costs: Costs, rows: int, cores: int, measured: dict[str, float]) -> dict[str, dict[str, float]]:
    """Return the predicted and the measured seconds of two ranks on this many rows: of each stage, and of a run."""
    compared: dict[str, dict[str, float]] = {}
    for cache in CACHES:
        stages = job_seconds(costs, rows, 2, cores, weights(HIDDEN[0]), streamed=cache == "stream")
        predicted = {
            "preparation s": stages["preparation"],
            f"launch s, 2 rank(s), {cache}": stages["launch"],
            f"epoch s, 2 rank(s), {cache}": sum(s for name, s in stages.items() if name.startswith("epoch")),
        }
        pairs = {name: (value, measured[name]) for name, value in predicted.items()}
        preparation, launch, epoch = pairs.values()
        ours, theirs = (preparation[i] + launch[i] + _EPOCHS * epoch[i] for i in (0, 1))
        pairs[f"run of {_EPOCHS} epochs s, 2 rank(s), {cache}"] = (ours, theirs)
        compared |= {
            name: {"predicted": round(ours, 3), "measured": round(theirs, 3), "off by": round(ours / theirs - 1, 3)}
            for name, (ours, theirs) in pairs.items()
        }
    return compared


def _figures(named: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3g}" for name, value in named.items())


def _table(fits: dict[str, dict[str, float]]) -> str:
    """Return the lines as a table in Markdown."""
    head = list(next(iter(fits.values())))
    lines = [f"| | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for name, line in fits.items():
        cells = [f"{value:.0%}" if key == "off by" else f"{value:.3g}" for key, value in line.items()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


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
