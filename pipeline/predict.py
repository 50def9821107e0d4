"""Batch scoring: CSV files with Spark, or one raw row without it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import Config
from pipeline.config.sections import DEFAULT_WORK_DIR
from pipeline.data.packaged import PackagedModel, load_scorer, read_model
from pipeline.data.score import model_inputs, read_inputs, ship_model, shipped_model, with_declared
from pipeline.runtime.console import Stopwatch, log
from pipeline.runtime.errors import UserError
from pipeline.tracking import store
from pipeline.tracking.registry import fetched_model

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark import Broadcast
    from pyspark.sql import DataFrame, Observation, SparkSession

    from pipeline.data.scored_files import OutputNames
    from pipeline.model.spec import ModelSpec

_FEATURE = "_feature_"
_RAW = "_raw_"


def predict_row(model: str, text: str, tracking_uri: str | None = None) -> dict[str, Any]:
    """Return prediction, probabilities and reason of one raw row, given as a JSON object; start no Spark.

    Without ``tracking_uri`` the model comes from :func:`pipeline.tracking.store.default_uri`.

    Raises:
        UserError: there is no such model, or the row is no JSON object or lacks a column that the model needs.
    """
    try:
        row = dict(json.loads(text))
    except (ValueError, TypeError):
        raise UserError(f'--row {text}: must be a JSON object, like {{"Island": "Biscoe"}}') from None
    import pandas as pd

    with fetched_model(model, tracking_uri or store.default_uri()) as (folder, _):
        scorer = load_scorer(folder)
    missing = [column.name for column in scorer.spec.raw if column.needed and column.name not in row]
    if missing:
        raise UserError(f"--row: lacks {', '.join(missing)}, which the model needs; give null for an unknown value")
    (answer,) = scorer.predict(pd.DataFrame([row], dtype=object)).to_dict("records")
    return {name: None if value != value else value for name, value in answer.items()}  # NaN is not equal to itself


def predict_files(
    model: str,
    inputs: Sequence[str],
    output: str,
    kind: str,
    tracking_uri: str | None = None,
    trust_model: bool = False,
) -> dict[str, Any]:
    """Score CSV files into ``output`` as ``kind`` (parquet or csv); return the summary for the last line of stdout.

    The output holds the raw columns, prediction, probabilities, reason and model_version. Records that do not fit the
    schema go to ``output/_quarantine``, as in training. `_SUCCESS` is written last. Only an earlier output of this job
    is replaced. Without ``tracking_uri`` the model comes from :func:`pipeline.tracking.store.default_uri`.

    Raises:
        UserError: the model, the input or the output cannot be used.
    """
    watch = Stopwatch()
    with fetched_model(model, tracking_uri or store.default_uri()) as (folder, version):
        return _score_files(read_model(folder), (model, version), inputs, output, kind, trust_model, watch)


def _score_files(
    packaged: PackagedModel,
    named: tuple[str, str],
    inputs: Sequence[str],
    output: str,
    kind: str,
    trust_model: bool,
    watch: Stopwatch,
) -> dict[str, Any]:
    """Do what :func:`predict_files` says; ``named`` are the model's URI and version."""
    from pipeline.data import scored_files, source_csv, source_files
    from pipeline.launch import executor_checks
    from pipeline.launch.start import start_spark
    from pipeline.runtime.session import observed, progress

    model, version = named
    settings = packaged.config.source.model_copy(update={"path": [*map(scored_files.spark_path, inputs)]})
    config = packaged.config.model_copy(update={"source": settings})
    spark = start_spark(f"predict {model}", Path(DEFAULT_WORK_DIR).absolute(), [*config.source_paths, output])
    executor_checks.check_executors(spark, config)
    _check_functions(spark, model, packaged, trust_model)
    source = source_files.list_source(spark, config)
    place = scored_files.spark_path(output)
    scored_files.check_output(spark, place, config.source_paths)
    config = _drop_absent_columns(spark, config, packaged.spec)
    records = source_csv.read_records(spark, config)
    watch.lap("start")

    with progress(spark, f"scoring {source.files} file(s), {source.bytes / 2**20:,.1f} MiB, into {output}"):
        scored, scored_counts, names = _scored_rows(spark, config, records.good(), packaged, version)
        scored_files.begin(spark, place, {"model": model, "model_version": version, "format": kind})
        with _mistakes_explained(spark, config):
            scored_files.write_rows(scored, place, kind)
    counts = {**observed(records.counts), **observed(scored_counts)}
    _quarantine(spark, config, counts["bad"], f"{place}/{scored_files.QUARANTINE}")
    scored_files.finish(spark, place)
    watch.lap("score")
    return {
        "status": "ok",
        "model_uri": model,
        "model_version": version,
        "output": output,
        "renamed": names.renamed,
        "rows": {
            "read": counts["read"],
            "quarantined": counts["bad"],
            "predicted": counts["rows"] - counts["refused"],
            "refused": counts["refused"],
        },
        "timing_s": {**watch.seconds, "total": watch.total()},
    }


