"""CSV into a DataFrame under the declared schema; records that do not fit it are counted and go to quarantine."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.errors import AnalysisException, IllegalArgumentException, ParseException
from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from pipeline.config import Config
from pipeline.data import reading
from pipeline.data.names import free
from pipeline.runtime import storage
from pipeline.runtime.errors import UserError, nearest

CORRUPT = "_corrupt_record"
EXTRA = "_extra_field"
FILE = "_source_file"
_OF_FILES = (
    "header",
    "enforceschema",
    "multiline",
    "recursivefilelookup",
    "pathglobfilter",
    "modifiedbefore",
    "modifiedafter",
)
"""Options that files depend on, not a record by itself."""
_VALUES = ("dateformat", "timestampformat")
"""Options that the expressions of reading.py honour."""
_TEXTS = "_texts"
_UNDECODED = "\ufffd"  # Java puts it in the place of bytes that it cannot decode
_MAX_COLUMNS = 2_000  # Spark plans two minutes for as many, and its time grows with their square


@dataclass(frozen=True)
class Records:
    """Every record of the source, good and bad."""

    frame: DataFrame
    """The declared columns, `_texts`, and `_corrupt_record`, which is NULL for a record that fits.

    `_texts` holds a record's fields as they stand in the file, without those that Spark's reader reads as numbers. (If
    it reads all, a field `none` stands in for them: a struct must have one.)
    """
    counts: Observation
    """`read` and `bad`, numbers of records; available after the first action on something made from `frame`."""
    corrupt: str
    """The name of the column `_corrupt_record`, which is another one if a declared column has this one."""
    texts: str
    """The name of the column `_texts`, likewise."""
    fields: tuple[StructField, ...]
    """The declared columns."""

    def good(self, with_texts: bool = False) -> DataFrame:
        """Return the records that fit: the declared columns, and the column of texts if wanted."""
        unwanted = [self.corrupt] if with_texts else [self.corrupt, self.texts]
        return self.frame.where(column(self.corrupt).isNull()).drop(*unwanted)

    def text_of(self, field: StructField) -> Column:
        """Return a field as it stands in the file (FLOAT and DOUBLE as numbers), of the records with texts."""
        return column(field.name) if is_floating(field) else column(self.texts)[field.name]


def paths(config: Config) -> list[str]:
    """Return `source.path` for Spark's readers."""
    return [storage.as_spark_reads(path) for path in config.source_paths]


def source_schema(spark: SparkSession, config: Config) -> StructType:
    """Return `source.schema` as Spark types. Raises UserError when it is not valid DDL or names a column twice."""
    try:
        schema = spark.createDataFrame([], config.source.schema_).schema
    except ParseException as error:
        raise config.mistake("source.schema", f"is not valid Spark DDL: {sentence(error)}") from None
    if len(schema) > _MAX_COLUMNS:
        problem = f"declares {len(schema)} columns; with more than {_MAX_COLUMNS} Spark plans for hours"
        raise config.mistake("source.schema", f"{problem}: leave out what features.sql does not use")
    lower = [name.lower() for name in schema.names]
    for name in schema.names:
        if lower.count(name.lower()) > 1:
            raise config.mistake("source.schema", f"names column '{name}' twice (Spark ignores upper and lower case)")
    return schema


