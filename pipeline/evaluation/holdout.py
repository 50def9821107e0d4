"""Packaged models on the held-out rows: Spark makes their features of the raw rows, and each model scores them.

A bounded part of the rows also goes through the candidate's own path, from texts to features without Spark, as online
rows do. The two must make the same features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from pipeline.data.split import SPLIT
from pipeline.evaluation.metrics import Evaluation
from pipeline.model.offsets import relative
from pipeline.runtime.session import progress

if TYPE_CHECKING:
    import pandas as pd
    from pyspark import Broadcast
    from pyspark.sql import DataFrame, SparkSession

    from pipeline.model.scorer import Scorer
    from pipeline.model.spec import ModelSpec

IN_PROCESS_ROWS = 100_000
"""About so many held-out rows also go through the candidate's own path, or all."""
_LABEL = "_gate_label"
_MODEL = "_gate_model"
_SAMPLED = "_gate_texts"
_RAW = "_gate_raw"
_DRIVER_CELLS = 1_000_000  # the driver scores so many values before Spark's Python processes have imported torch
_DIFFERENCES = -1  # stands for a model in the cells: how many rows of each feature differ
_BUCKETS = 1_000_000


def evaluate(
    spark: SparkSession, config: Config, data: Manifest, models: dict[str, Path]
) -> tuple[dict[str, Evaluation], str | None]:
    """Score the raw rows of the validation split with each packaged model, in one pass over the source.

    ``models`` are folders by name, the candidate first. Returns their evaluations, and in one line how the candidate's
    own path differs from Spark's, if it does. Through the driver pass at most 1,000,000 values, or else one line per
    sum.

    Raises:
        UserError: the source no longer holds the rows of the manifest.
    """
    from pipeline.evaluation.sums import MetricSums

    packaged = [read_model(folder) for folder in models.values()]
    rows, classes = _validation_inputs(spark, config, data, packaged)
    count = _counter([score.ship_model(spark, folder) for folder in models.values()], data.label, classes)
    expected = data.rows.validation
    with progress(spark, f"scoring {expected} validation rows with {' and '.join(models)}"):
        cells_of_row = len(rows.columns) + len(rows.schema[_SAMPLED].dataType.fields)  # type: ignore[attr-defined]
        if expected * cells_of_row <= _DRIVER_CELLS:
            # one row more than expected is enough to notice that the source has grown
            collected = [row.asDict(recursive=True) for row in rows.limit(expected + 1).collect()]
            batch = pa.RecordBatch.from_pylist(collected, to_arrow_schema(rows.schema))
            cells = pa.Table.from_batches(count([batch])).to_pandas()
        else:
            counted = rows.mapInArrow(count, "model int, cell bigint, amount double")
            cells = counted.groupBy("model", "cell").agg(F.sum("amount").alias("amount")).toPandas()
    evaluations = {}
    for i, name in enumerate(models):
        sums = MetricSums(data.label, with_detail=True)
        of_model = cells[cells["model"] == i]
        sums.vector.numpy()[of_model["cell"].to_numpy()] = of_model["amount"].to_numpy()
        evaluations[name] = sums.evaluate()
        if (rows_now := evaluations[name].rows) != expected:
            now = f"at least {rows_now}" if rows_now > expected else f"{rows_now}"
            problem = f"has changed since it was prepared: it held {expected} validation rows, now {now}"
            raise config.mistake("source.path", problem)
    return evaluations, _differences(packaged[0].spec, cells[cells["model"] == _DIFFERENCES])


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


def _validation_inputs(
    spark: SparkSession, config: Config, data: Manifest, packaged: list[PackagedModel]
) -> tuple[DataFrame, list[str]]:
    """Return label, model inputs and some rows' texts of each validation row, lazily, and each class's label text."""
    records = source_csv.read_records(spark, config)
    good = records.good(with_texts=True)
    share = round(_BUCKETS * IN_PROCESS_ROWS / max(1, data.rows.validation))
    is_sampled = F.pmod(F.xxhash64(F.monotonically_increasing_id()), F.lit(_BUCKETS)) < share
    texts = F.struct(*[records.text_of(field).alias(field.name) for field in records.fields])
    raw = F.struct(*[column(field.name) for field in records.fields])
    carried = F.struct(raw.alias(_RAW), F.when(is_sampled, texts).alias(_SAMPLED))
    typed = prepare.typed_rows(spark, config, good, carried)
    label = column(typed.stored[config.label.column]).alias(_LABEL)
    rows = typed.frame.where(F.col(SPLIT) == "validation").select(f"{prepare.CARRIED}.*", label)
    for i, model in enumerate(packaged):
        rows = _with_inputs(spark, rows, model, f"{_MODEL}{i}_")
    return rows.drop(_RAW), prepare.class_texts(config, typed, data.label.classes)


