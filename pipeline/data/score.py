"""Scoring with Spark: a packaged model reaches the executors and reads the features from Arrow batches."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import Config

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from pyspark import Broadcast
    from pyspark.sql import Column, DataFrame, SparkSession

    from pipeline.model.scorer import Scorer
    from pipeline.model.spec import ModelSpec


def with_declared(spark: SparkSession, rows: DataFrame, config: Config) -> DataFrame:
    """Add the columns that a model's schema declares and the rows lack, as NULL.

    Its features.sql may name them, like the label, which new rows lack.
    """
    from pyspark.sql import functions as F

    from pipeline.data.source_csv import source_schema

    present = {name.lower() for name in rows.columns}
    declared = source_schema(spark, config).fields
    return rows.withColumns({f.name: F.lit(None).cast(f.dataType) for f in declared if f.name.lower() not in present})


def model_inputs(spec: ModelSpec, prefix: str) -> list[Column]:
    """Return the features as the columns that :func:`read_inputs` reads, named ``prefix`` and a number."""
    from pipeline.data.source_csv import column

    numeric = [column(n.column).cast("double" if n.offset else "float") for n in spec.network.numeric]
    categorical = [column(c.column).cast("string") for c in spec.network.categorical]
    return [value.alias(f"{prefix}{i}") for i, value in enumerate(numeric + categorical)]


def read_inputs(batch: pa.RecordBatch, spec: ModelSpec, prefix: str) -> pd.DataFrame:
    """Return the features of one Arrow batch as a :class:`Scorer` takes them."""
    import pandas as pd

    names = [*(n.column for n in spec.network.numeric), *(c.column for c in spec.network.categorical)]
    return pd.DataFrame({name: batch.column(f"{prefix}{i}").to_pandas() for i, name in enumerate(names)})


def ship_model(spark: SparkSession, folder: Path) -> Broadcast[dict[str, bytes]]:
    """Send a packaged model's files to the executors, which may be on other machines."""
    return spark.sparkContext.broadcast({file.name: file.read_bytes() for file in folder.iterdir()})


@functools.lru_cache(maxsize=2)
def shipped_model(files: Broadcast[dict[str, bytes]]) -> Scorer:
    """Load a model that :func:`ship_model` has sent: once per Python process of Spark, not once per batch."""
    import torch

    from pipeline.model.scorer import Scorer

    torch.set_num_threads(1)  # Spark runs one process per core
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.value.items():
            Path(folder, name).write_bytes(content)
        return Scorer(Path(folder))
