"""Wide numbers: which columns float32 would spoil, the offset that they are counted from, and what stays merged."""

from __future__ import annotations

import math

import numpy as np
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from pipeline.data.manifest import NumericStats
from pipeline.data.source_csv import column
from pipeline.runtime.console import log
from pipeline.runtime.session import progress
from pipeline.runtime.storage import Folder

_NEGLIGIBLE = 1e-4  # of the standard deviation: no network resolves less


def float32_stats(exact: NumericStats) -> NumericStats:
    """Round statistics to float32, since the last bits of a double depend on how Spark has cut the rows into files."""
    return NumericStats(**{name: _round(getattr(exact, name)) for name in ("mean", "std", "min", "max")})


def wide_stats(exact: NumericStats, rounding: float) -> NumericStats | None:
    """Return the statistics of a wide column with its offset, or None for a column that float32 holds.

    ``exact`` are the statistics in float64. ``rounding`` is the largest difference between a value and its float32.
    Relative to the offset, the mean is rounded as in :func:`float32_stats`.
    """
    std = _round(exact.std) if exact.max > exact.min else 0.0  # sums of large equal numbers are not exact
    offset = _offset(exact, std) if _is_lossy(rounding, std) else 0.0
    if not offset:
        return None
    return NumericStats(mean=offset + _round(exact.mean - offset), std=std, min=exact.min, max=exact.max, offset=offset)


def log_merged_values(
    spark: SparkSession, folder: Folder, below: str, stats: dict[str, NumericStats], rounding: dict[str, float]
) -> None:
    """Log for each column how many of its values fall together in float32, although they are counted from the offset.

    ``folder/below`` holds the training rows, ``rounding`` is that of :func:`wide_stats` by column. Only columns that
    can have such values cost a job: whole numbers within 2^24 of their offset cannot.
    """
    doubtful = [name for name, loss in rounding.items() if _is_lossy(_remaining(stats[name], loss), stats[name].std)]
    if not doubtful:
        return
    rows = spark.read.parquet((folder / below).spark)
    with progress(spark, f"counting the values of {', '.join(doubtful)} that float32 merges"):
        for name in doubtful:
            # No column of features.sql begins with an underscore.
            merged = (column(name) - F.lit(stats[name].offset)).cast("float").alias("_merged")
            each = (
                rows.where(column(name).isNotNull())
                .select(column(name), merged)
                .distinct()
                .groupBy("_merged")
                .agg(F.count("*").alias("_values"))
            )
            together = F.sum(F.when(F.col("_values") > 1, F.col("_values")).otherwise(0))
            ((lost, distinct, kept),) = each.agg(together, F.sum("_values"), F.count("*")).collect()
            if lost:
                problem = f"{lost:,} of {distinct:,} distinct values fall together in float32, which keeps {kept:,}"
                log.warning("%s: %s; a model sees them as equal", name, problem)


def _is_lossy(rounding: float, std: float) -> bool:
    """Return whether float32 changes a whole number, or moves some value by a share of the deviation that counts."""
    return rounding >= 1 or rounding > _NEGLIGIBLE * std > 0


def _offset(exact: NumericStats, std: float) -> float:
    """Return the mean, rounded to a multiple of the power of two above twice the deviation.

    A number of so few bits is the same however Spark has cut the rows into files, and subtracting it rounds nothing
    that float64 holds. Where the mean is within one deviation of 0 the offset is 0: float32 is finest there.
    """
    if not std:
        return exact.min
    grid = 2.0 ** (math.ceil(math.log2(std)) + 1)
    return round(exact.mean / grid) * grid


def _remaining(stats: NumericStats, rounding: float) -> float:
    """Return how much float32 changes a value at most when it is counted from the offset."""
    if not stats.offset:
        return rounding
    distance = max(stats.max - stats.offset, stats.offset - stats.min)
    return float(np.spacing(np.float32(distance))) / 2


def _round(value: float) -> float:
    return float(np.float32(value))
