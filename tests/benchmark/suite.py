"""Ours against the peers, in turns on the same machine: a table of ratios, with what must be reached."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from benchmark import peers, report, work
from pipeline import train
from pipeline.config import Config
from pipeline.data import shards
from pipeline.data.shards import Prepared
from pipeline.runtime import session
from pipeline.runtime.console import log
from pipeline.runtime.errors import UserError
from pipeline.tracking import store

W1_JOB = "W1 whole job / the lab's whole job"
W1_TRAINING = "W1 training without launch / the lab's training"
AROUND = "make train but preparation and epochs / no-op launch"
PREPARATION = "W2 preparation / bare Spark copy"
FLOOR = "W2 epoch / floor epoch"
DISTRIBUTOR = "W2 epoch / TorchDistributor epoch"
RANKS = "W2 epoch, batch 8192, 2 ranks / 1 rank"
SCORING = "W2 scoring / bare Spark copy"
MEMORY = "peak memory of a rank, 10 × rows / rows, streaming"
SHUFFLE = "largest share of a streamed batch from one row group"

# must reach, aim; None: stated only
LIMITS: dict[str, tuple[float | None, float | None]] = {
    PREPARATION: (1.3, 1.1),
    FLOOR: (2.0, 1.4),
    DISTRIBUTOR: (0.6, 0.4),
    W1_JOB: (0.8, 0.5),
    W1_TRAINING: (0.35, 0.2),
    AROUND: (1.5, 1.2),
    MEMORY: (1.15, 1.05),
    RANKS: (0.65, 0.55),
    SHUFFLE: (None, 0.2),
    SCORING: (None, None),
}


@dataclass
class Measured:
    """What all turns have shown."""

    pairs: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """Of each ratio, ours and the peer's figure in each turn."""
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def note(self, what: str, seconds: float) -> float:
        """Keep one figure in seconds."""
        self.seconds.setdefault(what, []).append(round(seconds, 3))
        log.info("%s: %.2f s", what, seconds)
        return seconds

    def compare(self, name: str, ours: float, peer: float) -> None:
        """Keep ours / peer of one turn."""
        self.pairs.setdefault(name, []).append((ours, peer))
        log.info("%s: %.2f", name, ours / peer)

    def table(self) -> dict[str, dict[str, Any]]:
        """Return each ratio of medians, its least and greatest of one turn, its limit, and whether it is within it."""
        table = {}
        for name, (limit, aim) in LIMITS.items():
            if pairs := self.pairs.get(name):
                ours, theirs = (statistics.median(figures) for figures in zip(*pairs, strict=True))
                value, turns = ours / theirs, [one / other for one, other in pairs]
                met = None if limit is None else value <= limit
                numbers = {"value": value, "min": min(turns), "max": max(turns)}
                table[name] = {**{k: round(v, 3) for k, v in numbers.items()}, "limit": limit, "aim": aim, "met": met}
        return table


def run(work_dir: str, rows: int, repeats: int, only: str | None = None) -> dict[str, Any]:
    """Measure everything in ``repeats`` turns; return the summary for the last line of stdout.

    ``only``: of `jobs`, `preparation`, `epochs`, `ranks`, `memory`, `scoring`, the parts to measure, with commas.
    """
    folder = Path(work_dir).resolve() / "benchmark"
    parts: dict[str, Callable[[SparkSession, Path, int, Measured], None]] = {
        "jobs": _jobs,
        "preparation": _preparation,
        "epochs": _epochs,
        "ranks": _ranks,
        "scoring": _scoring,
        "memory": _memory,
    }
    chosen = set(only.split(",") if only else parts)
    if unknown := chosen - set(parts):
        raise UserError(f"--only knows no part '{min(unknown)}'; there are {', '.join(parts)}")
    spark = session.get_session("benchmark", folder)
    measured = Measured()
    try:
        for name in (part for part in parts if part in chosen):  # Horovod's own launch first: ours adapts it
            turns = 1 if name == "memory" else repeats
            for turn in range(1, turns + 1):
                log.info("%s: turn %d of %d", name, turn, turns)
                parts[name](spark, folder, rows, measured)
    finally:  # the measurements are printed even if a later part fails
        ratios = measured.table()
        print(report.table(ratios))
    summary: dict[str, Any] = {
        "status": "ok",
        "machine": {"cores": os.cpu_count(), "cpu": report.processor(), "rows": rows},
        "ratios": ratios,
        "seconds": measured.seconds,
    }
    config = work.write_use_case(folder, folder / "none.csv")
    return {**summary, "run_id": report.keep(config, "benchmark", summary, report.draw_ratios(ratios))}


