"""Preparation in Spark SQL: the user's features.sql, the leak-free split and the encodings.

Except for the vocabularies everything here is lazy: it builds one plan, and the pass of shards.py runs it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import Column, DataFrame, Row, SparkSession, Window
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
from pipeline.runtime.session import progress

CARRIED = "_carried"
"""The column that holds what the caller lets each row carry; no stored name begins with an underscore."""

_KEY = "_split_key"

_LARGEST_FLOAT = float(np.finfo(np.float32).max)
_FEW_VALUES = 10_000  # so many values reach the driver with their counts; of more, only those that are wanted
_MAX_CLASSES = 1_000  # each rank keeps a matrix of classes x classes


@dataclass(frozen=True)
class TypedRows:
    """The result of features.sql in the types that the network needs."""

    frame: DataFrame
    """Feature columns in their order, the label, `split`, under their names in the files; and CARRIED, if wanted."""
    stored: dict[str, str]
    """The name in the files of each feature and of the label."""
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

    stored = stored_names([*config.feature_columns, config.label.column])
    numbers = [f.column for f in config.features.numeric]
    numeric = [_finite(name, result.schema) for name in numbers]
    categorical = [column(f.column).cast("string") for f in config.features.categorical]
    if config.label.task == "regression":
        numbers.append(config.label.column)
        label = _finite(config.label.column, result.schema)
    else:
        label = _class_text(config, result)
    named = [value.alias(name) for value, name in zip([*numeric, *categorical, label], stored.values(), strict=True)]
    along = [kept[name].alias(name) for name, value in parts.items() if kept is not None and value is not None]
    typed = result.select(*named, *along)

    key = None if parts[_KEY] is None else column(_KEY)
    values = {name: column(file) for name, file in stored.items()}
    needed = [values[name] for name in required_columns(config)] + ([] if key is None else [key])
    is_complete = F.coalesce(*[F.when(value.isNull(), F.lit(False)) for value in needed], F.lit(True))
    doubles = {n: values[n] for n in numbers if not isinstance(typed.schema[stored[n]].dataType, FloatType)}
    used = {name: value.cast("float") if name in doubles else value for name, value in values.items()}
    side = F.when(is_complete, sides.split(key, used, doubles)).alias(SPLIT)
    return TypedRows(
        frame=typed.select("*", side).drop(_KEY),
        stored=stored,
        integer_label=_is_whole(result.schema[config.label.column].dataType),
    )


def required_columns(config: Config) -> list[str]:
    """Return the columns without which a row is dropped: some features, and the label."""
    return [*(f.column for f in config.features.all if f.missing in ("drop", "refuse")), config.label.column]


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


def vocabularies(spark: SparkSession, config: Config, typed: TypedRows, sides: Sides) -> dict[str, list[str]]:
    """Return the values of each categorical feature, and of a class label, in the order of their codes.

    Values come from the configuration where it lists them. Else they take one pass over the source, or two if there are
    more than 10,000 different ones: a feature's values come from the training rows by ``sides``, the label's from all
    rows. A hashed feature has buckets instead.

    Raises:
        UserError: a column has no value, or the label has too many to be classes.
    """
    features = config.features.categorical
    values = {f.column: _sorted_values(set(f.values)) for f in features if f.values is not None}
    values |= {f.column: [f"bucket {i}" for i in range(f.hash_buckets)] for f in features if f.hash_buckets is not None}
    wanted = {f.column: _Wanted(f.fewest_rows, f.max_values) for f in features if f.column not in values}
    label = config.label.column
    if config.label.classes is not None:
        values[label] = class_texts(config, typed, config.label.classes)
    elif config.label.task == "classification":
        wanted[label] = _Wanted(1, _MAX_CLASSES + 1)
    if wanted:
        with progress(spark, f"collecting the values of {', '.join(wanted)}"):
            values |= _collect_values(spark, config, wanted, sides)
    if label in wanted and not values[label]:
        problem = f"'{label}' has no value in any usable row: all were quarantined, or lack a column that is used"
        raise config.mistake("label.column", problem)
    if len(values.get(label, [])) > _MAX_CLASSES:
        problem = f"'{label}' has more than {_MAX_CLASSES:,} different values, too many to be classes"
        raise config.mistake("label.column", f"{problem}; if it is a number, set label.task: regression")
    return values


def class_texts(config: Config, typed: TypedRows, classes: list[str]) -> list[str]:
    """Return the label's text for each class: an integer label counts from 0 if `label.classes` names the classes."""
    if config.label.classes is not None and typed.integer_label:
        return [str(code) for code in range(len(classes))]
    return classes


