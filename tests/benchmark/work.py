"""What is measured on: W1, the penguins as they are; W2, a generated table of 28 numbers and a binary label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from pipeline.config import Config, load_config
from pipeline.runtime.console import log

FEATURES = 28
NAMES = [f"f{i}" for i in range(FEATURES)]
PENGUINS = Path(__file__).parents[2] / "conf" / "penguins" / "pipeline.yaml"


def write_csv(spark: SparkSession, folder: Path, rows: int) -> Path:
    """Write (once) a folder of CSV files: ``f0`` … ``f27``, standard normal, and a label that depends on them."""
    place = folder / f"{rows}.csv"
    if not (place / "_SUCCESS").exists():
        log.info("generating %s rows in %s", f"{rows:,}", place)
        numbers = [F.randn(seed).cast("float").alias(name) for seed, name in enumerate(NAMES)]
        generated = spark.range(rows, numPartitions=8).select(*numbers)
        label = (sum((F.col(name) for name in NAMES[:4]), F.lit(0.0)) + F.randn(99) > 0).cast("int").alias("label")
        generated.select("*", label).write.mode("overwrite").option("header", True).csv(str(place))
    return place


def write_use_case(folder: Path, csv: Path, hidden: int = 128, **training: Any) -> Config:
    """Write W2: the use case that learns the label of such a CSV; ``hidden`` neurons in each of two layers."""
    settings = {
        "source": {"path": str(csv), "schema": ", ".join([*(f"{name} FLOAT" for name in NAMES), "label INT"])},
        "features": {"numeric": [{"column": name, "missing": "drop"} for name in NAMES]},
        "label": {"column": "label", "classes": ["no", "yes"]},
        "split": {"validation_fraction": 0.1, "test_fraction": 0.0},
        "evaluation": {"baselines": [], "importance_repeats": 0},  # the peers have nothing of it
        "model": {"preset": "none", "hidden_sizes": [hidden, hidden]},
        "training": {"epochs": 1, "batch_size": 1024, **training},
        "run": {"work_dir": str(folder / "work")},
        "tracking": {"experiment": "benchmark"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "features.sql").write_text(f"SELECT {', '.join(NAMES)}, label FROM raw\n", encoding="utf-8")
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return load_config(folder / "pipeline.yaml")