def read_records(spark: SparkSession, config: Config, needed: Sequence[str] = ()) -> Records:
    """Return every record of the source, lazily; nothing is read yet.

    A record that has no value in a column of ``needed`` does not fit either.

    Spark's reader splits the records into texts (numbers of FLOAT and DOUBLE columns it reads itself); the expressions
    of reading.py make the values. A record does not fit when it has more or fewer fields than the schema, a text that
    is not of its column's type, a NUL character, or bytes outside the encoding. (A NUL at either end of a
    floating-point field is white space to Java's number parser, so the number is read as it stands.)
    """
    schema = source_schema(spark, config)
    reading.check_types(config, schema)
    fields, names = schema.fields, schema.names
    corrupt, texts = free(CORRUPT, names), free(_TEXTS, names, config.features_sql)
    frame = read_csv(spark, config, StructType([*_as_read(fields), StructField(corrupt, StringType())]))
    frame = frame.select(*_values(fields, config, texts), column(corrupt))
    declared = [column(name) for name in names]
    text_of = {f.name: column(texts)[f.name] for f in fields if not is_floating(f)}
    misfit = [
        text_of[f.name].isNotNull() & column(f.name).isNull() for f in fields if f.name in text_of and not _is_text(f)
    ]
    lacking = [column(name).isNull() for name in needed]
    flaws = [F.when(is_flaw, F.lit("")) for is_flaw in (*misfit, *lacking, *garbled([*text_of.values()]).values())]
    frame = frame.select(*declared, column(texts), F.coalesce(column(corrupt), *flaws).alias(corrupt))
    counts = Observation()
    # Naming every column makes Spark convert every column: else "abc" in an unused DOUBLE goes unnoticed. In most rows
    # the search for a value ends at the first column; a count of each column would cost as much as parsing it.
    any_value = F.coalesce(*[F.when(name.isNotNull(), F.lit(1)) for name in declared])
    counted = frame.observe(
        counts,
        F.count(F.lit(1)).alias("read"),
        F.count(column(corrupt)).alias("bad"),
        F.count(any_value).alias("filled"),
    )
    return Records(counted, counts, corrupt, texts, tuple(fields))


def records_of_texts(spark: SparkSession, config: Config, rows: list[dict[str, Any]]) -> Records:
    """Return records whose fields are given: texts, or numbers for FLOAT and DOUBLE; all are taken to fit."""
    fields = source_schema(spark, config).fields
    given = [tuple(_number(row.get(f.name)) if is_floating(f) else row.get(f.name) for f in fields) for row in rows]
    names = [f.name for f in fields]
    corrupt, texts = free(CORRUPT, names), free(_TEXTS, names, config.features_sql)
    frame = spark.createDataFrame(given, StructType(_as_read(fields))).select(*_values(fields, config, texts))
    return Records(frame.withColumn(corrupt, F.lit(None).cast("string")), Observation(), corrupt, texts, tuple(fields))


def _as_read(fields: list[StructField]) -> list[StructField]:
    """Return the fields as Spark's reader reads them."""
    return [StructField(f.name, f.dataType if is_floating(f) else StringType()) for f in fields]


def _values(fields: list[StructField], config: Config, texts: str) -> list[Column]:
    """Return the value of each field, and their texts as the column ``texts``."""
    values = [_value(quoted(f.name), f, config).alias(f.name) for f in fields]
    texts_only = [column(f.name) for f in fields if not is_floating(f)]
    return [*values, F.struct(*(texts_only or [F.lit(None).alias("none")])).alias(texts)]


def is_floating(field: StructField) -> bool:
    """Tell whether Spark's reader makes the field's value, so that its text is not kept."""
    return reading.is_read_by_spark(field.dataType)


def _number(value: Any) -> float | None:
    """Return a number that may have come through JSON, which holds NaN and infinities as text."""
    return None if value is None else float(value)


def read_csv(spark: SparkSession, config: Config, schema: StructType, **more: bool) -> DataFrame:
    """Read the source under a schema whose last column takes the text of records that do not fit it."""
    options = {**line_options(config, schema.names[-1]), "header": config.source.reader_options["header"], **more}
    options |= {key: v for key, v in config.source.reader_options.items() if key not in options and key not in _VALUES}
    try:
        return spark.read.schema(schema).options(**options).csv(paths(config))
    except (AnalysisException, ValueError) as error:
        raise config.mistake("source", sentence(error)) from None


