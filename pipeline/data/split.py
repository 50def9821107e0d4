"""The split: training or validation for each row."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column
from pyspark.sql import functions as F

from pipeline.config import Split
from pipeline.data import names

SPLIT = names.SPLIT
"""The column that names each row's split."""


_WHOLE_IN_FLOAT32 = 2.0**24
"""float32 holds every whole number up to this one."""


def split_of(used: Sequence[Column], doubles: Sequence[Column], settings: Split) -> Column:
    """Return each row's split, 'train' or 'validation', from a hash of its ``used`` columns and `split.seed`.

    ``used`` holds the numbers as FLOAT, ``doubles`` holds those that were DOUBLE as such. The split depends on these
    values only, so identical rows are in the same split however the rows are partitioned.
    """
    # Large numbers that are equal as FLOAT need not be in the same split. The hash leaves NULL out, so that all other
    # rows have the split that they had when every number was a FLOAT.
    rest = [F.when((F.abs(x) >= F.lit(_WHOLE_IN_FLOAT32)) & (x.cast("float").cast("double") != x), x) for x in doubles]
    row_hash = F.xxhash64(F.lit(settings.seed), *used, *rest)
    is_validation = F.pmod(row_hash, F.lit(1_000_000)) < F.lit(round(settings.validation_fraction * 1_000_000))
    return F.when(is_validation, F.lit("validation")).otherwise(F.lit("train"))
