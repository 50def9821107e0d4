"""features.sql: what it may say, and what Spark takes it to mean.

features.sql makes one row of each row of raw, from that row alone. Joins, windows, aggregates, chance and the time of
day are refused: they would leak from one split to another, or give a single row another result. So is every function
that a packaged model cannot compute as Spark does: `conf/README.md` lists those that it can.
"""

from __future__ import annotations

from collections.abc import Iterator

import sqlglot
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from sqlglot import expressions as E
from sqlglot.errors import SqlglotError
from sqlglot.tokens import Token, TokenType  # type: ignore[attr-defined]

from pipeline.config import Config
from pipeline.data import catalyst, reading, source_csv
from pipeline.data.packaged import PackagedModel
from pipeline.data.source_csv import sentence
from pipeline.data.specs import Resolved
from pipeline.model.dialect.entry import ENTRIES, USAGES, NotAllowed
from pipeline.model.dialect.program import Program
from pipeline.model.dialect.tree import COLUMN, LITERAL, Node
from pipeline.model.spec import RawColumn
from pipeline.runtime.errors import UserError, nearest, one_line

LIST = "conf/README.md, 'What features.sql may use', lists what is allowed"

_CHANCE = ("rand", "random", "randn", "uuid", "shuffle", "monotonically_increasing_id", "spark_partition_id")
_TIME_OF_DAY = ("now", "curdate", "current_date", "current_timestamp", "current_time", "localtimestamp", "localtime")
_PLACE = ("current_user", "user", "session_user", "version", "current_database", "current_schema", "current_catalog",
          "current_timezone", "input_file_name", "input_file_block_start", "input_file_block_length", "java_method",
          "reflect")  # fmt: skip
_KINDS = (
    *((name, "chance") for name in _CHANCE),
    *((name, "the time of day") for name in _TIME_OF_DAY),
    *((name, "a fact of the machine or the session") for name in _PLACE),
)
_NOT_ROW_WISE: list[tuple[tuple[type, ...], str]] = [
    ((E.Join, E.Lateral), "a join"),
    ((E.Window,), "a window"),
    ((E.AggFunc, E.Group, E.Having), "an aggregate"),
    ((E.Subquery, E.CTE, E.Exists), "a subquery"),
    ((E.Where, E.Qualify), "a filter"),
    ((E.Distinct, E.Limit, E.Offset, E.Order, E.Sort), "a choice or an order of rows"),
    ((E.TableSample,), "a sample of the rows"),
    ((E.QueryTransform,), "a program of its own"),
    ((E.UDTF, E.Explode, E.Posexplode, E.Unnest), "a function that makes several rows of one"),
    ((E.CurrentTimestamp, E.CurrentDate, E.CurrentTime), "the time of day"),
]
_ROW_WISE = "features.sql makes one row of each row, from that row alone"
_BEFORE_PARENTHESIS = {
    "select", "from", "as", "and", "or", "not", "in", "is", "like", "ilike", "rlike", "regexp", "between", "when",
    "then", "else", "case", "end", "on", "over", "by", "distinct", "any", "all", "some", "escape", "using", "where",
    "having", "order", "group", "limit", "decimal", "dec", "numeric", "char", "varchar", "interval", "div",
}  # fmt: skip
"""Words that are no function where a parenthesis follows."""


def check(config: Config, *, any_function: bool = False) -> None:
    """Check what can be checked of features.sql without Spark, so that most mistakes cost no time.

    With ``any_function`` a function need not be in the list, as long as it is row-wise and asks nothing of the machine.

    Raises:
        UserError: it is not one row-wise SELECT over raw, or uses a function that is not in the list.
    """
    sql, where = config.features_sql, config.folder / config.features.sql

    def refuse(problem: str) -> Exception:
        return config.mistake("features.sql", f"{where}: {problem}")

    try:
        statements = [s for s in sqlglot.parse(sql, read="spark") if not isinstance(s, E.Semicolon | None)]
    except SqlglotError as error:
        raise refuse(f"is not valid Spark SQL: {_first_paragraph(error)}") from None
    if len(statements) != 1 or not isinstance(statements[0], E.Select):
        given = " and ".join(_excerpt(s) for s in statements) or "an empty file"
        raise refuse(f"must be one SELECT … FROM raw, not {given}")
    for name, kind in _KINDS:
        if name in _functions(sql):
            raise refuse(f"'{name}()' is {kind}; {_ROW_WISE}")
    tokens = list(_tokens(sql))
    for dot, token, after in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if dot.token_type == TokenType.DOT and after.token_type == TokenType.L_PAREN:
            raise refuse(f"'.{token.text}()' is a function of a catalog, which a model cannot compute; {LIST}")
    texts = [token.text.lower() for token in tokens]
    if any(texts[i : i + 3] == ["unix_timestamp", "(", ")"] for i in range(len(texts))):
        raise refuse(f"'unix_timestamp()' without an argument is the time of day; {_ROW_WISE}")
    for node in statements[0].walk():
        for kinds, kind in _NOT_ROW_WISE:
            if isinstance(node, kinds):
                raise refuse(f"{_excerpt(node)} is {kind}; {_ROW_WISE}")
    tables = list(statements[0].find_all(E.Table))
    if [".".join(part.name for part in table.parts).lower() for table in tables] != ["raw"]:
        names = ", ".join(table.sql("spark") for table in tables) or "no table"
        raise refuse(f"must read FROM raw and nothing else, but reads {names}")
    for name in sorted(_functions(sql)):
        if name not in USAGES and not any_function:
            raise refuse(f"the function '{name}' is not allowed{nearest(name, sorted(USAGES))}; {LIST}")


