"""Quarantine: the records that do not fit the schema, each with the reason."""

from __future__ import annotations

from pyspark.sql import Column, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from pipeline.config import Config
from pipeline.data import reading
from pipeline.data.source_csv import (
    CORRUPT,
    EXTRA,
    FILE,
    garbled,
    is_floating,
    line_options,
    read_csv,
    source_schema,
)
from pipeline.runtime.session import observed


def write_quarantine(spark: SparkSession, config: Config, folder: str) -> int:
    """Write the records that do not fit to ``folder`` as JSON lines {file, reason, record}; return how many.

    It reads the source a second time, so that a source without bad records takes no longer.
    """
    fields = source_schema(spark, config).fields
    # positional names, because a name of the schema may clash with one of ours
    names = [f"c{i}" for i in range(len(fields))]
    as_texts = StructType([StructField(name, StringType()) for name in [*names, CORRUPT]])
    # declared with a field more than they have, all records are unfit to Spark, which keeps the text of those only
    longer = StructType([*as_texts.fields[:-1], StructField(EXTRA, StringType()), as_texts.fields[-1]])
    frame = read_csv(spark, config, longer, enforceschema=True).withColumn(FILE, F.col("_metadata.file_path"))
    record = F.coalesce(F.col(CORRUPT), F.to_csv(F.struct(*names, EXTRA)))
    recounted = F.from_csv(
        record, as_texts.simpleString()[len("struct<") : -1].replace(":", " "), line_options(config, CORRUPT)
    )
    pairs = [*zip(names, fields, strict=True)]
    reasons = [F.when(_misfit(name, f, config), _is_not(name, f)) for name, f in pairs]
    reasons += [
        F.when(_is_missing(name, f), F.lit(f"{f.name} is missing, but decides about the split (split.{key})"))
        for key, needed in _needed(config).items()
        for name, f in pairs
        if f.name in needed
    ]
    texts = [F.col(n) for n, f in zip(names, fields, strict=True) if not is_floating(f)]
    reason = (
        F.when(F.col(EXTRA).isNotNull(), F.lit(f"more than the {len(fields)} declared fields"))
        .when(recounted[CORRUPT].isNotNull(), F.lit(f"fewer than the {len(fields)} declared fields"))
        .otherwise(F.coalesce(*[F.when(flaw, F.lit(text)) for text, flaw in garbled(texts).items()], *reasons))
    )
    frame = frame.select(F.col(FILE).alias("file"), reason.alias("reason"), record.alias("record"))
    written = Observation()
    described = frame.where(F.col("reason").isNotNull()).observe(written, F.count(F.lit(1)).alias("rows"))
    described.write.mode("overwrite").json(folder)
    return int(observed(written)["rows"])


def _needed(config: Config) -> dict[str, list[str]]:
    """Return the columns without which a record has no split, by the setting that names them."""
    split = config.split
    return {"group": split.group, "time": [split.time] if split.time else []}


def _is_missing(name: str, field: StructField) -> Column:
    """Tell whether a text is no value; to Spark's reader, NaN is a value."""
    text = F.col(name)
    return text.isNull() | F.isnan(text.cast("double")) if is_floating(field) else text.isNull()


def _misfit(name: str, field: StructField, config: Config) -> Column:
    """Tell whether a text is not of the field's type."""
    text = F.col(name)
    if not is_floating(field):
        return text.isNotNull() & F.expr(reading.value_sql(name, field.dataType, config)).isNull()
    # CAST also takes these words in other letters; Spark's CSV reader takes them as Java writes them
    word = F.regexp_replace(text, r"^[\x00-\x20]*[+-]?|[\x00-\x20]*$", "")  # what Java takes for blanks
    is_other_word = F.lower(word).isin("nan", "inf", "infinity") & ~word.isin("NaN", "Infinity")
    return text.isNotNull() & (text.cast(field.dataType).isNull() | is_other_word)


def _is_not(name: str, field: StructField) -> Column:
    kind = field.dataType.simpleString().upper()
    return F.format_string("%s: '%s' is not %s", F.lit(field.name), F.col(name), F.lit(kind))
