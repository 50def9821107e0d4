"""Benchmarks: what we take, against the least that the same work can take, side by side in one process."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from pipeline import job, scoring, session, tracking
from pipeline.config import Config, load_config
from pipeline.console import log

FEATURES = 28
_TRAINING_ROWS = 20_000


def scoring_benchmark(work_dir: str, rows: int, repeats: int) -> dict[str, Any]:
    """Score a generated CSV of 28 floats, and copy it with bare Spark (read CSV, write Parquet), in turns.

    Returns the summary for the last line of stdout; `ratios` holds median, least and greatest of ours / Spark's.
    """
    folder = Path(work_dir).resolve() / "benchmark"
    spark = session.get_session("benchmark", folder)
    train_on, csv = write_csv(spark, folder, _TRAINING_ROWS), write_csv(spark, folder, rows)
    config = write_use_case(folder, train_on)
    model = job.train(str(config.file))["model_uri"]
    uri = tracking.tracking_uri(config)
    copied, scored = str(folder / "copied"), str(folder / "scored")
    schema = config.source.schema_

    def bare() -> None:
        spark.read.schema(schema).option("header", True).csv(str(csv)).write.mode("overwrite").parquet(copied)

    def ours() -> None:
        scoring.predict_files(model, [str(csv)], scored, "parquet", uri)

    pairs = in_turns(bare, ours, repeats)
    ratios = sorted(mine / floor for floor, mine in pairs)
    for place in (copied, scored):
        shutil.rmtree(place)
    return {
        "status": "ok",
        "rows": rows,
        "bytes": sum(file.stat().st_size for file in csv.glob("*.csv")),
        "seconds": {
            "bare_spark": statistics.median(f for f, _ in pairs),
            "scoring": statistics.median(m for _, m in pairs),
        },
        "ratios": {"scoring / bare Spark": {"value": statistics.median(ratios), "min": ratios[0], "max": ratios[-1]}},
    }


def write_csv(spark: SparkSession, folder: Path, rows: int) -> Path:
    """Write (once) a folder of CSV files: ``f0`` … ``f27``, standard normal, and a label that depends on them."""
    place = folder / f"{rows}.csv"
    if not (place / "_SUCCESS").exists():
        log.info("generating %s rows in %s", f"{rows:,}", place)
        numbers = [F.randn(seed).cast("float").alias(f"f{seed}") for seed in range(FEATURES)]
        generated = spark.range(rows, numPartitions=8).select(*numbers)
        label = (sum((F.col(f"f{i}") for i in range(4)), F.lit(0.0)) + F.randn(99) > 0).cast("int").alias("label")
        generated.select("*", label).write.mode("overwrite").option("header", True).csv(str(place))
    return place


def write_use_case(folder: Path, csv: Path) -> Config:
    """Write the use case that learns the label of such a CSV for one epoch."""
    names = [f"f{i}" for i in range(FEATURES)]
    settings = {
        "source": {"path": str(csv), "schema": ", ".join([*(f"{n} FLOAT" for n in names), "label INT"])},
        "features": {"numeric": names},
        "label": {"column": "label", "classes": ["no", "yes"]},
        "model": {"hidden_sizes": [128, 128]},
        "training": {"epochs": 1, "batch_size": 1024},
        "run": {"work_dir": str(folder / "work")},
        "tracking": {"experiment": "benchmark"},
    }
    (folder / "features.sql").write_text(f"SELECT {', '.join(names)}, label FROM raw\n", encoding="utf-8")
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return load_config(folder / "pipeline.yaml")


def in_turns(first: Callable[[], object], second: Callable[[], object], repeats: int) -> list[tuple[float, float]]:
    """Run both once unmeasured, then in turns; return the seconds of each pair. Turns, for machines that others use."""
    first()
    second()
    pairs = []
    for turn in range(1, repeats + 1):
        begin = time.perf_counter()
        first()
        between = time.perf_counter()
        second()
        pairs.append((between - begin, time.perf_counter() - between))
        log.info("turn %d of %d: %.1f s and %.1f s", turn, repeats, *pairs[-1])
    return pairs