def _prepared(spark: SparkSession, config: Config) -> Prepared:
    shards.open_data_dir(config)
    return shards.prepare_data(spark, config, peers.RANKS)


def _jobs(spark: SparkSession, folder: Path, rows: int, measured: Measured) -> None:
    no_op = measured.note("no-op launch", peers.no_op_launch())
    ours, lab = peers.our_job(folder / "penguins"), peers.lab_job(folder / "lab")
    measured.note("W1 whole job", ours.total)
    measured.note("W1 training", ours.train)
    measured.note("make train but preparation and epochs", ours.around)
    measured.note("the lab's whole job", lab.total)
    measured.note("the lab's training", lab.train)
    measured.compare(W1_JOB, ours.total, lab.total)
    measured.compare(W1_TRAINING, ours.train, lab.train)
    measured.compare(AROUND, ours.around, no_op)


def _preparation(spark: SparkSession, folder: Path, rows: int, measured: Measured) -> None:
    csv = work.write_csv(spark, folder, rows)
    config = work.write_use_case(folder / "preparation", csv)
    if not measured.pairs.get(PREPARATION):  # the first turn would measure how Java compiles what both of them run
        peers.bare_copy(spark, csv, config.source.schema_, folder / "copied")
        peers.prepare(spark, config)
    bare = peers.bare_copy(spark, csv, config.source.schema_, folder / "copied")
    ours, _ = peers.prepare(spark, config)
    measured.compare(PREPARATION, measured.note("W2 preparation", ours), measured.note("bare Spark copy", bare))


def _epochs(spark: SparkSession, folder: Path, rows: int, measured: Measured) -> None:
    epochs = 4
    config = work.write_use_case(folder / "epochs", work.write_csv(spark, folder, rows), epochs=epochs)
    prepared = _prepared(spark, config)
    floor = peers.after_the_first(peers.floor_epochs(config, prepared, epochs))
    ours = peers.after_the_first(peers.epoch_seconds(peers.train(spark, config, prepared)))
    theirs = peers.after_the_first(peers.distributor_epochs(config, prepared, epochs))
    measured.note("W2 epoch", ours)
    measured.compare(FLOOR, ours, measured.note("floor epoch", floor))
    measured.compare(DISTRIBUTOR, ours, measured.note("TorchDistributor epoch", theirs))


def _ranks(spark: SparkSession, folder: Path, rows: int, measured: Measured) -> None:
    csv = work.write_csv(spark, folder, rows)
    config = work.write_use_case(folder / "ranks", csv, epochs=4, batch_size=8192)
    prepared = _prepared(spark, config)
    one, two = (
        peers.after_the_first(peers.epoch_seconds(peers.train(spark, config, prepared, ranks))) for ranks in (1, 2)
    )
    measured.note("W2 epoch, batch 8192, 1 rank", one)
    measured.compare(RANKS, measured.note("W2 epoch, batch 8192, 2 ranks", two), one)


def _memory(spark: SparkSession, folder: Path, rows: int, measured: Measured) -> None:
    peaks = {}
    for times in (1, 10):
        config = work.write_use_case(folder / f"memory{times}", work.write_csv(spark, folder, times * rows), epochs=1)
        prepared = _prepared(spark, config)
        result = peers.train(spark, config, prepared, cache="stream")
        peaks[times] = max(result.peak_mib)
        log.info("streaming %s rows: at most %d MiB in a rank", f"{times * rows:,}", peaks[times])
        measured.note(f"W2 epoch, streaming {times * rows:,} rows", peers.epoch_seconds(result)[0])
        if times == 1:
            measured.compare(SHUFFLE, peers.largest_share(config, prepared), 1)
    measured.compare(MEMORY, peaks[10], peaks[1])


def _scoring(spark: SparkSession, folder: Path, rows: int, measured: Measured) -> None:
    config = work.write_use_case(folder / "scoring", work.write_csv(spark, folder, 20_000))
    uri, csv = store.tracking_uri(config), work.write_csv(spark, folder, rows)
    trained = folder / "scoring" / "model_uri"
    if not trained.exists():
        trained.write_text(str(train.train(str(config.file))["model_uri"]), encoding="utf-8")
    model = trained.read_text(encoding="utf-8")
    bare = peers.bare_copy(spark, csv, config.source.schema_, folder / "copied")
    ours = peers.score(model, csv, folder / "scored", uri)
    measured.compare(SCORING, measured.note("W2 scoring", ours), measured.note("bare Spark copy, of scoring", bare))