def resolve(spark: SparkSession, config: Config) -> Resolved:
    """Return the trees that a packaged model runs: of the fields' texts, and of the features.

    Raises:
        UserError: Spark does not understand features.sql, or a feature uses something that is not in the list.
    """
    where = config.folder / config.features.sql
    schema = source_csv.source_schema(spark, config)
    readers = reading.readers(spark, config, schema)
    try:
        outputs = catalyst.resolve(spark, spark.createDataFrame([], schema), config.features_sql)
        # prepare.py reports a column that features.sql does not produce
        numeric = [f.column for f in config.features.numeric if f.column in outputs]
        categorical = [f.column for f in config.features.categorical if f.column in outputs]
        features = {name: _typed(outputs[name], "double") for name in numeric}
        features |= {name: _typed(outputs[name], "string") for name in categorical}
        for name, tree in features.items():
            _check_tree(name, tree)
        for name, tree in outputs.items():
            _check_listed(name, tree)
    except NotAllowed as problem:
        raise config.mistake("features.sql", f"{where}: {problem}; {LIST}") from None
    except PySparkException as error:
        raise config.mistake("features.sql", f"{where}: {sentence(error)}") from None
    except Py4JJavaError as error:
        if "StackOverflowError" not in str(error):
            raise
        deep = "an expression has so many nested parts that Spark cannot read it; use several columns"
        raise config.mistake("features.sql", f"{where}: {deep}") from None
    used = {str(n.value) for tree in features.values() for n in tree.walk() if n.op == COLUMN}
    kinds = {field.name: field.dataType.simpleString().upper() for field in schema.fields}
    raw = tuple(RawColumn(name, kinds[name], name in used, readers[name]) for name in schema.names)
    return Resolved(raw, features)


def check_packaged(spark: SparkSession, model: PackagedModel, trusted: bool) -> None:
    """Check a packaged model's features.sql before Spark sees it.

    A model of format 1 or 2 may use nothing that is not in the list, unless it is ``trusted``: its own code runs
    features.sql in DuckDB, and nobody has compared the two.

    Raises:
        UserError: it is not one row-wise SELECT, or uses what is not in the list.
    """
    check(model.config, any_function=trusted)
    if not model.spec.select or trusted:
        return
    try:
        if model.spec.former_options:
            options = ", ".join(f"source.options.{name}" for name in model.spec.former_options)
            raise UserError(f"{options} is not honoured any more")
        resolve(spark, model.config)
    except UserError as error:
        raise UserError(f"the model is of an older format, and Spark and its own code may differ: {error}") from None


def select_more(sql: str, *more: str) -> str:
    """Return features.sql with expressions of Spark SQL added to what it selects; its own text stays as it is."""
    tokens = list(_tokens(sql))
    depth, previous = 0, None
    for token in tokens:
        depth += {TokenType.L_PAREN: 1, TokenType.R_PAREN: -1}.get(token.token_type, 0)
        if token.token_type == TokenType.FROM and depth == 0 and previous != TokenType.DISTINCT:  # IS DISTINCT FROM
            return f"{sql[: token.start]}, {', '.join(more)} {_statement(sql[token.start :])}"
        previous = token.token_type
    raise ValueError("there is no FROM")  # check() has refused such a text


def _statement(sql: str) -> str:
    """Return the text without the semicolon that may end it, and without comments behind that."""
    last = [token for token in _tokens(sql) if token.token_type != TokenType.SEMICOLON][-1]
    return sql[: last.end + 1]


def _tokens(sql: str) -> Iterator[Token]:
    yield from sqlglot.tokenize(sql, read="spark")


def _functions(sql: str) -> set[str]:
    """Return the names of the functions that the text calls, in lower case."""
    tokens = list(_tokens(sql))
    names = set()
    for before, token, after in zip([None, *tokens], tokens, tokens[1:], strict=False):
        is_word = (
            token.text.replace("_", "").isalnum() and not token.text[0].isdigit() and sql[token.start] not in "'\""
        )
        is_name = before is not None and before.token_type in (TokenType.ALIAS, TokenType.DOT)
        if is_word and after.token_type == TokenType.L_PAREN and not is_name:
            names.add(token.text.lower())
    return names - _BEFORE_PARENTHESIS


def _typed(tree: Node, kind: str) -> Node:
    """Return the tree of an output in the type that the model takes."""
    return tree if tree.type == kind else Node("Cast", kind, (tree,), settings=(("evalMode", "LEGACY"),))


def _check_tree(name: str, tree: Node) -> None:
    try:
        Program({name: tree})
    except NotAllowed as problem:
        raise NotAllowed(f"'{name}' cannot be computed outside Spark as Spark does: {problem}") from None


def _check_listed(name: str, tree: Node) -> None:
    """Check an output that only Spark computes, such as the label: it must not depend on the day or the machine."""
    for node in tree.walk():
        if node.op not in (COLUMN, LITERAL, *ENTRIES):
            raise NotAllowed(f"'{name}': {node.op} is not in the list")


def _excerpt(node: E.Expr) -> str:
    text = " ".join(node.sql("spark", comments=False).split())
    return f"'{text if len(text) <= 60 else text[:59] + '…'}'"


def _first_paragraph(error: Exception) -> str:
    return one_line(str(error).split("\n\n")[0], limit=500)