@dataclass(frozen=True)
class _Wanted:
    """Which values of a column are collected: those of so many rows, and of them the most frequent ones."""

    min_count: int
    max_values: int


def _collect_values(
    spark: SparkSession, config: Config, wanted: dict[str, _Wanted], sides: Sides
) -> dict[str, list[str]]:
    """Return the sorted values of the columns; Spark counts them, and only those that are wanted reach the driver."""
    # This pass has rows of its own, that count nothing: when an executor is lost, its tasks run twice.
    records = read_records(spark, config, sides.settings.needed_columns)
    typed = typed_rows(spark, config, records.good(), sides)

    def pair(place: int, name: str) -> Column:
        is_counted = F.col(SPLIT).isNotNull() if name == config.label.column else F.col(SPLIT) == "train"
        value = column(typed.stored[name])
        return F.when(is_counted & value.isNotNull(), F.struct(F.lit(place).alias("place"), value.alias("value")))

    pairs = F.explode(F.array(*[pair(i, name) for i, name in enumerate(wanted)])).alias("pair")
    counts = typed.frame.select(pairs).where("pair IS NOT NULL").groupBy("pair").agg(F.count(F.lit(1)).alias("rows"))
    flat = counts.select("pair.place", "pair.value", "rows")
    rows = flat.limit(_FEW_VALUES + 1).collect()
    if len(rows) > _FEW_VALUES:
        rows = _most_frequent(flat, wanted)
    found: dict[str, list[str]] = {}
    for place, (name, limit) in enumerate(wanted.items()):
        of_column = [row for row in rows if row.place == place and row.rows >= limit.min_count]
        of_column.sort(key=lambda row: (-row.rows, row.value))
        found[name] = _sorted_values(row.value for row in of_column[: limit.max_values])
    return found


def _most_frequent(counts: DataFrame, wanted: dict[str, _Wanted]) -> list[Row]:
    """Return the values that are wanted of many, ranked by Spark: at most `max_values` of each column.

    ``counts`` has place, value and rows.
    """
    limits = [
        F.when(F.col("place") == i, F.lit(getattr(limit, key)))
        for key in ("min_count", "max_values")
        for i, limit in enumerate(wanted.values())
    ]
    fewest, most = (F.coalesce(*part) for part in (limits[: len(wanted)], limits[len(wanted) :]))
    by_rows = Window.partitionBy("place").orderBy(F.col("rows").desc(), "value")
    ranked = counts.where(F.col("rows") >= fewest).withColumn("rank", F.row_number().over(by_rows))
    return ranked.where(F.col("rank") <= most).collect()


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


def _sorted_values(values: Iterable[str]) -> list[str]:
    """Sort as numbers when all are whole numbers (2 before 10), else as text."""
    values = list(values)
    try:
        return sorted(values, key=lambda value: (int(value), value))
    except ValueError:
        return sorted(values)


def _check_columns(config: Config, result: DataFrame) -> None:
    """Raise UserError unless features.sql produced every column that the configuration names, in a usable type."""
    numeric, categorical, sql = config.features.numeric, config.features.categorical, config.features.sql
    used = [
        *((f"features.numeric.{i}.column", f.column, "numeric") for i, f in enumerate(numeric)),
        *((f"features.categorical.{i}.column", f.column, "categorical") for i, f in enumerate(categorical)),
        ("label.column", config.label.column, "label"),
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
