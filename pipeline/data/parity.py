"""Parity: a packaged model makes the same features of the fields' texts as Spark has made.

The pass that writes the prepared data also collects a sample of the source: rows chosen by a hash of their number, each
with its texts and the features that Spark has made of them. Rows that hold the extremes of each column that an
expression computes with are added. The sample is kept beside the data, so that a training that reuses them compares,
too.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from pipeline.config import Config
from pipeline.data import prepare, source_csv
from pipeline.data.manifest import SourceData
from pipeline.data.prepare import RAW, TypedRows
from pipeline.data.source_csv import column
from pipeline.data.specs import Resolved, missing_texts
from pipeline.model.dialect.entry import ENTRIES
from pipeline.model.dialect.tree import COLUMN, LITERAL, Node
from pipeline.model.features import RawFeatures
from pipeline.runtime.storage import Folder

FILE_NAME = "parity.json.gz"
ENOUGH = 10_000
"""So many rows are compared, or all."""
_AIM = 15_000  # more than enough, because the number of rows is estimated
_PACKED = (".gz", ".bz2", ".zst", ".deflate", ".lz4", ".snappy")
_PACKED_TO = 8  # a compressed CSV has about so many times its bytes
_BUCKETS = 1_000_000
_BUDGET = 128 * 2**20  # bytes that the sample may take in the driver
_NAME_BYTES = 40  # of a text and a feature: their names and the signs around them
_FIRST_LINES = 1_000
_OF_LINES = ("linesep", "pathglobfilter", "recursivefilelookup", "modifiedbefore", "modifiedafter")


@dataclass(frozen=True)
class Sampling:
    """A sample that is taken while something else is made of the rows."""

    counts: Observation

    def rows(self) -> list[dict[str, Any]]:
        """Return the sampled rows, {"texts": …, "features": …} each; available after the action on the frame."""
        rows: list[dict[str, Any]] = json.loads(self.counts.get["rows"])
        return rows

    def extremes(self) -> list[tuple[str, Any]]:
        """Return the texts of each computed column's least and greatest value, by column."""
        found: dict[str, Any] = json.loads(self.counts.get["extremes"])
        return [(name.partition(" ")[2], text) for name, text in found.items() if text is not None]


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


def estimate(spark: SparkSession, config: Config, source: SourceData, columns: int) -> Estimate:
    """Return about how many records of ``columns`` texts and features the source has, from its first lines."""
    options = {key: value for key, value in config.source.reader_options.items() if key in _OF_LINES}
    lines = spark.read.options(**options).text(config.source_paths)
    packed = any(name.endswith(_PACKED) for name in lines.inputFiles())
    length = F.length("value").alias("length")
    first = [row.length + 1 for row in lines.limit(_FIRST_LINES).select(length).collect()]
    mean = max(1, sum(first)) / max(1, len(first))
    rows = max(1, round(source.bytes * (_PACKED_TO if packed else 1) / mean))
    return Estimate(rows, round(2 * mean + _NAME_BYTES * columns))


def sampled(config: Config, resolved: Resolved, typed: TypedRows, size: Estimate) -> tuple[DataFrame, Sampling]:
    """Return the typed rows without RAW, and the sample that an action on them takes.

    Where there are more rows than estimated, each task takes fewer and fewer: of its n rows at most about
    wanted · (1 + ln(n / wanted)).
    """
    number = "_row_number"
    share = math.ceil(min(1.0, size.wanted / size.rows) * _BUCKETS)
    in_task = F.col(number).bitwiseAND((1 << 33) - 1)
    at_most = F.least(F.lit(share), F.lit(size.wanted * _BUCKETS) / (in_task + 1))
    is_sampled = F.pmod(F.xxhash64(number), F.lit(_BUCKETS)) < at_most
    ends = [
        by(F.col(RAW)[typed.texts][name], F.col(RAW)[name]).alias(f"{end} {name}")
        for name in sorted(_computed(resolved))
        for end, by in (("least", F.min_by), ("greatest", F.max_by))
    ]
    counts = Observation()
    collected = F.to_json(F.collect_list(F.when(is_sampled, _pair(config, typed)))).alias("rows")
    extremes = F.to_json(F.struct(*ends)).alias("extremes") if ends else F.lit("{}").alias("extremes")
    numbered = typed.frame.withColumn(number, F.monotonically_increasing_id())
    observed = numbered.observe(counts, collected, extremes, F.count(F.lit(1)).alias("all"))
    return observed.drop(number, RAW), Sampling(counts)


