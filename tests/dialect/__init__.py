"""Expressions of each area of the dialect, values for them, and the comparison with Spark."""

from importlib.metadata import version

IS_3_5_0 = version("pyspark") == "3.5.0"
"""Whether Spark is that of Databricks 15.4, which differs from later ones in a few places."""
