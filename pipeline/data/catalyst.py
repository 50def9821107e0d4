"""Spark's own reading of features.sql: the analyzed plan as trees of :class:`pipeline.model.dialect.tree.Node`.

Spark's analyzer resolves names, picks overloads and makes implicit casts explicit. The trees that come out mean the
same wherever they run, so nothing of SQL has to be interpreted a second time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from pipeline.data.zone_rules import zone_rules
from pipeline.model.dialect import decimals
from pipeline.model.dialect.entry import NotAllowed
from pipeline.model.dialect.tree import LITERAL, Node, column, literal
from pipeline.model.dialect.zones import RULES

_TRANSPARENT = {"SubqueryAlias", "View", "ResolvedHint"}
_ROW_WISE = "features.sql makes one row of each row, from that row alone"
_SETTINGS = {
    "Like": ("escapeChar",), "Cast": ("evalMode",), "TimestampDiff": ("unit",), "TimestampAdd": ("unit",),
    "Size": ("legacySizeOfNull",),
}  # fmt: skip
"""What the result of a class depends on beside its arguments: the getters of the class."""
_OF_ZONES = ("FromUTCTimestamp", "ToUTCTimestamp")
_PRODUCT = "CAST('327786891030513983090330.5080034905' AS DECIMAL(38,10)) * CAST('7232252.53' AS DECIMAL(38,2))"
"""Exactly 2370637571956269061405420035044.4294174…; Spark before 3.5.1 says …418."""
_TWO_RESULTS = (
    "CAST(BIGINT AS TIMESTAMP) is not allowed in this version of Spark: beyond what a TIMESTAMP holds it gives one "
    "result with generated code and another without; write CAST(CAST(a AS DOUBLE) AS TIMESTAMP)"
)
_EVALUATION_MODE = ("Add", "Subtract", "Multiply", "Divide", "IntegralDivide", "Remainder", "Pmod")
_FAIL_ON_ERROR = ("UnaryMinus", "Abs", "GetArrayItem", "ElementAt", "MakeDate", "NextDay", "Unhex", "UnBase64")


_VIEW = threading.Lock()


def select(spark: SparkSession, rows: DataFrame, sql: str) -> DataFrame:
    """Return the SELECT ``sql`` over ``rows``, which it calls `raw`.

    Jobs that share a session, in threads, share its views: each has the view to itself until Spark has read the SELECT.

    Raises:
        PySparkException: Spark does not understand the SELECT.
    """
    with _VIEW:
        rows.createOrReplaceTempView("raw")
        return spark.sql(sql)


def resolve(spark: SparkSession, rows: DataFrame, sql: str) -> dict[str, Node]:
    """Return the trees of a SELECT over ``rows``, by output name; equal names get the last tree.

    Raises:
        NotAllowed: the plan does more than make one row of each row.
        PySparkException: Spark does not understand the SELECT.
    """
    plan = select(spark, rows, sql)._jdf.queryExecution().analyzed()
    try:
        return dict(_Reader(spark).outputs(plan))
    except RecursionError:
        raise NotAllowed("an expression of so many nested parts is not allowed; use several columns") from None


class _Reader:
    """Reads plans and expressions of the JVM."""

    def __init__(self, spark: SparkSession) -> None:
        jvm: Any = spark._jvm
        self._spark, self._jvm = spark, jvm
        self._replaceable = jvm.java.lang.Class.forName(
            "org.apache.spark.sql.catalyst.expressions.RuntimeReplaceable", True,
            jvm.java.lang.Thread.currentThread().getContextClassLoader(),
        )  # fmt: skip

    @cached_property
    def _rounds_decimals_first(self) -> bool:
        """Whether this Spark rounds products and quotients to 38 digits before those of their type (SPARK-45786)."""
        (answer,) = self._spark.sql(f"SELECT CAST({_PRODUCT} AS STRING)").collect()
        return str(answer[0]).endswith("8")

    @cached_property
    def _wraps_seconds(self) -> bool:
        """Whether this Spark's generated code wraps around where seconds are beyond a TIMESTAMP, as 3.5.0's does."""
        beyond = "CAST(id + 9223372036854775807 AS TIMESTAMP) < CAST(id AS TIMESTAMP)"
        (answer,) = self._spark.range(1).selectExpr(beyond).collect()
        return bool(answer[0])

    def outputs(self, plan: Any) -> Iterator[tuple[str, Node]]:
        """Yield name and tree of each column of a plan over `raw`."""
        trees = self._trees(plan)
        for attribute in _items(plan.output()):
            yield attribute.name(), trees[_id(attribute)]

    def _trees(self, plan: Any) -> dict[str, Node]:
        """Return the tree of each column of the plan by the column's id."""
        kind = plan.getClass().getSimpleName()
        children = list(_items(plan.children()))
        if kind == "Project":
            below = self._trees(children[0])
            return {_id(named): self._node(named, below) for named in _items(plan.projectList())}
        if kind in _TRANSPARENT:
            # a view gives the columns of its plan, each under an id of its own
            below = self._trees(children[0])
            inner = _items(children[0].output())
            return {_id(new): below[_id(old)] for new, old in zip(_items(plan.output()), inner, strict=True)}
        if not children:
            return {_id(a): column(a.name(), a.dataType().catalogString()) for a in _items(plan.output())}
        raise NotAllowed(f"{kind} is not a choice of columns; {_ROW_WISE}")

    def _node(self, expression: Any, below: Mapping[str, Node]) -> Node:
        name = str(expression.getClass().getSimpleName())
        if self._replaceable.isInstance(expression):
            return self._node(expression.replacement(), below)
        if name == "AttributeReference":
            return below[_id(expression)]
        if name in ("Alias", "KnownNullable", "KnownNotNull", "KnownFloatingPointNormalized"):
            return self._node(expression.child(), below)
        kind = expression.dataType().catalogString()
        if name == "Literal":
            return literal(_literal(expression.value(), kind), kind)
        settings = tuple((key, str(getattr(expression, key)())) for key in _SETTINGS.get(name, ()))
        if name in _EVALUATION_MODE and str(expression.evalMode()) != "LEGACY":
            raise NotAllowed(f"{expression.prettyName()} is not allowed here")
        if name in _FAIL_ON_ERROR and expression.failOnError():
            raise NotAllowed(f"{expression.prettyName()} is not allowed here")
        if name == "UnaryMinus" and kind.startswith("interval") and _is_literal(expression.child()):
            return literal(-expression.child().value(), kind)
        if name in ("Multiply", "Divide") and kind.startswith("decimal") and self._rounds_decimals_first:
            settings = ((decimals.ROUNDED_FIRST, "38"),)
        arguments = tuple(self._node(child, below) for child in _items(expression.children()))
        if name == "Cast" and kind == "timestamp" and arguments[0].type == "bigint" and self._wraps_seconds:
            raise NotAllowed(_TWO_RESULTS)
        if name in _OF_ZONES and arguments[1].op == LITERAL and arguments[1].value is not None:
            settings = ((RULES, zone_rules(self._jvm, arguments[1].value)),)
        if name == "Cast" and _is_skipped(arguments[0], kind):
            arguments = arguments[0].arguments
        return Node(name, kind, arguments, settings=settings)


