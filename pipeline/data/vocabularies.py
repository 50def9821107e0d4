"""The values of each categorical feature, and the classes of the label: counted by Spark over the training rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Row, SparkSession, Window
from pyspark.sql import functions as F

from pipeline.config import Config
from pipeline.data.prepare import TypedRows, class_texts, typed_rows
from pipeline.data.source_csv import column, read_records
from pipeline.data.split import SPLIT, Sides
from pipeline.runtime.session import progress

_FEW_VALUES = 10_000  # so many values reach the driver with their counts; of more, only those that are wanted
_MAX_CLASSES = 1_000  # each rank keeps a matrix of classes x classes


def find_vocabularies(spark: SparkSession, config: Config, typed: TypedRows, sides: Sides) -> dict[str, list[str]]:
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


def _sorted_values(values: Iterable[str]) -> list[str]:
    """Sort as numbers when all are whole numbers (2 before 10), else as text."""
    values = list(values)
    try:
        return sorted(values, key=lambda value: (int(value), value))
    except ValueError:
        return sorted(values)
