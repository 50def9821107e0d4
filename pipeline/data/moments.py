"""Means, deviations and extremes of the numeric columns of Parquet files, file by file and of all files together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.data.manifest import NumericStats


@dataclass(frozen=True)
class Moments:
    """The values of one numeric column of one file."""

    rows: int
    """Rows that have a value."""
    mean: float
    squares: float
    """Sum of the squared deviations from the mean."""
    min: float
    max: float


@dataclass(frozen=True)
class ExactMoments(Moments):
    """The values of one DOUBLE column of one file, before they are float32."""

    rounding: float
    """The largest difference between a value and its float32."""


def measure(table: pa.Table, columns: tuple[str, ...]) -> dict[str, Moments]:
    """Return the moments of numeric columns as float32; those without NULLs all at once: (columns, rows)."""
    whole = [name for name in columns if not table.column(name).null_count]
    parts = [([name], table.column(name).drop_null().to_numpy()[np.newaxis]) for name in columns if name not in whole]
    if whole:
        stacked = np.stack([table.column(n).to_numpy().astype(np.float32, copy=False) for n in whole])
        parts.insert(0, (whole, stacked))
    by_name: dict[str, Moments] = {}
    for names, part in parts:
        if not part.shape[1]:
            continue
        values = part.astype(np.float32, copy=False).astype(np.float64)
        means, minima, maxima = values.mean(axis=1), values.min(axis=1), values.max(axis=1)
        values -= means[:, np.newaxis]
        squares = np.einsum("ij,ij->i", values, values)
        numbers = zip(means.tolist(), squares.tolist(), minima.tolist(), maxima.tolist(), strict=True)
        by_name |= {name: Moments(values.shape[1], *moments) for name, moments in zip(names, numbers, strict=True)}
    return {name: by_name[name] for name in columns if name in by_name}


def measure_doubles(table: pa.Table, columns: tuple[str, ...]) -> dict[str, ExactMoments]:
    """Return the moments of those numeric columns that are DOUBLE, one column at a time."""
    exact = {}
    for name in columns:
        values = table.column(name).drop_null().to_numpy()
        if table.schema.field(name).type != pa.float64() or not len(values):
            continue
        rounding = np.abs(values - values.astype(np.float32)).max()
        # Counted from the smallest value: the mean of large equal numbers would not be exactly that number.
        low, high = values.min(), values.max()
        values = values - low
        mean = values.mean()
        values -= mean
        numbers = low + mean, np.dot(values, values), low, high, rounding
        exact[name] = ExactMoments(len(values), *map(float, numbers))
    return exact


def combine_moments(moments: Sequence[Mapping[str, Moments]]) -> dict[str, NumericStats]:
    """Return the statistics of each column, in float64, from the moments of each file.

    Means and squared deviations of the files are combined as in Chan, Golub and LeVeque, Updating Formulae and a
    Pairwise Algorithm for Computing Sample Variances (1979).
    """
    columns = list(dict.fromkeys(column for of_file in moments for column in of_file))
    nothing = Moments(0, 0.0, 0.0, math.inf, -math.inf)
    # each of these is (files, columns)
    weights, means, squares, minima, maxima = (
        np.array([[getattr(of_file.get(column, nothing), name) for column in columns] for of_file in moments], float)
        for name in ("rows", "mean", "squares", "min", "max")
    )
    if not columns:
        return {}
    mean = (weights * means).sum(axis=0) / weights.sum(axis=0)
    deviations = squares.sum(axis=0) + (weights * (means - mean) ** 2).sum(axis=0)
    std = np.sqrt(deviations / weights.sum(axis=0))
    numbers = zip(
        columns, mean.tolist(), std.tolist(), minima.min(axis=0).tolist(), maxima.max(axis=0).tolist(), strict=True
    )
    return {column: NumericStats(mean=m, std=s, min=low, max=high) for column, m, s, low, high in numbers}
