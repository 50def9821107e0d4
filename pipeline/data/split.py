"""The split: training or validation for each row."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column
from pyspark.sql import functions as F

from pipeline.config import Split
from pipeline.data import names

SPLIT = names.SPLIT
"""The column that names each row's split."""


def split_of(used: Sequence[Column], settings: Split) -> Column:
    """Return each row's split, 'train' or 'validation', from a hash of its ``used`` columns and `split.seed`.

    It depends on these values only, so identical rows are in the same split however the rows are partitioned.
    """
    row_hash = F.xxhash64(F.lit(settings.seed), *used)
    is_validation = F.pmod(row_hash, F.lit(1_000_000)) < F.lit(round(settings.validation_fraction * 1_000_000))
    return F.when(is_validation, F.lit("validation")).otherwise(F.lit("train"))
