"""Preparation in Spark SQL: the user's features.sql, the leak-free split and the encodings.

All but the search for `split.time`'s cuts is lazy: it builds one plan, and the pass of shards.py runs it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    BooleanType,
    ByteType,
    DataType,
    FloatType,
    IntegralType,
    NumericType,
    ShortType,
    StringType,
    StructType,
)

from pipeline.config import Config
from pipeline.data import catalyst, split
from pipeline.data.carried import carried_name, select_carrying
from pipeline.data.manifest import TimeCuts
from pipeline.data.names import CODE, stored_names
from pipeline.data.source_csv import column, read_records, sentence
from pipeline.data.split import SPLIT, Sides
from pipeline.runtime.errors import nearest

CARRIED = "_carried"
"""The column that holds what the caller lets each row carry; no stored name begins with an underscore."""

_KEY = "_split_key"

_LARGEST_FLOAT = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class TypedRows:
    """The result of features.sql in the types that the network needs."""

    frame: DataFrame
    """Features in their order, label, weight if any, `split`, under their names in the files; CARRIED, if wanted."""
    stored: dict[str, str]
    """The name in the files of each feature, of the label, and of the weight."""
    integer_label: bool
    """Whether features.sql produced the label as an integer or a boolean."""


def typed_rows(
    spark: SparkSession, config: Config, rows: DataFrame, sides: Sides, carried: Column | None = None
) -> TypedRows:
    """Return features.sql's result in the network's types, one row for each of ``rows``, with its split.

    Numeric columns are FLOAT if features.sql makes only values that float32 holds, else DOUBLE; a value that is not
    finite as float32 is NULL. Categorical columns and class labels are STRING.
    `split` is 'train', 'validation' or 'test' by ``sides``. It is NULL where the label is NULL, or a column that
    decides about the split, or a feature that a row must not lack. It depends on the values of the row only, however
    the rows are partitioned. The column CARRIED holds the value of ``carried``, an expression over ``rows``, if it is
    given.

    Raises:
        UserError: the SQL is wrong, or does not produce a column that the configuration names.
    """
    sql, kept = config.features_sql, None
    sql_file = config.folder / config.features.sql
    parts = {_KEY: sides.key(rows.schema), CARRIED: carried}
    wanted = [value.alias(name) for name, value in parts.items() if value is not None]
    try:
        if not wanted:
            result = catalyst.select(spark, rows, sql)
        else:
            name = carried_name(rows.columns, sql)
            result, kept = select_carrying(spark, sql, rows.withColumn(name, F.struct(*wanted)), name)
    except (AnalysisException, ParseException) as error:
        raise config.mistake("features.sql", f"{sql_file}: {sentence(error)}") from None
    _check_columns(config, result)

    stored, weight = stored_names(used_columns(config)), config.label.weight
    numbers = [f.column for f in config.features.numeric]
    numeric = [_finite(name, result.schema) for name in numbers]
    categorical = [column(f.column).cast("string") for f in config.features.categorical]
    if config.label.task == "regression":
        numbers.append(config.label.column)
        label = _finite(config.label.column, result.schema)
    else:
        label = _class_text(config, result)
    weights = [] if weight is None else [_finite(weight, result.schema).cast("float")]
    made = [*numeric, *categorical, label, *weights]
    named = [value.alias(name) for value, name in zip(made, stored.values(), strict=True)]
    along = [kept[name].alias(name) for name, value in parts.items() if kept is not None and value is not None]
    typed = result.select(*named, *along)

    key = None if parts[_KEY] is None else column(_KEY)
    values = {name: column(file) for name, file in stored.items()}
    needed = [values[name] for name in required_columns(config)] + ([] if key is None else [key])
    is_complete = F.coalesce(*[F.when(value.isNull(), F.lit(False)) for value in needed], F.lit(True))
    doubles = {n: values[n] for n in numbers if not isinstance(typed.schema[stored[n]].dataType, FloatType)}
    used = {n: value.cast("float") if n in doubles else value for n, value in values.items() if n != weight}
    side = F.when(is_complete, sides.split(key, used, doubles)).alias(SPLIT)
    return TypedRows(
        frame=typed.select("*", side).drop(_KEY),
        stored=stored,
        integer_label=_is_whole(result.schema[config.label.column].dataType),
    )


def used_columns(config: Config) -> list[str]:
    """Return the columns of features.sql that are used, in their order in the files: features, label, weight."""
    return [*config.feature_columns, *_beside_features(config)]


def required_columns(config: Config) -> list[str]:
    """Return the columns without which a row is dropped: some features, the label, and the weight."""
    return [*(f.column for f in config.features.all if f.missing in ("drop", "refuse")), *_beside_features(config)]


def _beside_features(config: Config) -> list[str]:
    return [config.label.column, *([config.label.weight] if config.label.weight is not None else [])]


def find_cuts(spark: SparkSession, config: Config, source_bytes: int) -> TimeCuts | None:
    """Return where `split.time` cuts the usable rows, which takes one more pass over the source, or two of a large one.

    Raises:
        UserError: there are too few different moments.
    """
    if not config.split.time:
        return None
    rows, uncut = read_records(spark, config, config.split.needed_columns).good(), Sides(config.split)
    typed = typed_rows(spark, config, rows, uncut, uncut.key(rows.schema))
    values = [column(name) for name in (*typed.stored.values(), CARRIED)]
    usable = typed.frame.where(F.col(SPLIT).isNotNull())
    usable = usable.select(column(CARRIED).alias("moment"), F.xxhash64(*values).alias("hash"))
    return split.find_cuts(spark, config, usable, source_bytes)


def class_texts(config: Config, typed: TypedRows, classes: list[str]) -> list[str]:
    """Return the label's text for each class: an integer label counts from 0 if `label.classes` names the classes."""
    if config.label.classes is not None and typed.integer_label:
        return [str(code) for code in range(len(classes))]
    return classes


