"""Some rows of a prepared split in the driver: all of a small split, of a large one those that a hash chooses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from pipeline.data.source_csv import column

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

_SHARES = 1_000_000
_HASH = "_hash"  # no stored name begins with an underscore


def sample_rows(
    spark: SparkSession, places: Sequence[str], columns: Sequence[str], rows: int, most_cells: int
) -> pd.DataFrame:
    """Return about ``most_cells`` values of the Parquet files in ``places``, which hold ``rows`` rows, or all.

    The hash of all of a row's values chooses it, and orders the rows: how Spark has cut the rows into files does not
    matter. Equal rows are in the sample together, or none of them, so it may be larger; never more than twice as large.
    """
    there = spark.read.parquet(*places)
    frame = there.select(*map(column, columns), F.xxhash64(*map(column, there.columns)).alias(_HASH))
    most = most_cells // len(columns)
    if rows > most:
        frame = frame.where(F.pmod(F.col(_HASH), F.lit(_SHARES)) < round(_SHARES * most / rows)).limit(2 * most)
    table: Any = frame.toPandas()
    ordered: pd.DataFrame = table.iloc[table[_HASH].to_numpy().argsort(kind="stable")].drop(columns=_HASH)
    return ordered