def _with_inputs(spark: SparkSession, rows: DataFrame, model: PackagedModel, prefix: str) -> DataFrame:
    """Add the features that the model's own features.sql makes of the raw rows, under names with ``prefix``."""
    sql, raw = model.config.features_sql, rows.schema[_RAW].dataType
    kept = carried_name(raw.names, sql)  # type: ignore[attr-defined]
    given = rows.select(f"{_RAW}.*", F.struct(*rows.columns).alias(kept))
    result, carried = select_carrying(spark, sql, score.with_declared(spark, given, model.config), kept)
    # the names in it are all ours
    return result.select(*(carried[name].alias(name) for name in rows.columns), *score.model_inputs(model.spec, prefix))


def _counter(
    shipped: list[Broadcast[dict[str, bytes]]], label: LabelData, classes: list[str]
) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    """Return the function that adds up every model's answers in one Spark task, or in the driver."""

    def count(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        import pandas as pd
        import torch

        from pipeline.evaluation.sums import MetricSums

        scorers = [score.shipped_model(model) for model in shipped]
        sums = [MetricSums(label, with_detail=True) for _ in shipped]
        features = scorers[0].spec.network.numeric + scorers[0].spec.network.categorical
        different = np.zeros(len(features) + 1)
        code_of = pd.Index(classes, dtype=object)
        offset = label.stats.offset if label.stats else 0.0
        for batch in batches:
            labels = batch.column(_LABEL).to_pandas()
            codes = code_of.get_indexer(labels) if label.classes else relative(labels.to_numpy(np.float64), offset)
            # a class that the manifest lacks means that the source has changed, and the number of rows shows it
            known = codes >= 0 if label.classes else np.full(len(codes), True)
            for i, (scorer, of_model) in enumerate(zip(scorers, sums, strict=True)):
                scored = scorer.score(score.read_inputs(batch, scorer.spec, f"{_MODEL}{i}_"))
                refused = scored["reason"].notna().to_numpy()
                answers, actual, no_answer = (
                    torch.from_numpy(rows[known]) for rows in (_answers(scored, label), codes, refused)
                )
                of_model.add(answers, actual, refused=no_answer)
            different += _count_differences(batch, scorers[0])
        vectors = {**{i: of_model.vector.numpy() for i, of_model in enumerate(sums)}, _DIFFERENCES: different}
        for model, vector in vectors.items():
            cells = np.flatnonzero(vector)
            columns = [np.full(len(cells), model, np.int32), cells, vector[cells]]
            yield pa.RecordBatch.from_arrays([pa.array(c) for c in columns], names=["model", "cell", "amount"])

    return count


def _count_differences(batch: pa.RecordBatch, scorer: Scorer) -> Any:
    """Return how many sampled rows differ between Spark and the model's own path: in each feature, and in refusals."""
    import pandas as pd

    sampled = batch.column(_SAMPLED).to_pandas()
    rows = np.flatnonzero(sampled.notna())
    spec = scorer.spec
    counts = np.zeros(len(spec.network.numeric) + len(spec.network.categorical) + 1)
    if not len(rows) or not spec.features:
        return counts
    ours, reasons = scorer.features(pd.DataFrame(list(sampled.iloc[rows]), dtype=object), read_by_spark=True)
    theirs = score.read_inputs(batch, spec, f"{_MODEL}0_").iloc[rows]
    offsets = {number.column: number.offset for number in spec.network.numeric}
    for i, name in enumerate(theirs.columns):
        counts[i] = _is_other(theirs[name], ours[name], offsets.get(name, 0.0)).sum()
    counts[-1] = reasons.notna().sum()
    return counts


def _is_other(one: pd.Series, other: pd.Series, offset: float) -> Any:
    """Return which values differ, (rows,): as text, or as float32 up to a last bit or two of an inexact function.

    Numbers are counted from the offset, as the network takes them.
    """
    if one.dtype == object or other.dtype == object:
        pairs = zip(one, other, strict=True)
        return np.array([a != b and not (a is None and b is None) for a, b in pairs], dtype=bool)
    a, b = one.to_numpy(np.float64), other.to_numpy(np.float64)
    missing_a, missing_b = ~np.isfinite(relative(a, 0.0)), ~np.isfinite(relative(b, 0.0))
    small_a, small_b = relative(a, offset), relative(b, offset)
    return np.where(missing_a | missing_b, missing_a != missing_b, ~np.isclose(small_a, small_b, rtol=1e-6, atol=0))


def _answers(scored: pd.DataFrame, label: LabelData) -> Any:
    """Return probabilities in the order of the label's classes, or the predicted numbers, counted from its offset."""
    from pipeline.model.spec import PROBABILITY

    if label.stats:
        return scored["prediction"].to_numpy(np.float64) - label.stats.offset
    return scored[[PROBABILITY + name for name in label.classes]].to_numpy(np.float64)