def encode(
    spark: SparkSession, config: Config, typed: TypedRows, frame: DataFrame, values: dict[str, list[str]]
) -> DataFrame:
    """Replace each value of the columns in ``values`` by its position there, other values by the number of values.

    ``frame`` has the columns under their names in the files. A missing value stays NULL.
    """
    encoded, hashed = frame, {f.column for f in config.features.categorical if f.hash_buckets is not None}
    for feature, vocabulary in values.items():
        name = typed.stored[feature]
        others = [column(other) for other in encoded.columns if other != name]
        if feature in hashed:  # as in model/scorer.py
            code = F.pmod(F.crc32(F.encode(column(name), "UTF-8")), F.lit(len(vocabulary))).cast("bigint")
            encoded = encoded.select(*others, code.alias(name))
            continue
        # one JSON literal, not one literal per value: a vocabulary may hold 100,000 of them
        literal = F.from_json(F.lit(json.dumps(vocabulary)), "array<string>")
        codes = spark.range(1).select(F.posexplode(literal).alias(CODE, name))
        code = F.when(column(name).isNotNull(), F.coalesce(F.col(CODE), F.lit(len(vocabulary)))).cast("bigint")
        encoded = encoded.join(F.broadcast(codes), name, "left").select(*others, code.alias(name))
    return encoded.select(*[column(name) for name in frame.columns])


def _finite(name: str, schema: StructType) -> Column:
    # float32 holds every value of these types; whether it holds those of the others is known after the pass
    is_held = isinstance(schema[name].dataType, FloatType | ByteType | ShortType | BooleanType)
    number = column(name).cast("float")
    # NaN compares as larger than any number in Spark SQL
    is_finite = number.between(-_LARGEST_FLOAT, _LARGEST_FLOAT)
    return F.when(is_finite, number if is_held else column(name).cast("double"))


def _class_text(config: Config, result: DataFrame) -> Column:
    value = column(config.label.column)
    if isinstance(result.schema[config.label.column].dataType, BooleanType):
        value = value.cast("int")
    return value.cast("string")


def _is_whole(kind: DataType) -> bool:
    return isinstance(kind, IntegralType | BooleanType)


def _check_columns(config: Config, result: DataFrame) -> None:
    """Raise UserError unless features.sql produced every column that the configuration names, in a usable type."""
    numeric, categorical, sql = config.features.numeric, config.features.categorical, config.features.sql
    used = [
        *((f"features.numeric.{i}.column", f.column, "numeric") for i, f in enumerate(numeric)),
        *((f"features.categorical.{i}.column", f.column, "categorical") for i, f in enumerate(categorical)),
        ("label.column", config.label.column, "label"),
        *([("label.weight", config.label.weight, "numeric")] if config.label.weight is not None else []),
    ]
    lower = [name.lower() for name in result.columns]  # `a` and `A` are the same column for Spark
    for key, name, kind in used:
        if name not in result.columns or lower.count(name.lower()) != 1:
            times = "does not produce" if name not in result.columns else "produces more than once"
            raise config.mistake(key, f"{sql} {times} a column '{name}'{nearest(name, set(result.columns))}")
        data_type = result.schema[name].dataType
        type_name = data_type.simpleString().upper()
        wants_number = kind == "numeric" or (kind == "label" and config.label.task == "regression")
        if wants_number and not isinstance(data_type, NumericType | BooleanType):
            raise config.mistake(key, f"'{name}' is a {type_name}, not a number: CAST it in {sql}")
        if kind == "label" and not wants_number and not (_is_whole(data_type) or isinstance(data_type, StringType)):
            problem = f"'{name}' is a {type_name}; a class label is an integer or a string"
            raise config.mistake(key, f"{problem}: CAST it in {sql}, or set label.task: regression")
