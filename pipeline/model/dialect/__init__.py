"""Spark SQL without Spark: the operations that features.sql may use, each proven equal to Spark's.

Importing this package fills the table `entry.ENTRIES`.
"""

from . import arithmetic, bits, casts, conditions, mathematics, rounding  # noqa: F401
