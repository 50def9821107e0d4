"""Spark SQL without Spark: the operations that features.sql may use, each proven equal to Spark's.

Importing this package fills the table `entry.ENTRIES`.
"""

from . import casts, codes, conditions, datetime_functions, letters, like, positions, text  # noqa: F401
