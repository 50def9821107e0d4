"""features.sql outside Spark: what SQL is allowed, and the same SELECT in DuckDB's dialect.

features.sql makes one row of each row of raw, from that row alone. Joins, windows, aggregates, chance and the time of
day are refused: they would leak from one split to another, or give a single row another result.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import sqlglot
from sqlglot import expressions as E
from sqlglot.errors import SqlglotError

from pipeline.config import Config
from pipeline.model.spec import RawColumn
from pipeline.runtime.errors import one_line

_REFUSED: list[tuple[tuple[type, ...], str]] = [
    ((E.Join, E.Lateral), "a join"),
    ((E.Window,), "a window"),
    ((E.AggFunc, E.Group, E.Having), "an aggregate"),
    ((E.Subquery, E.CTE, E.Exists), "a subquery"),
    ((E.Where, E.Qualify), "a filter"),
    ((E.Distinct, E.Limit, E.Offset, E.Order, E.Sort), "a choice or an order of rows"),
    ((E.UDTF, E.Explode, E.Posexplode, E.Unnest), "a function that makes several rows of one"),
    ((E.Rand, E.Randn, E.Uuid), "chance"),
    ((E.CurrentTimestamp, E.CurrentDate, E.CurrentTime), "the time of day"),
]


@dataclass(frozen=True)
class Translation:
    """features.sql in DuckDB's dialect."""

    raw_types: dict[str, str]
    """DuckDB's type of each declared column of the CSV."""
    needed: frozenset[str]
    """The columns of the CSV that a feature is made from."""
    select: str
    """The SELECT over a table `raw` that has the declared columns."""

    @property
    def raw_columns(self) -> tuple[RawColumn, ...]:
        """The CSV's columns as the packaged model describes them."""
        return tuple(RawColumn(name, kind, name in self.needed) for name, kind in self.raw_types.items())


def translate(config: Config) -> Translation:
    """Return features.sql in DuckDB's dialect.

    Raises:
        UserError: it is not one row-wise SELECT over raw, or DuckDB lacks a function; the message names the construct.
    """
    where = config.folder / config.features.sql

    def refuse(problem: str) -> Exception:
        return config.mistake("features.sql", f"{where}: {problem}")

    try:
        statements = [s for s in sqlglot.parse(config.features_sql, read="spark") if s is not None]
    except SqlglotError as error:
        raise refuse(f"is not valid Spark SQL: {_first_paragraph(error)}") from None
    if len(statements) != 1 or not isinstance(statements[0], E.Select):
        given = " and ".join(_excerpt(s) for s in statements) or "an empty file"
        raise refuse(f"must be one SELECT … FROM raw, not {given}")
    select = statements[0]
    for node in select.walk():
        for kinds, name in _REFUSED:
            if isinstance(node, kinds):
                raise refuse(f"{_excerpt(node)} is {name}; features.sql makes one row of each row, from that row alone")
    tables = [table.sql("spark") for table in select.find_all(E.Table)]
    if tables != ["raw"]:
        raise refuse(f"must read FROM raw and nothing else, but reads {', '.join(tables) or 'no table'}")
    with duckdb.connect() as database:
        try:
            schema = f"CREATE TABLE raw ({config.source.schema_})"
            database.execute(sqlglot.transpile(schema, read="spark", write="duckdb", identify=True)[0])
            raw_types = {name: kind for name, kind, *_ in database.execute("DESCRIBE raw").fetchall()}
        except (SqlglotError, duckdb.Error) as error:
            raise config.mistake("source.schema", _first_paragraph(error)) from None
        try:
            # quoted, because a name may be a word of DuckDB's, such as user
            translated = select.sql("duckdb", identify=True, comments=False, unsupported_level=sqlglot.ErrorLevel.RAISE)
            database.execute(translated)
        except duckdb.BinderException as error:
            raise refuse(_first_paragraph(error).removeprefix("Binder Error: ")) from None
        except (SqlglotError, duckdb.Error) as error:
            raise refuse(f"cannot run outside Spark, as a model must: {_first_paragraph(error)}") from None
    return Translation(raw_types, _needed(select, config.feature_columns, list(raw_types)), translated)


def select_more(sql: str, *more: str) -> str:
    """Return features.sql with expressions of Spark SQL added to what it selects."""
    select = sqlglot.parse_one(sql, read="spark")
    assert isinstance(select, E.Select)
    return select.select(*more, dialect="spark").sql("spark", comments=False)


def _needed(select: E.Select, features: list[str], raw: list[str]) -> frozenset[str]:
    """Return the raw columns that the features are made from, directly or through another alias of the SELECT."""
    expressions = {e.alias_or_name.lower(): e for e in select.expressions if not isinstance(e, E.Star)}
    by_lower = {name.lower(): name for name in raw}
    needed: set[str] = set()
    visited: set[str] = set()
    pending = [name.lower() for name in features]
    while pending:
        name = pending.pop()
        if name in visited:
            continue
        visited.add(name)
        if name not in expressions:  # from `*`, or a column of raw itself
            needed.update([by_lower[name]] if name in by_lower else [])
            continue
        used = {column.name.lower() for column in expressions[name].find_all(E.Column)}
        needed.update(by_lower[column] for column in used if column in by_lower)
        pending += [column for column in used if column not in by_lower]
    return frozenset(needed)


def _excerpt(node: E.Expr) -> str:
    text = " ".join(node.sql("spark", comments=False).split())
    return f"'{text if len(text) <= 60 else text[:59] + '…'}'"


def _first_paragraph(error: Exception) -> str:
    return one_line(str(error).split("\n\n")[0], limit=500)
