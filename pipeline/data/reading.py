"""The value of a field's text: one expression of Spark SQL for each type, which Spark and packaged models both run.

| declared | what a text means |
|---|---|
| STRING | itself |
| TINYINT, SMALLINT, INT, BIGINT | a whole number within the type; a fraction may hold zeros only: `3.0` |
| FLOAT, DOUBLE | a number as Java reads it: `1.5`, `1e3`, `Infinity`; `NaN` is a missing value |
| DECIMAL(p,s) | a number with no more digits than the type holds |
| BOOLEAN | `true`, `t`, `yes`, `y`, `1` or `false`, `f`, `no`, `n`, `0`, in any case |
| DATE | `2021-03-05`, or by `source.options.dateFormat` |
| TIMESTAMP | `2021-03-05 10:11:12`, with a zone or in UTC, or by `source.options.timestampFormat` |

Blanks around a value are ignored, except in a STRING. An empty text, quoted or not, is a missing value, and so is the
text of `source.options.nullValue`. Any other text makes its record unfit.
"""

from __future__ import annotations

from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, StructType

from pipeline.config import Config
from pipeline.data import catalyst
from pipeline.model.dialect.entry import NotAllowed
from pipeline.model.dialect.program import Program
from pipeline.model.dialect.tree import Node, column
from pipeline.model.dialect.types import WHOLE, decimal_type
from pipeline.model.spec import TEXT

_TYPES = "STRING, TINYINT, SMALLINT, INT, BIGINT, FLOAT, DOUBLE, DECIMAL, BOOLEAN, DATE, TIMESTAMP"
_READ_BY_SPARK = {"float": "ReadFloat", "double": "ReadDouble"}
"""Types that Spark's CSV reader reads, because a second reading of each number costs a sixth of the preparation.

The packaged model runs an operation with the same result."""


def is_read_by_spark(kind: DataType) -> bool:
    """Tell whether Spark's CSV reader makes the values of this type."""
    return kind.simpleString() in _READ_BY_SPARK


def value_sql(text: str, kind: DataType, config: Config) -> str:
    """Return the expression of Spark SQL that reads ``text``, itself an expression; its result is NULL for a misfit."""
    name = kind.simpleString()
    options = config.source.reader_options
    if name == "string":
        return text
    if name in WHOLE:
        fraction = f"contains({text}, '.') AND NOT ({text} RLIKE '^[^.]*[.]0*\\\\s*$')"
        return f"CASE WHEN {fraction} THEN NULL ELSE CAST({text} AS {name}) END"
    if (precision_scale := decimal_type(name)) is not None:
        precision, scale = precision_scale
        # with all the digits that a DECIMAL can hold: equal unless the type cuts digits off
        exact = f"CAST({text} AS DECIMAL(38,{38 - precision + scale}))"
        return f"CASE WHEN {exact} = CAST({text} AS {name}) THEN CAST({text} AS {name}) END"
    if name == "date" and "dateformat" in options:
        return f"to_date({text}, {_quoted(str(options['dateformat']))})"
    if name == "timestamp" and "timestampformat" in options:
        return f"to_timestamp({text}, {_quoted(str(options['timestampformat']))})"
    if name == "timestamp":
        # a time of day alone would be one of today's
        return f"CASE WHEN {text} RLIKE '^[ ]*[+-]?[0-9]+(-|[ ]*$)' THEN CAST({text} AS TIMESTAMP) END"
    return f"CAST({text} AS {name})"


def text_of(value: Column, kind: DataType, config: Config) -> Column:
    """Return a text that is read as ``value``; a number of FLOAT or DOUBLE stays one."""
    if is_read_by_spark(kind):
        return value
    pattern = config.source.reader_options.get(
        {"date": "dateformat", "timestamp": "timestampformat"}.get(kind.simpleString(), "")
    )
    return F.date_format(value, str(pattern)) if pattern else value.cast("string")


def check_types(config: Config, schema: StructType) -> None:
    """Raise UserError for a declared type that a field of a CSV cannot be read as."""
    for field in schema.fields:
        name = field.dataType.simpleString()
        known = name in ("string", "boolean", "date", "timestamp", *WHOLE, *_READ_BY_SPARK) or decimal_type(name)
        if not known:
            problem = f"declares '{field.name}' as {name.upper()}; a field of a CSV can be {_TYPES}"
            raise config.mistake("source.schema", problem)


def readers(spark: SparkSession, config: Config, schema: StructType) -> dict[str, Node]:
    """Return for each declared column the tree that reads its value from the column TEXT.

    Raises:
        UserError: a pattern of `source.options` is not one that a model can read by.
    """
    check_types(config, schema)
    by_type: dict[str, Node] = {}
    for field in schema.fields:
        kind = field.dataType.simpleString()
        if kind not in by_type:
            by_type[kind] = _reader(spark, config, field.dataType)
    return {field.name: by_type[field.dataType.simpleString()] for field in schema.fields}


def _reader(spark: SparkSession, config: Config, data_type: DataType) -> Node:
    kind = data_type.simpleString()
    if kind in _READ_BY_SPARK:
        return Node(_READ_BY_SPARK[kind], kind, (column(TEXT, "string"),))
    try:
        texts = spark.createDataFrame([], f"{TEXT} STRING")
        sql = f"SELECT {value_sql(TEXT, data_type, config)} AS value FROM raw"
        tree = catalyst.resolve(spark, texts, sql)["value"]
        Program({TEXT: tree})
    except NotAllowed as problem:
        key = {"date": "source.options.dateFormat", "timestamp": "source.options.timestampFormat"}.get(kind)
        raise config.mistake(key or "source.schema", str(problem)) from None
    return tree


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
