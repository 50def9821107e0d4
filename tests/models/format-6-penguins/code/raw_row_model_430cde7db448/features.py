"""features.sql in process: raw rows to features, with Spark's meaning and without Spark.

A row's fields are texts, as in a CSV; numbers and dates of another source are written as text first. Each text is read
in its column's type, and features.sql's trees make the features from these values. The same trees come from Spark's own
analyzer (data/features_sql.py), and tests compare every operation with Spark.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from .dialect.program import Program
from .dialect.tree import Node, column
from .spec import TEXT, RawColumn

_NAN = re.compile(r"[\x00-\x20]*[+-]?NaN[\x00-\x20]*")
Values = list[Any]
Objects = npt.NDArray[np.object_]


class RawFeatures:
    """The packaged features.sql, ready to run."""

    def __init__(self, raw: Sequence[RawColumn], missing: Sequence[str], features: Mapping[str, Node]) -> None:
        """Prepare the trees.

        Raises:
            NotAllowed: a tree holds an operation that this version does not know.
        """
        self._raw = raw
        self._missing = frozenset(missing)
        self._readers = {c.name: Program({TEXT: c.value}) for c in raw if c.value is not None}
        self._iso_readers = {kind: Program({TEXT: _iso(kind)}) for kind in ("DATE", "TIMESTAMP")}
        self._program = Program(features)
        self._is_number = {name: tree.type != "string" for name, tree in features.items()}

    def run(self, rows: pd.DataFrame, read_by_spark: bool = False) -> tuple[pd.DataFrame, pd.Series]:
        """Return the features (float64 and text), and each row's first value that is not of its type (or None).

        A column that no feature needs may be missing; where it is given, it must be of its type, as in a file. In rows
        that are ``read_by_spark`` missing values are None already, and a number may be written as the null marker is.
        """
        missing = frozenset() if read_by_spark else self._missing
        reasons = np.full(len(rows), None, dtype=object)
        values = {}
        for raw in self._raw:
            if raw.needed or (raw.name in rows and raw.type != "STRING"):
                values[raw.name] = self._read(raw, rows, missing, reasons)
        results = _run(self._program, values, len(rows), reasons)
        features = {
            name: np.array([np.nan if value is None else value for value in column], dtype=np.float64)
            if self._is_number[name]
            else np.array(column, dtype=object)
            for name, column in results.items()
        }
        return pd.DataFrame(features, index=range(len(rows))), pd.Series(reasons, dtype=object)

    def _read(self, column: RawColumn, rows: pd.DataFrame, missing: frozenset[str], reasons: Objects) -> Values:
        """Return a column's values in its type; a text that is not of the type is None and gives its row a reason."""
        if column.name not in rows:
            return [None] * len(rows)
        given = rows[column.name].tolist()
        texts = [None if text in missing else text for text in map(as_text, given)]
        values = _run(self._readers[column.name], {TEXT: texts}, len(texts), reasons)[TEXT]
        if column.type in self._iso_readers and (dates := [row for row, v in enumerate(given) if _is_date(v)]):
            # their texts are not in the pattern of source.options
            read = self._iso_readers[column.type].run({TEXT: [texts[row] for row in dates]}, len(dates))[TEXT]
            for row, value in zip(dates, read, strict=True):
                values[row] = value
        for row, (text, value) in enumerate(zip(texts, values, strict=True)):
            # a NaN of a float column has no value either
            if value is None and text is not None and not _is_nan(text, column):
                reasons[row] = reasons[row] or f"{column.name}: '{text}' is not {column.type}"
        return values


def _run(program: Program, values: Mapping[str, Values], rows: int, reasons: Objects) -> dict[str, Values]:
    """Return the program's results; if a row cannot be computed, compute each by itself and give that one a reason."""
    try:
        return program.run(values, rows)
    except Exception:  # no operation should raise; if one does, the other rows keep their answers
        results: dict[str, Values] = {name: [None] * rows for name in program.names}
    for row in range(rows):
        try:
            answer = program.run({name: [column[row]] for name, column in values.items()}, 1)
        except Exception as error:
            reasons[row] = reasons[row] or f"features.sql cannot be computed: {type(error).__name__}: {error}"
            continue
        for name, (value,) in answer.items():
            results[name][row] = value
    return results


def as_text(value: Any) -> str | None:
    """Return a value as the text of a CSV's field, None for a missing one."""
    if isinstance(value, str):
        return value
    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if value != value:
            return None
        is_plain = value.is_integer() and abs(value) < 2**63 and repr(value) != "-0.0"
        return str(int(value)) if is_plain else repr(value).replace("inf", "Infinity")
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    return value.isoformat() if isinstance(value, date) else str(value)


def _is_date(value: Any) -> bool:
    return isinstance(value, date | np.datetime64)


def _iso(kind: str) -> Node:
    """Return the tree that reads a date or time as ``as_text`` writes it."""
    return Node("Cast", kind.lower(), (column(TEXT, "string"),), settings=(("evalMode", "LEGACY"),))


def _is_nan(text: str, column: RawColumn) -> bool:
    return column.type in ("FLOAT", "DOUBLE") and _NAN.fullmatch(text) is not None