@contextmanager
def _mistakes_explained(spark: SparkSession, config: Config) -> Iterator[None]:
    """Turn an error of Spark with a known cause into one sentence."""
    from pipeline.data import source_csv

    try:
        yield
    except Exception as error:
        mistake = source_csv.source_mistake(spark, config, error)
        if mistake is None:
            raise
        raise mistake from None


def _check_functions(spark: SparkSession, model: str, packaged: PackagedModel, trusted: bool) -> None:
    """Raise UserError if a model's features.sql may not run, or Spark and its own code may compute it unlike."""
    from pipeline.data import features_sql

    try:
        features_sql.check_packaged(spark, packaged, trusted)
    except UserError as error:
        advice = "" if trusted else "; add --trust-model to score with it all the same"
        raise UserError(f"--model {model}: {error}{advice}") from None


def _quarantine(spark: SparkSession, config: Config, bad: int, place: str) -> None:
    """Write the ``bad`` records that do not fit the schema, if there are any, to ``place``.

    Raises:
        UserError: the input has changed since it was scored.
    """
    from pipeline.data.quarantine import write_quarantine

    if not bad:
        return
    if (written := write_quarantine(spark, config, place)) != bad:
        problem = f"changed while it was read ({bad} records that do not fit, then {written})"
        raise UserError(f"--input {' '.join(config.source_paths)}: {problem}; run again when no other job writes there")
    log.info("%d records do not fit the schema: see %s", bad, place)


def _drop_absent_columns(spark: SparkSession, config: Config, spec: ModelSpec) -> Config:
    """Leave out of the schema the columns that the files lack and no feature needs: most often the label."""
    from pipeline.data import source_csv

    schema = source_csv.source_schema(spark, config)
    options = {**config.source.reader_options, "inferschema": False}
    if not options["header"]:
        return config
    header = {name.lower() for name in spark.read.options(**options).csv(source_csv.paths(config)).columns}
    needed = {column.name for column in spec.raw if column.needed}
    present = [field for field in schema.fields if field.name.lower() in header or field.name in needed]
    ddl = ", ".join(f"{source_csv.quoted(field.name)} {field.dataType.simpleString()}" for field in present)
    source = config.source.model_copy(update={"schema_": ddl})
    return config.model_copy(update={"source": source})


def _scored_rows(
    spark: SparkSession, config: Config, good: DataFrame, packaged: PackagedModel, version: str
) -> tuple[DataFrame, Observation, OutputNames]:
    """Return the scored rows, lazily, the counts `rows` and `refused` (rows without a prediction), and their names."""
    from pyspark.sql import Observation
    from pyspark.sql import functions as F
    from pyspark.sql.types import DoubleType, StringType, StructField, StructType

    from pipeline.data.carried import carrying_all, select_carrying
    from pipeline.data.scored_files import output_names
    from pipeline.data.source_csv import column
    from pipeline.model.spec import PROBABILITY

    spec, sql = packaged.spec, config.features_sql
    # the user's SELECT, and beside its result the raw row
    with_row, carried = carrying_all(good, sql)
    result, row = select_carrying(spark, sql, with_declared(spark, with_row, packaged.config), carried)
    raw = [row[name].alias(f"{_RAW}{i}") for i, name in enumerate(good.columns)]
    rows = result.select(*raw, *model_inputs(spec, _FEATURE))

    added = ["prediction", *(PROBABILITY + name for name in spec.classes), "reason", "model_version"]
    names = output_names(good.columns, added)
    kinds = dict.fromkeys(added, DoubleType()) | dict.fromkeys(["reason", "model_version"], StringType())
    if spec.classes:
        kinds["prediction"] = StringType()
    schema = StructType(
        [
            *(StructField(name, field.dataType) for name, field in zip(names.raw, good.schema.fields, strict=True)),
            *(StructField(name, kinds[own]) for name, own in zip(names.added, added, strict=True)),
        ]
    )
    scored = rows.mapInArrow(_batch_scorer(ship_model(spark, packaged.folder), version, len(raw)), schema)
    counts = Observation()
    refused = F.count(column("reason"))
    return scored.observe(counts, F.count(F.lit(1)).alias("rows"), refused.alias("refused")), counts, names


def _batch_scorer(shipped: Broadcast[dict[str, bytes]], version: str, raw: int) -> Any:
    """Return the function that Spark's tasks run over Arrow batches of ``raw`` raw columns and then features."""

    def score(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        scorer = shipped_model(shipped)
        spec: ModelSpec = scorer.spec
        for batch in batches:
            answers = scorer.score(read_inputs(batch, spec, _FEATURE))
            types = {"prediction": pa.string() if spec.classes else pa.float64(), "reason": pa.string()}
            arrays = batch.columns[:raw]
            arrays += [pa.array(answers[n], types.get(n, pa.float64()), from_pandas=True) for n in answers.columns]
            arrays += [pa.array([version] * len(answers), pa.string())]
            # Spark takes the columns by their position
            yield pa.RecordBatch.from_arrays(arrays, names=[f"{_RAW}{i}" for i in range(len(arrays))])

    return score
