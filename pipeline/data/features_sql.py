"""features.sql outside Spark: what it may contain, and the same SELECT in DuckDB's dialect.

It makes one row of each row of raw, from that row alone. What would break that (joins, windows, aggregates, chance, the
time of day) is refused: it would leak from one side of the split to the other, or mean something else for a single row.
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
    ((E.Distinct, E.Limit, E.Offset, E.Order, E.Sort), "a change of which rows come, or in which order"),
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
    """The columns of the CSV that some feature is made from."""
    select: str
    """The SELECT, as it runs over a table `raw` with those columns."""

    @property
    def raw_columns(self) -> tuple[RawColumn, ...]:
        """The CSV's columns as the packaged model describes them."""
        return tuple(RawColumn(name, kind, name in self.needed) for name, kind in self.raw_types.items())


def translate(config: Config) -> Translation:
    """Return features.sql in DuckDB's dialect.

    Raises:
        UserError: it is not one row-wise SELECT over raw, or DuckDB has no such function; the construct is named.
    """
    where = config.folder / config.features.sql

    def refuse(problem: str) -> Exception:
        return config.mistake("features.sql", f"{where}: {problem}")

    try:
        statements = [s for s in sqlglot.parse(config.features_sql, read="spark") if s is not None]
    except SqlglotError as error:
        raise refuse(f"is not valid Spark SQL: {_first_paragraph(error)}") from None
    if len(statements) != 1 or not isinstance(statements[0], E.Select):
        found = " and ".join(_shown(s) for s in statements) or "nothing"
        raise refuse(f"must be one SELECT … FROM raw, not {found}")
    select = statements[0]
    for node in select.walk():
        for kinds, name in _REFUSED:
            if isinstance(node, kinds):
                raise refuse(f"{_shown(node)} is {name}; features.sql makes one row of each row, from that row alone")
    tables = [table.sql("spark") for table in select.find_all(E.Table)]
    if tables != ["raw"]:
        raise refuse(f"must read FROM raw and nothing else, but reads {', '.join(tables) or 'no table'}")
    with duckdb.connect() as database:
        try:
            schema = f"CREATE TABLE raw ({config.source.schema_})"
            database.execute(sqlglot.transpile(schema, read="spark", write="duckdb")[0])
            raw_types = {name: kind for name, kind, *_ in database.execute("DESCRIBE raw").fetchall()}
        except (SqlglotError, duckdb.Error) as error:
            raise config.mistake("source.schema", _first_paragraph(error)) from None
        try:
            translated = select.sql("duckdb", comments=False, unsupported_level=sqlglot.ErrorLevel.RAISE)
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
    """Return the raw columns that the features are made from, also by way of another alias of the same SELECT."""
    made = {made.alias_or_name.lower(): made for made in select.expressions if not isinstance(made, E.Star)}
    by_lower = {name.lower(): name for name in raw}
    needed: set[str] = set()
    seen: set[str] = set()
    wanted = [name.lower() for name in features]
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        if name not in made:  # from `*`, or a column of raw itself
            needed.update([by_lower[name]] if name in by_lower else [])
            continue
        used = {column.name.lower() for column in made[name].find_all(E.Column)}
        needed.update(by_lower[column] for column in used if column in by_lower)
        wanted += [column for column in used if column not in by_lower]
    return frozenset(needed)


def _shown(node: E.Expr) -> str:
    text = " ".join(node.sql("spark", comments=False).split())
    return f"'{text if len(text) <= 60 else text[:59] + '…'}'"


def _first_paragraph(error: Exception) -> str:
    return one_line(str(error).split("\n\n")[0], limit=500)
