"""Parity: a packaged model makes the same features of the fields' texts as Spark has made.

The pass that writes the prepared data also collects a sample of the source: rows chosen by a hash of their number, each
with the texts and the features that Spark has made of them. Rows that hold the extremes of each column that an
expression computes with are added. The sample is kept beside the data, so that a training that reuses them compares,
too.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from pipeline.config import Config
from pipeline.data import prepare, reading, source_csv
from pipeline.data.manifest import SourceData
from pipeline.data.names import free
from pipeline.data.prepare import CARRIED, TypedRows
from pipeline.data.source_csv import Records, column
from pipeline.data.specs import Resolved, missing_texts
from pipeline.data.split import Sides
from pipeline.model.dialect.entry import ENTRIES
from pipeline.model.dialect.tree import COLUMN, LITERAL, Node
from pipeline.model.features import RawFeatures
from pipeline.runtime.console import log
from pipeline.runtime.session import observed
from pipeline.runtime.storage import Folder

FILE_NAME = "parity.json.gz"
ENOUGH = 10_000
"""So many rows are compared, or all."""
_AIM = 15_000  # more than enough, because the number of rows is estimated
_PACKED = (".gz", ".bz2", ".zst", ".deflate", ".lz4", ".snappy")
_PACKED_TO = 3  # a compressed CSV has at least so many times its bytes; with fewer rows than estimated, a pass is lost
_BUCKETS = 1_000_000
_BUDGET = 128 * 2**20  # bytes that the sample may take in the driver
_NAME_BYTES = 40  # of a text and a feature: their names and the signs around them
_FIRST_LINES = 1_000
_OF_LINES = ("linesep", "pathglobfilter", "recursivefilelookup", "modifiedbefore", "modifiedafter")


@dataclass(frozen=True)
class Estimate:
    """About how much the source holds."""

    rows: int
    row_bytes: int
    """Of a record with its features in the sample."""

    @property
    def wanted(self) -> int:
        """How many rows the sample aims at: fewer than usual where the driver could not hold so many long ones."""
        return max(100, min(_AIM, _BUDGET // self.row_bytes))


def estimate(spark: SparkSession, config: Config, resolved: Resolved, source: SourceData) -> Estimate:
    """Return about how much the source holds, from its first lines; if nothing is compared, no line is read."""
    features = compared(resolved)
    if not features:
        return Estimate(source.bytes, 1)
    options = {key: value for key, value in config.source.reader_options.items() if key in _OF_LINES}
    lines = spark.read.options(**options).text(source_csv.paths(config))
    packed = any(name.endswith(_PACKED) for name in lines.inputFiles())
    length = F.length("value").alias("length")
    first = [row.length + 1 for row in lines.limit(_FIRST_LINES).select(length).collect()]
    mean = max(1, sum(first)) / max(1, len(first))
    rows = max(1, round(source.bytes * (_PACKED_TO if packed else 1) / mean))
    return Estimate(rows, round(2 * mean + _NAME_BYTES * (len(_used(features)) + len(features))))


class Sampling:
    """A sample that is taken while the prepared data are made: records' texts, and the features that Spark makes."""

    def __init__(self, config: Config, resolved: Resolved, records: Records, size: Estimate) -> None:
        """Choose the rows.

        Where there are more rows than estimated, each task takes fewer and fewer: of its n rows at most about
        wanted · (1 + ln(n / wanted)).
        """
        self._config, self._resolved, self._records, self._size = config, resolved, records, size
        self._features, self._sides = compared(resolved), Sides(config.split)  # no row's side matters here
        used = _used(self._features)
        self._fields = [field for field in records.fields if field.name in used]
        computed = _computed(self._features)
        self._ends = [field for field in self._fields if field.name in computed]
        self._counts = Observation()
        self.rows = records.good(with_texts=True)
        """The records that fit."""
        self.carried: Column | None = None
        """What each row carries for the sample, an expression over ``rows``; None if there is nothing to compare."""
        if self._features:
            number = free("_row_number", self.rows.columns, config.features_sql)
            self.rows = self.rows.withColumn(number, F.monotonically_increasing_id())
            self.carried = self._carried(column(number))

    def _carried(self, number: Column) -> Column:
        share = math.ceil(min(1.0, self._size.wanted / self._size.rows) * _BUCKETS)
        in_task = number.bitwiseAND((1 << 33) - 1)
        at_most = F.least(F.lit(share), F.lit(self._size.wanted * _BUCKETS) / (in_task + 1))
        is_sampled = F.pmod(F.xxhash64(number), F.lit(_BUCKETS)) < at_most
        values = [column(field.name).alias(f"value{i}") for i, field in enumerate(self._ends)]
        return F.struct(F.when(is_sampled, self._texts()).alias("texts"), *values)

    def _texts(self) -> Column:
        """Return the texts of a record of ``rows``."""
        return F.struct(*[self._records.text_of(field).alias(field.name) for field in self._fields])

    def observe(self, typed: TypedRows) -> DataFrame:
        """Return the typed rows, of which an action takes the sample, without what they carry."""
        if not self._features:
            return typed.frame
        texts, carried = column(CARRIED)["texts"], column(CARRIED)
        ends = [
            reading.text_of(end(carried[f"value{i}"]), field.dataType, self._config).alias(f"{name} {field.name}")
            for i, field in enumerate(self._ends)
            for name, end in (("least", F.min), ("greatest", F.max))
        ]
        sample = F.to_json(F.collect_list(F.when(texts.isNotNull(), self._pair(typed, texts)))).alias("rows")
        extremes = F.to_json(F.struct(*ends)).alias("extremes") if ends else F.lit("{}").alias("extremes")
        return typed.frame.observe(self._counts, sample, extremes, F.count(F.lit(1)).alias("all")).drop(CARRIED)

    def _pair(self, typed: TypedRows, texts: Column) -> Column:
        """Return a row's texts and its features."""
        features = F.struct(*[column(typed.stored[name]).alias(name) for name in self._features])
        return F.struct(texts.alias("texts"), features.alias("features"))

    def keep(self, spark: SparkSession, folder: Folder) -> None:
        """Write the sample beside the prepared data, after the action, with a row for each extreme."""
        folder.write(FILE_NAME, gzip.compress(json.dumps(self._all_rows(spark)).encode(), compresslevel=1, mtime=0))

    def _all_rows(self, spark: SparkSession) -> list[dict[str, Any]]:
        if not self._features:
            return []
        rows, in_all = self._sampled_rows(), int(observed(self._counts)["all"])
        # a sample that memory bounds may be smaller by chance; else the first lines were shorter than most
        enough = ENOUGH if self._size.wanted > ENOUGH else 0.8 * self._size.wanted
        if len(rows) < min(enough, in_all):
            again = Sampling(self._config, self._resolved, self._records, replace(self._size, rows=in_all))
            frame = again.observe(prepare.typed_rows(spark, self._config, again.rows, self._sides, again.carried))
            frame.write.format("noop").mode("overwrite").save()
            rows = again._sampled_rows()
        ends: dict[str, Any] = json.loads(observed(self._counts)["extremes"])
        texts = [{name.partition(" ")[2]: text} for name, text in ends.items() if text is not None]
        if rows and texts:
            given = [{**rows[0]["texts"], **of_end} for of_end in texts]
            records = source_csv.records_of_texts(spark, self._config, given)
            of_ends = Sampling(self._config, self._resolved, records, Estimate(len(given), 1))
            made = prepare.typed_rows(spark, self._config, of_ends.rows, self._sides, of_ends._texts())
            pairs = made.frame.select(F.to_json(self._pair(made, column(CARRIED))))
            rows += [json.loads(row[0]) for row in pairs.collect()]
        return rows

    def _sampled_rows(self) -> list[dict[str, Any]]:
        """Return the sampled rows, {"texts": …, "features": …} each."""
        rows: list[dict[str, Any]] = json.loads(observed(self._counts)["rows"])
        return rows


