"""The rows that have one value of one categorical feature, and how wrong a model is on them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Slice:
    """The rows that have one value of one categorical feature."""

    feature: str
    value: str
    rows: int
    error: float
    """Share of wrong answers, or rmse."""
    excess: float
    """Wrong answers (or squared error) beyond what as many average rows would have; the worst slices have the most."""
