"""The 95 % interval of a metric, from its standard error; without torch.

For accuracy it is Wilson's, which is right for few rows and near 1, too.
"""

from __future__ import annotations

import math

from pipeline.evaluation.metrics import Evaluation

BUCKETS = 100
"""The standard errors are measured with so many buckets of rows: see bucket_sums.py."""
CONFIDENCE = 0.95


def interval(evaluation: Evaluation, metric: str) -> tuple[float, float] | None:
    """Return the 95 % interval of a metric; None where no standard error is known."""
    from scipy.stats import norm, t

    value, error = evaluation.metrics[metric], evaluation.standard_errors.get(metric, math.nan)
    if not math.isfinite(value) or not math.isfinite(error):
        return None
    if metric != "accuracy" and not error:  # the metric is the same without any bucket: too few rows to tell
        return None
    if metric == "accuracy":
        return _wilson(value, evaluation.rows, float(norm.isf((1 - CONFIDENCE) / 2)))
    distance = error * float(t.isf((1 - CONFIDENCE) / 2, BUCKETS - 1))
    lowest = -math.inf if metric == "r2" else 0.0
    highest = math.inf if metric in ("rmse", "mae", "log_loss") else 1.0
    return max(lowest, value - distance), min(highest, value + distance)


def _wilson(share: float, rows: int, z: float) -> tuple[float, float]:
    """Return Wilson's interval of a share of rows (Wilson 1927)."""
    middle, width = share + z**2 / (2 * rows), z * math.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2))
    return (middle - width) / (1 + z**2 / rows), (middle + width) / (1 + z**2 / rows)