def check_parity(config: Config, resolved: Resolved, folder: Folder, offsets: Mapping[str, float] | None = None) -> int:
    """Compare the sample of a prepared data set with what a model makes of its texts; return how many rows.

    ``offsets`` are those of the wide columns: two numbers are the same if a network takes the same float32 of them.

    Raises:
        UserError: a feature differs, or is missing in one only; the message names the row, both values and what the
            feature is made with.
    """
    rows = json.loads(gzip.decompress(folder.read(FILE_NAME)))
    trees = compared(resolved)
    used = _used(trees)
    names = [raw.name for raw in resolved.raw if raw.name in used]
    texts = pd.DataFrame([[row["texts"].get(name) for name in names] for row in rows], columns=names, dtype=object)
    features, reasons = RawFeatures(resolved.raw, missing_texts(config), trees).run(texts, read_by_spark=True)
    for row, reason in enumerate(reasons):
        if reason is not None:
            record = _short(rows[row]["texts"])
            raise _difference(config, f"Spark reads the record {record}, a packaged model refuses it: {reason}")
    for name, tree in trees.items():
        inexact = any(node.op in ENTRIES and ENTRIES[node.op].inexact for node in tree.walk())
        for row, ours in enumerate(features[name]):
            theirs = rows[row]["features"].get(name)
            if not _is_same(theirs, ours, inexact, (offsets or {}).get(name, 0.0)):
                problem = f"'{name}', made with {made_with(tree)}, is {theirs!r} in Spark but {ours!r} in a packaged "
                raise _difference(config, f"{problem}model for the record {_short(rows[row]['texts'])}")
    if rows:
        same = "Spark and the packaged model make the same features of %d rows, so a model sees what training sees"
        log.info(same, len(rows))
    else:
        log.info(
            "features.sql passes on numbers as Spark reads them: there is nothing to compare with a packaged model"
        )
    return len(rows)