def line_options(config: Config, corrupt: str) -> dict[str, str]:
    """Return the options of Spark's CSV reader that a single record depends on; ``corrupt`` takes unfit ones."""
    given = config.source.reader_options
    marker = config.source.null_value
    own = {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": corrupt, "nullvalue": marker, "emptyvalue": marker}
    own |= {"nanValue": "NaN", "positiveInf": "Infinity", "negativeInf": "-Infinity"}
    return {**{key: str(v) for key, v in given.items() if key not in (*_OF_FILES, *_VALUES)}, **own}


def _value(text: str, field: StructField, config: Config) -> Column:
    """Return the value of a column that the reader has read as text, or as a number where Spark reads it itself."""
    if is_floating(field):
        return F.nanvl(F.expr(text), F.lit(None).cast(field.dataType))  # NaN is a missing value
    return F.expr(reading.value_sql(text, field.dataType, config))


def _is_text(field: StructField) -> bool:
    return isinstance(field.dataType, StringType)


def garbled(texts: list[Column]) -> dict[str, Column]:
    """Return what may be wrong with a record's characters: a sentence, and whether it is so."""
    if not texts:
        return {}
    together = F.concat_ws("", *texts)
    return {
        "holds a NUL character": F.contains(together, F.lit("\0")),
        "holds bytes that are not of the file's encoding (source.options.encoding), or U+FFFD itself": F.contains(
            together, F.lit(_UNDECODED)
        ),
    }


def column(name: str) -> Column:
    """Return the column of exactly this name, with any characters in it."""
    return F.col(quoted(name))


def quoted(name: str) -> str:
    """Return a name as an identifier of Spark SQL."""
    return "`" + name.replace("`", "``") + "`"


def sentence(error: Exception) -> str:
    """Return a Spark exception's message in one line, without its plan or stack."""
    text = str(getattr(error, "desc", None) or error)
    text = text.split("== SQL ==")[0].split(";\n")[0]
    return re.sub(r"\[[A-Z_.]+\] ?", "", " ".join(text.split())).rstrip(". ")


def source_mistake(spark: SparkSession, config: Config, error: Exception) -> UserError | None:
    """Return the user's error behind a failed Spark job: a header or option that does not fit, a damaged file."""
    text = str(error)
    if re.search(_UNPACKING_FAILED, text) and (damaged := _damaged_file(spark, config)):
        return config.mistake("source.path", f"{damaged} is cut off or damaged: it cannot be unpacked to its end")
    if isinstance(error, IllegalArgumentException):
        return config.mistake("source.options", sentence(error))
    for pattern, key, problem in _JAVA_MISTAKES:
        if match := re.search(pattern, text):
            return config.mistake(key, problem(match))
    return None


def _damaged_file(spark: SparkSession, config: Config) -> str | None:
    """Return the first of the (first 100) files that cannot be read to its end."""
    files = spark.read.format("binaryFile").load(paths(config)).select("path").limit(100)
    for row in files.toLocalIterator():
        try:
            spark.read.text(row.path).count()
        except Exception:  # each codec raises errors of its own
            return str(row.path)
    return None


def _header_mistake(match: re.Match[str]) -> str:
    if "\0" in match["header"] or match["header"].startswith(_UNDECODED):
        problem = f"{match['file']} is not in the encoding that source.options.encoding says (UTF-8 unless given)"
        return f"{problem}; with the encoding UTF-16 or latin1, say, set it there"
    if not match["header"]:
        problem = f"{match['file']} has a column without a name where source.schema has '{match['expected']}'"
        remedy = "write it with index=False, or declare a name for it and set source.options.enforceSchema to true"
        return f"{problem} (pandas writes its index so): {remedy}"
    declared = match["schema"].split(", ")
    hint = "; the columns are in another order" if match["header"] in declared else nearest(match["header"], declared)
    return f"{match['file']} has the header '{match['header']}' where source.schema has '{match['expected']}'{hint}"


_UNPACKING_FAILED = r"java.io.EOFException|not a gzip file|gzip stream|hadoop.io.compress|java.util.zip"

_JAVA_MISTAKES: tuple[tuple[str, str, Callable[[re.Match[str]], str]], ...] = (
    (
        r"Unsupported(?:Charset|Encoding)Exception: (\S+)",
        "source.options.encoding",
        lambda match: f"'{match[1]}' is not an encoding that Java knows",
    ),
    (
        r"(?s)\A(?=.*UnivocityParser\.<init>).*?IllegalArgumentException: ([^\n]*)",
        "source.options",
        lambda match: match[1],
    ),
    (
        r"Schema: (?P<schema>.*)\n(?s:.*?)Expected: (?P<expected>.*?) but found: (?P<header>.*)\n"
        r"(?s:.*?)CSV file: (?P<file>\S+)",
        "source.schema",
        _header_mistake,
    ),
    (
        r"Header length: (\d+), schema size: (\d+)(?s:.*?)CSV file: (\S+)",
        "source.schema",
        lambda match: f"{match[3]} has a header of {match[1]} columns, but the schema declares {match[2]}",
    ),
)
"""Messages of Java in a failed Spark job: the pattern, the wrong setting, and a function that names the problem."""
