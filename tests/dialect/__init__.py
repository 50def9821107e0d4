"""Expressions of each area of the dialect, values for them, and the comparison with Spark."""
