"""Oversampling: each training row is there several times, each validation row once."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.data.names import COPIES, SPLIT


def oversample(rows: DataFrame, factor: int) -> DataFrame:
    """Return the rows with each training row there ``factor`` times."""
    if factor == 1:
        return rows
    copies = F.array_repeat(F.lit(0), F.when(F.col(SPLIT) == "train", factor).otherwise(1))
    return rows.select("*", F.explode(copies).alias(COPIES)).drop(COPIES)
