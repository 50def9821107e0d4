"""Spark SQL without Spark: the operations that features.sql may use, each proven equal to Spark's.

Importing this package fills the table `entry.ENTRIES`.
"""

from . import (  # noqa: F401
    arithmetic,
    bits,
    casts,
    codes,
    conditions,
    date_arithmetic,
    date_fields,
    datetime_functions,
    hashes,
    intervals,
    json_path,
    letters,
    like,
    lists,
    mathematics,
    number_casts,
    patterns,
    positions,
    rounding,
    text,
    text_casts,
    time_arithmetic,
    time_casts,
    zones,
)
