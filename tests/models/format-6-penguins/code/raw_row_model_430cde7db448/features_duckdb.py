"""features.sql of models of formats 1 and 2: DuckDB runs the translation that they were packaged with.

Later models hold the trees that features.py runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
import pandas as pd

from .spec import RawColumn

_WHOLE = ("TINYINT", "SMALLINT", "INT", "BIGINT")
_DUCKDB_TYPES = {"TIMESTAMP": "TIMESTAMP WITH TIME ZONE", "TIMESTAMP_NTZ": "TIMESTAMP", "FLOAT": "REAL"}
"""Spark's name of a type to DuckDB's, where DuckDB takes it for another or does not know it."""


class TranslatedFeatures:
    """features.sql in process: DuckDB runs it over rows that come as a pandas frame."""

    def __init__(
        self, raw: Sequence[RawColumn], select: str, numeric: Sequence[str], categorical: Sequence[str]
    ) -> None:
        statements = duckdb.extract_statements(select)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise ValueError("the translation of features.sql is not one SELECT")
        self._raw = raw
        limits: dict[str, str | bool | int | float | list[str]] = {"threads": 1, "memory_limit": "2GB"}
        limits["enable_external_access"] = False
        self._database = duckdb.connect(config=limits)
        self._database.execute("SET TimeZone = 'UTC'; SET lock_configuration = true")
        typed = [f"{_typed(column)} AS {_quoted(column.name)}" for column in raw]
        outputs = [f"TRY_CAST({_quoted(name)} AS REAL) AS {_quoted(name)}" for name in numeric]
        outputs += [f"CAST({_quoted(name)} AS VARCHAR) AS {_quoted(name)}" for name in categorical]
        self._features = (
            f"WITH raw AS (SELECT {', '.join(typed)} FROM given) SELECT {', '.join(outputs)} FROM ({select})"
        )
        mistyped = [_type_mistake(column) for column in raw if column.type != "STRING" and column.needed]
        self._mistakes = f"SELECT coalesce({', '.join([*mistyped, 'NULL'])})::VARCHAR AS mistake FROM given"

    def run(self, rows: pd.DataFrame, read_by_spark: bool = False) -> tuple[pd.DataFrame, pd.Series]:
        """Return the features (float32 and text), and each row's first value that is not of its type (or None).

        These models know no null markers, so ``read_by_spark`` changes nothing.
        """
        given = pd.DataFrame({column.name: _plain(rows, column) for column in self._raw})
        with self._database.cursor() as cursor:  # cursors may be used by several threads at once, connections not
            cursor.register("given", given)
            features = cursor.execute(self._features).df()
            mistakes = cursor.execute(self._mistakes).df()["mistake"].astype(object)
        return features, mistakes.where(mistakes.notna(), None)


def _plain(rows: pd.DataFrame, column: RawColumn) -> pd.Series:
    """Return a column as numbers, or as text where it holds anything else; all missing if it is not there."""
    if column.name not in rows:
        return pd.Series([None] * len(rows), dtype=object)
    values = rows[column.name].reset_index(drop=True)
    if values.dtype == object or column.type == "STRING":
        return values.map(_as_text, na_action="ignore").astype(object).where(values.notna(), None)
    return values


def _as_text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _typed(column: RawColumn) -> str:
    """Return SQL for the column in its type, NULL where the value is not of it (3.7 is not an INT)."""
    name, kind = _quoted(column.name), _DUCKDB_TYPES.get(column.type, column.type)
    cast = f"TRY_CAST({name} AS {kind})"
    if column.type not in _WHOLE:
        return cast
    exact = f"TRY_CAST({name} AS DECIMAL(38, 9))"
    return f"CASE WHEN {exact} = floor({exact}) THEN {cast} END"


def _type_mistake(column: RawColumn) -> str:
    """Return SQL for a sentence about a value that is not of its column's type, NULL for any other value."""
    name = _quoted(column.name)
    sentence = f"concat({_text(f'{column.name}: ')}, chr(39), {name}, chr(39), {_text(f' is not {column.type}')})"
    return f"CASE WHEN {name} IS NOT NULL AND {_typed(column)} IS NULL THEN {sentence} END"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
