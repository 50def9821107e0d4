"""The proof that Spark and the packaged model make the same features of the same raw rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame, SparkSession

from pipeline.config import Config
from pipeline.data import features_sql, prepare, source_csv
from pipeline.model.features_duckdb import RawFeatures

_SAMPLE_ROWS = 2_000


def check_parity(spark: SparkSession, config: Config) -> int:
    """Run features.sql in Spark and in DuckDB over a sample of the source; return the number of rows compared.

    The sample is the first 2,000 rows that fit the schema, or all.

    Raises:
        UserError: a feature differs (as float32, or as text) or is missing in one only; with the row and both values.
    """
    sample = source_csv.read_records(spark, config).good().limit(_SAMPLE_ROWS)
    raw = pd.DataFrame([row.asDict() for row in sample.collect()], columns=sample.columns, dtype=object)
    translation = features_sql.translate(config)
    numeric = [f.column for f in config.features.numeric]
    categorical = [f.column for f in config.features.categorical]
    in_process = RawFeatures(translation.raw_columns, translation.select, numeric, categorical)
    ours, _ = in_process.run(raw)
    theirs = _in_spark(spark, config, raw, sample)
    for name in numeric + categorical:
        for row, (spark_value, duckdb_value) in enumerate(zip(theirs[name], ours[name], strict=True)):
            if not _same(spark_value, duckdb_value):
                problem = (
                    f"'{name}' is {spark_value!r} in Spark but {duckdb_value!r} in DuckDB, where a model runs it, "
                )
                problem += f"for the raw row {raw.iloc[row].to_dict()}; write the expression with explicit CASTs"
                raise config.mistake("features.sql", problem)
    return len(raw)


def _in_spark(spark: SparkSession, config: Config, raw: pd.DataFrame, like: DataFrame) -> dict[str, list[Any]]:
    """Return the features that Spark makes of these raw rows, in their order."""
    values = [tuple(None if value is None else value for value in row) for row in raw.itertuples(index=False)]
    typed = prepare.typed_rows(spark, config, source_csv.as_records(spark.createDataFrame(values, like.schema)))
    rows = [row.asDict() for row in typed.frame.collect()]
    return {name: [row[name] for row in rows] for name in config.feature_columns}


def _same(spark_value: Any, duckdb_value: Any) -> bool:
    missing = [value is None or (isinstance(value, float | np.floating) and not np.isfinite(value)) for value in
               (spark_value, duckdb_value)]  # fmt: skip
    if any(missing):
        return all(missing)
    return bool(spark_value == duckdb_value)