def _is_literal(expression: Any) -> bool:
    return str(expression.getClass().getSimpleName()) == "Literal"


_WIDENING = ("tinyint", "smallint", "int", "bigint", "float", "double")


def _is_skipped(inner: Node, kind: str) -> bool:
    """Tell whether Spark leaves out the inner one of two casts, because it takes each for a widening one.

    It does so for BIGINT to FLOAT to DOUBLE, too, where the result is another one (rule SimplifyCasts).
    """
    if inner.op != "Cast":
        return False
    places = [_WIDENING.index(k) if k in _WIDENING else -1 for k in (inner.arguments[0].type, inner.type, kind)]
    return -1 not in places and places[0] < places[1] < places[2]


def _id(attribute: Any) -> str:
    return str(attribute.exprId().toString())


def _items(sequence: Any) -> Iterator[Any]:
    """Yield the items of a Scala sequence."""
    iterator = sequence.iterator()
    while iterator.hasNext():
        yield iterator.next()


def _literal(value: Any, kind: str) -> Any:
    """Return a literal's value as JSON holds it."""
    if value is None or isinstance(value, bool | int):  # a date is its days, a timestamp and an interval microseconds
        return value
    if kind in ("float", "double"):
        return repr(float(value))
    if kind == "binary":
        return bytes(value).hex()
    if kind.startswith("array<"):
        inner = kind[len("array<") : -1]
        return tuple(_literal(item, inner) for item in value.array())
    return str(value.toString()) if not isinstance(value, str) else value