def keep_sample(
    spark: SparkSession,
    config: Config,
    resolved: Resolved,
    sampling: Sampling,
    typed: TypedRows,
    size: Estimate,
    folder: Folder,
) -> None:
    """Write the sample beside the prepared data, with a row for each extreme of a computed column."""
    rows, in_all = sampling.rows(), int(sampling.counts.get["all"])
    if len(rows) < min(ENOUGH, size.wanted, in_all):  # the first lines were shorter than most
        frame, again = sampled(config, resolved, typed, replace(size, rows=in_all))
        frame.write.format("noop").mode("overwrite").save()
        rows = again.rows()
    if rows and (ends := sampling.extremes()):
        texts = [{**rows[0]["texts"], name: text} for name, text in ends]
        records = source_csv.records_of_texts(spark, config, texts)
        made = prepare.typed_rows(spark, config, records, keep_raw=True)
        rows += [json.loads(row[0]) for row in made.frame.select(F.to_json(_pair(config, made))).collect()]
    folder.write(FILE_NAME, gzip.compress(json.dumps(rows).encode(), compresslevel=1, mtime=0))


def _pair(config: Config, typed: TypedRows) -> Column:
    """Return a row's texts and its features."""
    features = F.struct(*[column(typed.stored[name]).alias(name) for name in config.feature_columns])
    return F.struct(F.col(RAW)[typed.texts].alias("texts"), features.alias("features"))


def check_parity(config: Config, resolved: Resolved, folder: Folder, offsets: Mapping[str, float] | None = None) -> int:
    """Compare the sample of a prepared data set with what a model makes of its texts; return the number of rows.

    ``offsets`` are those of the wide columns: two numbers are the same if a network takes the same float32 of them.

    Raises:
        UserError: a feature differs, or is missing in one only; the message names the row, both values and what the
            feature is made with.
    """
    rows = json.loads(gzip.decompress(folder.read(FILE_NAME)))
    names = [raw.name for raw in resolved.raw]
    texts = pd.DataFrame([[row["texts"].get(name) for name in names] for row in rows], columns=names, dtype=object)
    features, reasons = RawFeatures(resolved.raw, missing_texts(config), resolved.features).run(texts)
    for row, reason in enumerate(reasons):
        if reason is not None:
            record = _short(rows[row]["texts"])
            raise _difference(config, f"Spark reads the record {record}, a packaged model refuses it: {reason}")
    for name, tree in resolved.features.items():
        inexact = any(node.op in ENTRIES and ENTRIES[node.op].inexact for node in tree.walk())
        for row, ours in enumerate(features[name]):
            theirs = rows[row]["features"].get(name)
            if not _is_same(theirs, ours, inexact, (offsets or {}).get(name, 0.0)):
                problem = f"'{name}', made with {made_with(tree)}, is {theirs!r} in Spark but {ours!r} in a packaged "
                raise _difference(config, f"{problem}model for the record {_short(rows[row]['texts'])}")
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


def _computed(resolved: Resolved) -> set[str]:
    """Return the raw columns that an expression computes with; a column that is passed on has nothing to compare."""
    return {name for tree in resolved.features.values() for name in _below_operations(tree)}


def _below_operations(tree: Node) -> Iterator[str]:
    inner = tree.arguments[0] if tree.op == "Cast" else tree
    if inner.op != COLUMN or inner.type not in (tree.type, "float", "double"):
        yield from (str(node.value) for node in tree.walk() if node.op == COLUMN)


def made_with(tree: Node) -> str:
    """Return the names of the functions and operators of a feature's tree, as people write them."""
    ops = {node.op for node in tree.walk()} - {COLUMN, LITERAL}
    return ", ".join(sorted(ENTRIES[op].name for op in ops)) or "no function"


def _short(texts: dict[str, Any]) -> str:
    text = json.dumps(texts, ensure_ascii=False)
    return text if len(text) <= 500 else text[:499] + "…"
