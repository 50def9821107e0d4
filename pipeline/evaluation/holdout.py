"""Packaged models on the test rows: Spark makes their features of the raw rows, and each model scores them.

A bounded part of the rows also goes through the candidate's own path, from texts to features without Spark, as online
rows do. The two must make the same features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema

from pipeline.config import Config
from pipeline.data import prepare, score, source_csv
from pipeline.data.carried import carried_name, select_carrying
from pipeline.data.manifest import LabelData, Manifest
from pipeline.data.packaged import PackagedModel, read_model
from pipeline.data.parity import made_with
from pipeline.data.source_csv import column
from pipeline.data.split import SPLIT, Sides
from pipeline.evaluation import answers
from pipeline.evaluation.comparison import Paired
from pipeline.evaluation.metrics import Evaluation
from pipeline.runtime.session import progress

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import Column, DataFrame, SparkSession

    from pipeline.evaluation.sums import MetricSums
    from pipeline.model.spec import ModelSpec

IN_PROCESS_ROWS = 100_000
"""About so many test rows also go through the candidate's own path, or all."""
Sums = TypeVar("Sums", "MetricSums", "answers.MeanSums", "MetricSums | answers.MeanSums")

_RAW = "_gate_raw"
_DRIVER_CELLS = 1_000_000  # the driver scores so many values before Spark's Python processes have imported torch
_SHARES = 1_000_000


@dataclass(frozen=True)
class Measured:
    """A candidate on the test rows, beside the champion or else the constant answer."""

    candidate: Evaluation
    """On all test rows."""
    paired: Paired
    """On the test rows that the champion does not know; on all of them beside the constant answer."""
    other_labels: int
    """Compared rows of which the champion's features.sql makes another label."""
    sketch: tuple[int, ...]
    """Hashes of some test rows, by which a later job sees whether its test rows are the same."""
    differences: str | None
    """In one line how the candidate's own path differs from Spark's."""


def evaluate(spark: SparkSession, config: Config, data: Manifest, candidate: Path, champion: Path | None) -> Measured:
    """Score the raw rows of the test split with the candidate and a reference, in one pass over the source.

    The reference is the champion, on the rows that its training put neither in train nor in validation, by its own
    features, seed and fractions. Without a champion it is the constant answer: the training rows' shares of the
    classes, or their mean. Through the driver pass at most 1,000,000 values, or else one line per sum.

    Raises:
        UserError: the source no longer holds the rows of the manifest.
    """
    label, metric = data.label, config.gate_metric
    if len(label.classes) > answers.MOST_CLASSES and metric not in ("accuracy", "log_loss"):
        problem = f"{metric} of {len(label.classes)} classes is not compared; take accuracy or log_loss"
        raise config.mistake("tracking.gate.metric", problem)
    folders = [candidate, *([champion] if champion else [])]
    from pipeline.evaluation.sums import MetricSums

    packaged = [read_model(folder) for folder in folders]
    rows, classes = _test_rows(spark, config, data, packaged)
    shipped = [score.ship_model(spark, folder) for folder in folders]
    constant = answers.constant_class(config.label, data)
    count = answers.counter(shipped, data, config.gate_metric, classes, constant)
    expected = data.rows.test
    with progress(spark, f"scoring {expected} test rows with candidate{' and champion' if champion else ''}"):
        cells_of_row = len(rows.columns) + len(rows.schema[answers.SAMPLED].dataType.fields)  # type: ignore[attr-defined]
        if expected * cells_of_row <= _DRIVER_CELLS:
            # one row more than expected is enough to notice that the source has grown
            collected = [row.asDict(recursive=True) for row in rows.limit(expected + 1).collect()]
            batch = pa.RecordBatch.from_pylist(collected, to_arrow_schema(rows.schema))
            cells = pa.Table.from_batches(count([batch])).to_pandas()
        else:
            counted = rows.mapInArrow(count, answers.CELLS)
            cells = counted.groupBy("what", "bucket", "cell").agg(F.sum("amount").alias("amount")).toPandas()
    whole = _filled(MetricSums(label, with_detail=True), cells[cells["what"] == answers.WHOLE]).evaluate()
    if whole.rows != expected:
        now = f"at least {whole.rows}" if whole.rows > expected else f"{whole.rows}"
        problem = f"has changed since it was prepared: it held {expected} test rows, now {now}"
        raise config.mistake("source.path", problem)
    sketch = cells[cells["what"] == answers.SKETCH].sort_values("cell")[: answers.SKETCHED]
    copies = float(sketch["amount"].mean()) if len(sketch) else 1.0
    counts = cells[cells["what"] == answers.ALONE].groupby("cell")["amount"].sum()
    alone = {int(cell): int(amount) for cell, amount in counts.items()}
    return Measured(
        candidate=whole,
        paired=_paired(data.label, config.gate_metric, cells, alone, copies),
        other_labels=alone.get(2, 0),
        sketch=tuple(sketch["cell"].tolist()),
        differences=_differences(packaged[0].spec, cells[cells["what"] == answers.DIFFERENCES]),
    )


def _paired(label: LabelData, metric: str, cells: pd.DataFrame, alone: dict[int, int], copies: float) -> Paired:
    """Return the two models' metrics on the compared rows, and their difference without each bucket."""
    of_models = [cells[cells["what"] == what] for what in (answers.CANDIDATE, answers.REFERENCE)]
    sums = [_filled(answers.sums_of(label, metric), of_model) for of_model in of_models]
    candidate, reference = (of_model.metrics[metric] for of_model in sums)
    without = []
    for bucket in sorted(of_models[0]["bucket"].unique()):
        left = []
        for of_model, in_all in zip(of_models, sums, strict=True):
            inside = of_model[of_model["bucket"] == bucket]
            vector, places = in_all.vector.numpy(), inside["cell"].to_numpy()
            before = vector[places]
            vector[places] -= inside["amount"].to_numpy()
            left.append(in_all.metrics[metric])
            vector[places] = before  # exactly: subtracted and added again, the last bits would differ
        without.append(left[0] - left[1])
    return Paired(alone.get(3, 0), candidate, reference, alone.get(0, 0), alone.get(1, 0), without, copies)


