"""CSV into a DataFrame under the declared schema; records that do not fit it are counted and go to quarantine."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from pyspark.errors import AnalysisException, IllegalArgumentException, ParseException
from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructType

from pipeline.config import Config
from pipeline.data.manifest import SourceData
from pipeline.data.names import free
from pipeline.runtime.errors import UserError, nearest

_CORRUPT = "_corrupt_record"
_FILE = "_source_file"
_UNDECODED = "\ufffd"  # Java puts it in the place of bytes that it cannot decode
_MAX_COLUMNS = 2_000  # Spark plans two minutes for as many, and its time grows with their square


@dataclass(frozen=True)
class Records:
    """Every record of the source, good and bad."""

    frame: DataFrame
    """The declared columns, then `_corrupt_record`.

    `_corrupt_record` is NULL for a record that fits, else the raw record. A record that only a NUL character spoils is
    written anew from its fields, because Spark keeps the raw text of unparsable records only.
    """
    counts: Observation
    """`read` and `bad`, numbers of records; available after the first action on something made from `frame`."""
    corrupt: str = _CORRUPT
    """The name of the column `_corrupt_record`, which is another one if a declared column has this one."""

    def good(self) -> DataFrame:
        """Return the records that fit, with the declared columns only."""
        return self.frame.where(column(self.corrupt).isNull()).drop(self.corrupt)


def as_records(frame: DataFrame) -> Records:
    """Return typed rows as the records of a source in which every record fits."""
    corrupt = free(_CORRUPT, frame.columns)
    return Records(frame.withColumn(corrupt, F.lit(None).cast("string")), Observation(), corrupt)


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


def list_source(spark: SparkSession, config: Config) -> SourceData:
    """Return the files of `source.path` and a fingerprint of their names, lengths and times.

    Raises:
        UserError: there is no such file.
    """
    try:
        # binaryFile reads no content as long as the column `content` is not asked for
        files = spark.read.format("binaryFile").load(config.source_paths)
        files = files.select("path", "length", F.col("modificationTime").cast("double").alias("time"))
        listed = sorted((row.path, row.length, row.time) for row in files.collect())  # a line per file
    except AnalysisException as error:
        raise config.mistake("source.path", sentence(error)) from None
    if not listed:
        raise config.mistake("source.path", f"every file in {', '.join(config.source_paths)} is empty")
    digest = hashlib.sha256(repr(listed).encode()).hexdigest()
    size = sum(length for _, length, _ in listed)
    return SourceData(paths=config.source_paths, files=len(listed), bytes=size, fingerprint=digest)


def read_records(spark: SparkSession, config: Config, *more: Column) -> Records:
    """Return every record of the source, lazily; nothing is read yet.

    A record does not fit when it has more or fewer fields than the schema, a field that is not of its column's type,
    a NUL character, or bytes outside the encoding. (A NUL at either end of a floating-point field is white space to
    Java's number parser, so the number is read as it stands.)

    ``more``: columns to add, such as the record's file.
    """
    schema = source_schema(spark, config)
    corrupt = free(_CORRUPT, schema.names)
    with_corrupt = StructType([*schema.fields]).add(corrupt, StringType())
    options = {**config.source.reader_options, "mode": "PERMISSIVE", "columnNameOfCorruptRecord": corrupt}
    try:
        frame = spark.read.schema(with_corrupt).options(**options).csv(config.source_paths)
    except (AnalysisException, ValueError) as error:
        raise config.mistake("source", sentence(error)) from None
    declared = [column(name) for name in schema.names]
    garbled = F.when(_is_garbled(schema), F.to_csv(F.struct(*declared)))
    frame = frame.select(*declared, F.coalesce(column(corrupt), garbled).alias(corrupt), *more)
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
    return Records(counted, counts, corrupt)


def quarantine(spark: SparkSession, config: Config, folder: str) -> int:
    """Write the records that do not fit to ``folder`` as JSON lines {file, reason, record}; return how many.

    It reads the source a second time, so that a source without bad records takes no longer.
    """
    schema = source_schema(spark, config)
    is_hidden = "_metadata" in map(str.lower, schema.names)  # a declared column hides Spark's own
    file, path = free(_FILE, schema.names), F.input_file_name() if is_hidden else F.col("_metadata.file_path")
    records = read_records(spark, config, path.alias(file))
    bad = records.frame.where(column(records.corrupt).isNotNull())
    bad = bad.select(column(file).alias(_FILE), column(records.corrupt).alias(_CORRUPT))
    described = bad.select(
        F.col(_FILE).alias("file"), _reason(schema, config).alias("reason"), F.col(_CORRUPT).alias("record")
    )
    written = Observation()
    described.observe(written, F.count(F.lit(1)).alias("rows")).write.mode("overwrite").json(folder)
    return int(written.get["rows"])


def _reason(schema: StructType, config: Config) -> Column:
    """Return why a raw record does not fit: parse it again as strings and compare each field with its type."""
    file_options = ("header", "enforceschema", "multiline")
    options = {key: str(value) for key, value in config.source.reader_options.items() if key not in file_options}
    # positional names, because a name of the schema may clash with the extra field
    as_strings = ", ".join(f"c{i} STRING" for i in range(len(schema) + 1))
    text = F.from_csv(F.col(_CORRUPT), as_strings, options)
    options["columnNameOfCorruptRecord"] = free(_CORRUPT, schema.names)
    typed = F.from_csv(F.col(_CORRUPT), config.source.schema_, options)
    wrong_type = [
        F.when(
            text[f"c{i}"].isNotNull() & typed[f.name].isNull(),
            F.format_string(
                "%s: '%s' is not %s", F.lit(f.name), text[f"c{i}"], F.lit(f.dataType.simpleString().upper())
            ),
        )
        for i, f in enumerate(schema.fields)
    ]
    not_decoded = "holds bytes that are not of the file's encoding (source.options.encoding), or U+FFFD itself"
    return (
        F.when(F.contains(F.col(_CORRUPT), F.lit("\0")), F.lit("holds a NUL character"))
        .when(F.contains(F.col(_CORRUPT), F.lit(_UNDECODED)), F.lit(not_decoded))
        .when(text[f"c{len(schema)}"].isNotNull(), F.lit(f"more than the {len(schema)} declared fields"))
        .otherwise(F.coalesce(*wrong_type, F.lit(f"fewer than the {len(schema)} declared fields")))
    )


def _is_garbled(schema: StructType) -> Column:
    texts = [column(f.name) for f in schema.fields if isinstance(f.dataType, StringType)]
    if not texts:
        return F.lit(False)
    together = F.concat_ws("", *texts)
    return F.contains(together, F.lit("\0")) | F.contains(together, F.lit(_UNDECODED))


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
    files = spark.read.format("binaryFile").load(config.source_paths).select("path").limit(100)
    for row in files.toLocalIterator():
        try:
            spark.read.text(row.path).count()
        except Exception:  # each codec raises errors of its own
            return str(row.path)
    return None


def _header_mistake(match: re.Match[str]) -> str:
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