def _difference(config: Config, problem: str) -> Exception:
    return config.mistake("features.sql", f"{problem}. This is a fault of this project: please report it")


def _is_same(theirs: Any, ours: Any, inexact: bool, offset: float) -> bool:
    if isinstance(ours, str) or isinstance(theirs, str):
        return bool(theirs == ours)
    with np.errstate(over="ignore"):  # a value beyond float32 is a missing one
        one, other = np.float32(np.nan if theirs is None else theirs), np.float32(np.nan if ours is None else ours)
    if not np.isfinite(one) or not np.isfinite(other):
        return bool(np.isfinite(one) == np.isfinite(other))
    if offset:
        one, other = np.float32(theirs - offset), np.float32(ours - offset)
    return bool(one == other) or (inexact and math.isclose(one, other, rel_tol=1e-6))


def compared(resolved: Resolved) -> dict[str, Node]:
    """Return the features that are compared: all but columns of FLOAT and DOUBLE that are passed on as they are.

    What Spark's reader makes of such a text is all that is known of it; tests compare the readers.
    """
    floating = ("float", "double")
    return {
        name: tree
        for name, tree in resolved.features.items()
        if not (_passed_on(tree) in floating and tree.type in floating)
    }


def _used(trees: Mapping[str, Node]) -> set[str]:
    return {str(node.value) for tree in trees.values() for node in tree.walk() if node.op == COLUMN}


def _computed(trees: Mapping[str, Node]) -> set[str]:
    """Return the raw columns that an expression computes with; a text that is passed on has no extremes."""
    return _used({name: tree for name, tree in trees.items() if _passed_on(tree) != tree.type})


def _passed_on(tree: Node) -> str | None:
    """Return the type of the column that a tree passes on, at most in another type."""
    inner = tree.arguments[0] if tree.op == "Cast" else tree
    return inner.type if inner.op == COLUMN else None


def made_with(tree: Node) -> str:
    """Return the names of the functions and operators of a feature's tree, as people write them."""
    ops = {node.op for node in tree.walk()} - {COLUMN, LITERAL}
    return ", ".join(sorted(ENTRIES[op].name for op in ops)) or "no function"


def _short(texts: dict[str, Any]) -> str:
    text = json.dumps(texts, ensure_ascii=False)
    return text if len(text) <= 500 else text[:499] + "…"