def _filled(sums: Sums, cells: pd.DataFrame) -> Sums:
    """Add cells to the sums; return them."""
    np.add.at(sums.vector.numpy(), cells["cell"].to_numpy(), cells["amount"].to_numpy())
    return sums


def _differences(spec: ModelSpec, cells: pd.DataFrame) -> str | None:
    """Return in one line which features differ between Spark and the candidate's own path, and what makes them."""
    columns = [value.column for value in spec.network.numeric] + [value.column for value in spec.network.categorical]
    made = [f"'{name}', made with {made_with(spec.features[name])}," for name in columns if spec.features]
    names = [*made, "whether a value is of its type"]
    different = [
        f"{names[cell]} in {amount:.0f} row(s)" for cell, amount in zip(cells["cell"], cells["amount"], strict=True)
    ]
    if not different:
        return None
    return f"the packaged candidate and Spark make other features of the held-out rows: {', '.join(different)}"


def _test_rows(
    spark: SparkSession, config: Config, data: Manifest, packaged: list[PackagedModel]
) -> tuple[DataFrame, list[str]]:
    """Return label, model inputs and some rows' texts of each test row, lazily, and each class's label text.

    Beside them each row has its hash, whether the champion knows it, and the label that the champion's SQL makes.
    """
    records = source_csv.read_records(spark, config, config.split.needed_columns)
    good, sides = records.good(with_texts=True), Sides.of(config.split, data.time_cuts)
    share = round(_SHARES * IN_PROCESS_ROWS / max(1, data.rows.test))
    is_sampled = F.pmod(F.xxhash64(F.monotonically_increasing_id()), F.lit(_SHARES)) < share
    texts = F.struct(*[records.text_of(field).alias(field.name) for field in records.fields])
    raw = F.struct(*[column(field.name) for field in records.fields])
    key = sides.key(good.schema)
    group = F.lit(0) if key is None else key
    carried = F.struct(raw.alias(_RAW), F.when(is_sampled, texts).alias(answers.SAMPLED), group.alias(answers.HASH))
    typed = prepare.typed_rows(spark, config, good, sides, carried)
    label = column(typed.stored[config.label.column]).alias(answers.LABEL)
    # equal rows, and all rows of a group, have one hash
    values = [column(file) for name, file in typed.stored.items() if name != config.label.weight]
    of_row = [column(prepare.CARRIED)[answers.HASH]] if config.split.group else values
    of_row_hash = F.xxhash64(*of_row).alias(answers.HASH)
    of_carried = [column(prepare.CARRIED)[name].alias(name) for name in (_RAW, answers.SAMPLED)]
    rows = typed.frame.where(F.col(SPLIT) == "test").select(*of_carried, of_row_hash, label)
    rows = _with_knowledge(spark, rows, packaged[1]) if len(packaged) > 1 else _without_champion(rows)
    for i, model in enumerate(packaged):
        rows = _with_inputs(spark, rows, model, f"{answers.MODEL}{i}_")
    return rows.drop(_RAW), prepare.class_texts(config, typed, data.label.classes)


def _with_knowledge(spark: SparkSession, rows: DataFrame, champion: PackagedModel) -> DataFrame:
    """Add whether the champion's training knows a row, by its own rule, and the label that its SQL makes."""
    config = champion.config
    # A weight does not decide about a split. Today's source may lack it, and no row is new to the champion for that.
    config = config.model_copy(update={"label": config.label.model_copy(update={"weight": None})})
    kept = carried_name(rows.schema[_RAW].dataType.names, "")  # type: ignore[attr-defined]
    given = rows.select(f"{_RAW}.*", F.struct(*rows.columns).alias(kept))
    declared = score.with_declared(spark, given, config)
    sides = Sides.of_model(config.split, champion.spec.split)
    typed = prepare.typed_rows(spark, config, declared, sides, column(kept))
    is_known = F.coalesce(F.col(SPLIT).isin("train", "validation"), F.lit(False)).alias(answers.KNOWN)
    label: Column = column(typed.stored[config.label.column])
    if config.label.task == "classification":
        texts = prepare.class_texts(config, typed, champion.spec.classes)
        names = [F.when(label == text, F.lit(name)) for text, name in zip(texts, champion.spec.classes, strict=True)]
        label = F.coalesce(*names)
    of_row = [column(prepare.CARRIED)[name].alias(name) for name in rows.columns]
    return typed.frame.select(*of_row, is_known, label.alias(answers.THEIR_LABEL))


def _without_champion(rows: DataFrame) -> DataFrame:
    return rows.select("*", F.lit(False).alias(answers.KNOWN), F.lit(None).cast("string").alias(answers.THEIR_LABEL))


def _with_inputs(spark: SparkSession, rows: DataFrame, model: PackagedModel, prefix: str) -> DataFrame:
    """Add the features that the model's own features.sql makes of the raw rows, under names with ``prefix``."""
    sql, raw = model.config.features_sql, rows.schema[_RAW].dataType
    kept = carried_name(raw.names, sql)  # type: ignore[attr-defined]
    given = rows.select(f"{_RAW}.*", F.struct(*rows.columns).alias(kept))
    result, carried = select_carrying(spark, sql, score.with_declared(spark, given, model.config), kept)
    # the names in it are all ours
    return result.select(*(carried[name].alias(name) for name in rows.columns), *score.model_inputs(model.spec, prefix))
