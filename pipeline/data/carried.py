"""features.sql over rows that carry something along: the raw row, or what an earlier SELECT has made of it."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline.data import catalyst, features_sql
from pipeline.data.names import free
from pipeline.data.source_csv import column, quoted


def select_carrying(spark: SparkSession, sql: str, rows: DataFrame, carried: str) -> tuple[DataFrame, Column]:
    """Run the SELECT ``sql`` over ``rows`` as `raw`; return its result, and the column of it that holds ``carried``.

    ``carried`` is a column of ``rows`` that the SELECT does not name: see :func:`carried_name`.
    """
    result = catalyst.select(spark, rows, features_sql.select_more(sql, quoted(carried)))
    *names, _ = result.columns
    last = free(carried, names)  # the SELECT may have an output of that name: `SELECT *` has
    return result.toDF(*names, last), column(last)


def carried_name(rows: Sequence[str], sql: str) -> str:
    """Return a name for a column beside these columns that does not occur in the SELECT either."""
    return free("_carried", rows, sql)


def carrying_all(rows: DataFrame, sql: str) -> tuple[DataFrame, str]:
    """Add a column that holds each whole row as a struct; return the rows, and its name."""
    name = carried_name(rows.columns, sql)
    return rows.select("*", F.struct(*map(column, rows.columns)).alias(name)), name
