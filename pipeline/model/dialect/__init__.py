"""Spark SQL without Spark: the operations that features.sql may use, each proven equal to Spark's.

Importing this package fills the table `entry.ENTRIES`.
"""

from . import (  # noqa: F401
    casts,
    conditions,
    datetime_functions,
)
