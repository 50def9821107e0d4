"""Parity: Spark and the packaged model make the same features of the same raw rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame, SparkSession

from pipeline.config import Config
from pipeline.data import features_sql, prepare, source_csv
from pipeline.model.features_duckdb import RawFeatures

_SAMPLE_ROWS = 2_000
_LARGEST_FLOAT = float(np.finfo(np.float32).max)


def check_parity(spark: SparkSession, config: Config, offsets: Mapping[str, float] | None = None) -> int:
    """Run features.sql in Spark and in DuckDB over a sample of the source; return the number of rows compared.

    The sample is the first 2,000 rows that fit the schema, or all; it passes through the driver. ``offsets`` are those
    of the wide columns.

    Raises:
        UserError: a feature differs (as the float32 that a network takes, or as text) or is missing in one only; names
            the row and both values.
    """
    sample = source_csv.read_records(spark, config).good().limit(_SAMPLE_ROWS)
    raw = pd.DataFrame([row.asDict() for row in sample.collect()], columns=sample.columns, dtype=object)
    translation = features_sql.translate(config)
    numeric = [f.column for f in config.features.numeric]
    categorical = [f.column for f in config.features.categorical]
    in_process = RawFeatures(translation.raw_columns, translation.select, numeric, categorical)
    duckdb_features, _ = in_process.run(raw)
    spark_features = _in_spark(spark, config, raw, sample)
    for name in numeric + categorical:
        offset = (offsets or {}).get(name, 0.0)
        pairs = zip(spark_features[name], duckdb_features[name], strict=True)
        for row, (spark_value, duckdb_value) in enumerate(pairs):
            if not _is_same(spark_value, duckdb_value, offset):
                problem = f"'{name}' is {spark_value!r} in Spark but {duckdb_value!r} in DuckDB, which a model uses, "
                problem += f"for the raw row {raw.iloc[row].to_dict()}; write the expression with explicit CASTs"
                raise config.mistake("features.sql", problem)
    return len(raw)


def _in_spark(spark: SparkSession, config: Config, raw: pd.DataFrame, like: DataFrame) -> dict[str, list[Any]]:
    """Return the features that Spark makes of these raw rows, in their order."""
    values = [tuple(None if value is None else value for value in row) for row in raw.itertuples(index=False)]
    typed = prepare.typed_rows(spark, config, source_csv.as_records(spark.createDataFrame(values, like.schema)))
    rows = [row.asDict() for row in typed.frame.collect()]
    return {name: [row[name] for row in rows] for name in config.feature_columns}


def _is_same(spark_value: Any, duckdb_value: Any, offset: float) -> bool:
    if _is_missing(spark_value) or _is_missing(duckdb_value):
        return _is_missing(spark_value) and _is_missing(duckdb_value)
    if isinstance(spark_value, float):
        return bool(np.float32(spark_value - offset) == np.float32(duckdb_value - offset))
    return bool(spark_value == duckdb_value)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float | np.floating) and not abs(float(value)) <= _LARGEST_FLOAT)
