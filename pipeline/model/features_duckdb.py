"""features.sql in process: DuckDB runs its translation over raw rows that come as a pandas frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pandas as pd

_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")


@dataclass(frozen=True)
class RawColumn:
    """One column of the CSV, as DuckDB knows it."""

    name: str
    type: str
    needed: bool
    """Whether a feature is made from it; the label's column, say, is not needed."""


class RawFeatures:
    """features.sql in process: DuckDB runs it over rows that come as a pandas frame."""

    def __init__(
        self, raw: Sequence[RawColumn], select: str, numeric: Sequence[str], categorical: Sequence[str]
    ) -> None:
        self._raw = raw
        self._database = duckdb.connect(config={"threads": 1})
        typed = [f"{_typed(column)} AS {_quoted(column.name)}" for column in raw]
        wanted = [f"TRY_CAST({_quoted(name)} AS REAL) AS {_quoted(name)}" for name in numeric]
        wanted += [f"CAST({_quoted(name)} AS VARCHAR) AS {_quoted(name)}" for name in categorical]
        self._features = (
            f"WITH raw AS (SELECT {', '.join(typed)} FROM given) SELECT {', '.join(wanted)} FROM ({select})"
        )
        problems = [_problem(column) for column in raw if column.type != "VARCHAR" and column.needed]
        self._problems = f"SELECT coalesce({', '.join([*problems, 'NULL'])})::VARCHAR AS problem FROM given"

    def run(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
        """Return the features (float32 and text), and what is wrong with each row's raw types (or None)."""
        given = pd.DataFrame({column.name: _plain(rows, column) for column in self._raw})
        with self._database.cursor() as cursor:  # cursors may be used by several threads at once, connections not
            cursor.register("given", given)
            features = cursor.execute(self._features).df()
            problems = cursor.execute(self._problems).df()["problem"].astype(object)
        return features, problems.where(problems.notna(), None)


def _plain(raw: pd.DataFrame, column: RawColumn) -> pd.Series:
    """Return a column as numbers, or as text where it holds anything else; all missing if it is not given."""
    if column.name not in raw:
        return pd.Series([None] * len(raw), dtype=object)
    values = raw[column.name].reset_index(drop=True)
    if values.dtype == object or column.type == "VARCHAR":
        return values.map(_as_text, na_action="ignore").astype(object).where(values.notna(), None)
    return values


def _as_text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _typed(column: RawColumn) -> str:
    """Return SQL for the column in its type, NULL where the value is not of it (3.7 is not an INT)."""
    name, cast = _quoted(column.name), f"TRY_CAST({_quoted(column.name)} AS {column.type})"
    if column.type not in _WHOLE:
        return cast
    exact = f"TRY_CAST({name} AS DECIMAL(38, 9))"
    return f"CASE WHEN {exact} = floor({exact}) THEN {cast} END"


def _problem(column: RawColumn) -> str:
    """Return SQL for what is wrong with a value that is not of its column's type."""
    name = _quoted(column.name)
    told = f"concat({_text(f'{column.name}: ')}, chr(39), {name}, chr(39), {_text(f' is not {column.type}')})"
    return f"CASE WHEN {name} IS NOT NULL AND {_typed(column)} IS NULL THEN {told} END"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
