"""Spark SQL without Spark: the operations that features.sql may use, each proven equal to Spark's.

Importing this package fills the table `entry.ENTRIES`.
"""

from . import arithmetic, bits, casts, codes, conditions, datetime_functions  # noqa: F401
from . import letters, like, mathematics, positions, rounding, text  # noqa: F401
