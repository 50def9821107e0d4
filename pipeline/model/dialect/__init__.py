"""Spark SQL without Spark: the operations that features.sql may use, each proven equal to Spark's.

Importing this package fills the table `entry.ENTRIES`.
"""

from . import casts, conditions  # noqa: F401
from . import codes, letters, like, positions, text  # noqa: F401
