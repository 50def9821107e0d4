"""Predictions of a packaged model: of CSV files with Spark; of one raw row, or over HTTP, without it."""

from __future__ import annotations

import functools
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import registry, storage, tracking
from pipeline.config import Config, load_config
from pipeline.console import Stopwatch, log
from pipeline.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from pyspark import Broadcast
    from pyspark.sql import Column, DataFrame, SparkSession

    from pipeline.scorer import ModelSpec, Scorer

_FEATURE = "_feature_"


def predict_row(model: str, text: str, tracking_uri: str) -> dict[str, Any]:
    """Return prediction, probabilities and reason of one raw row, a JSON object; starts no Spark.

    Raises:
        UserError: there is no such model, or the row is no JSON object or lacks a column that the model needs.
    """
    try:
        row = dict(json.loads(text))
    except (ValueError, TypeError):
        raise UserError(f'--row {text}: must be a JSON object, like {{"Island": "Biscoe"}}') from None
    import pandas as pd

    from pipeline.scorer import Scorer

    scorer = Scorer(fetch_model(model, tracking_uri)[0])
    missing = [column.name for column in scorer.spec.raw if column.needed and column.name not in row]
    if missing:
        raise UserError(f"--row: lacks {', '.join(missing)}, which the model needs (null says that it is not known)")
    (answer,) = scorer.predict(pd.DataFrame([row], dtype=object)).to_dict("records")
    return {name: None if value != value else value for name, value in answer.items()}  # NaN is not equal to itself


def serve(model: str, host: str, port: int, tracking_uri: str) -> dict[str, Any]:
    """Become MLflow's scoring server for this model, in this environment; returns only by raising.

    Raises:
        UserError: there is no such model, or the port is taken.
    """
    fetch_model(model, tracking_uri)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise UserError(f"--port {port}: cannot listen on {host}: {getattr(error, 'strerror', error)}") from None
    log.info("serving %s: POST rows to http://%s:%d/invocations", model, host, port)
    os.environ["MLFLOW_TRACKING_URI"] = tracking_uri
    arguments = ["--model-uri", model, "--host", host, "--port", str(port), "--env-manager", "local"]
    os.execv(sys.executable, [sys.executable, "-W", "ignore", "-m", "mlflow", "models", "serve", *arguments])


def predict_files(model: str, inputs: Sequence[str], output: str, kind: str, tracking_uri: str) -> dict[str, Any]:
    """Score CSV files into ``output`` as ``kind`` (parquet or csv); return the summary for the last line of stdout.

    The output holds the raw columns, prediction, probabilities, reason and model_version. Records that do not fit the
    schema go to ``output/_quarantine``, as in training. Spark moves the files in place when all are written, and
    `_SUCCESS` last; an earlier output is replaced.

    Raises:
        UserError: the model, the input or the output cannot be used.
    """
    from pipeline import ingest, placement, session

    watch = Stopwatch()
    _check_output(output, inputs)
    folder, version = fetch_model(model, tracking_uri)
    paths = [path if storage.scheme(path) else str(Path(path).resolve()) for path in inputs]
    config = load_config(folder / "pipeline.yaml", [f"source.path={json.dumps(paths)}"])
    spark = session.get_session(f"predict {model}", Path(".work").resolve())
    placement.check_executors(spark, config)
    source = ingest.list_source(spark, config)
    config = _as_the_files_have_it(spark, config)
    records = ingest.read_records(spark, config)
    watch.lap("start")
    what = f"scoring {source.files} file(s), {source.bytes / 2**20:,.1f} MiB, into {output}"
    with session.progress(spark, what):
        scored, counts = _scored(spark, config, records.good(), folder, version)
        try:
            scored.write.mode("overwrite").option("header", True).format(kind).save(output)
        except Exception as error:
            mistake = ingest.source_mistake(spark, config, error)
            if mistake is None:
                raise
            raise mistake from None
    seen = {**records.seen.get, **counts.get}
    if seen["bad"]:
        ingest.quarantine(spark, config, f"{output.rstrip('/')}/_quarantine")
        log.info("%d records do not fit the schema: see %s/_quarantine", seen["bad"], output)
    watch.lap("score")
    return {
        "status": "ok",
        "model_uri": model,
        "model_version": version,
        "output": output,
        "rows": {
            "read": seen["read"],
            "quarantined": seen["bad"],
            "predicted": seen["rows"] - seen["refused"],
            "refused": seen["refused"],
        },
        "timing_s": {**watch.seconds, "total": watch.total()},
    }


def fetch_model(model: str, tracking_uri: str) -> tuple[Path, str]:
    """Return the folder with the packaged model's files, and its version (or id, if it is not registered).

    Raises:
        UserError: the store has no such model, or it is not one of this pipeline.
    """
    from mlflow.exceptions import MlflowException

    begin = time.perf_counter()
    try:
        folder, version = registry.download_model(tracking_uri, model)
    except (MlflowException, OSError) as error:
        if tracking.is_down(error) and tracking_uri.startswith("http"):
            raise
        where = tracking.shown(tracking_uri)
        raise UserError(f"model {model}: cannot be had from {where}: {tracking.one_line(error)}") from None
    packaged = folder / "artifacts" / "model"
    if not (packaged / "model.json").exists():
        raise UserError(f"model {model}: is not a model of this pipeline: it holds no artifacts/model/model.json")
    log.info("model %s, version %s (%.1f s)", model, version, time.perf_counter() - begin)
    return packaged, version


def _check_output(output: str, inputs: Sequence[str]) -> None:
    """Refuse to replace a folder that is not the output of an earlier run, or that holds the input."""
    place = Path(output).resolve()
    for path in inputs:
        if path == output or place in (Path(path).resolve(), *Path(path).resolve().parents):
            raise UserError(f"--output {output}: holds the input {path}, and would be replaced; name another folder")
    if storage.scheme(output) or not os.path.exists(output):
        return
    if not os.path.isdir(output):
        raise UserError(f"--output {output}: is a file; name a folder")
    found = set(os.listdir(output))
    if found and not found & {"_SUCCESS", "_temporary"}:
        raise UserError(f"--output {output}: holds something else than an earlier output; name another folder")


def _as_the_files_have_it(spark: SparkSession, config: Config) -> Config:
    """Leave those columns out of the schema that the files lack and no feature needs: the label, most often."""
    from pipeline import features, ingest

    schema = ingest.source_schema(spark, config)
    options = {**config.source.reader_options, "inferschema": False}
    header = {name.lower() for name in spark.read.options(**options).csv(config.source_paths).columns}
    if not options["header"]:
        return config
    needed = features.translate(config).needed
    kept = [f for f in schema.fields if f.name.lower() in header or f.name in needed]
    ddl = ", ".join(f"`{f.name}` {f.dataType.simpleString()}" for f in kept)
    source = config.source.model_copy(update={"schema_": ddl})
    return config.model_copy(update={"source": source})


def _scored(spark: SparkSession, config: Config, good: DataFrame, folder: Path, version: str) -> tuple[DataFrame, Any]:
    """Return the scored rows, lazily, and the observation of how many there are and got no prediction."""
    from pyspark.sql import Observation
    from pyspark.sql import functions as F
    from pyspark.sql.types import DoubleType, StringType, StructField, StructType

    from pipeline.features import select_more
    from pipeline.scorer import PROBABILITY, ModelSpec

    spec = ModelSpec.from_json((folder / "model.json").read_text(encoding="utf-8"))
    with_declared(spark, good, load_config(folder / "pipeline.yaml")).createOrReplaceTempView("raw")
    # the user's SELECT, and the raw row it was made from beside it
    result = spark.sql(select_more(config.features_sql, "struct(*) AS _raw"))
    inputs = model_inputs(spec, _FEATURE)
    rows = result.select(*(F.col("_raw")[name].alias(name) for name in good.columns), *inputs)

    prediction = StringType() if spec.classes else DoubleType()
    added = [
        StructField("prediction", prediction),
        *(StructField(PROBABILITY + name, DoubleType()) for name in spec.classes),
        StructField("reason", StringType()),
        StructField("model_version", StringType()),
    ]
    clash = {f.name.lower() for f in added} & {name.lower() for name in good.columns}
    if clash:
        raise config.mistake("source.schema", f"column '{clash.pop()}' has the name of an output; rename it in the CSV")
    schema = StructType([*good.schema.fields, *added])
    scored = rows.mapInArrow(_batch_scorer(ship_model(spark, folder), version, good.columns), schema)
    counts = Observation()
    refused = F.count(F.col("reason"))
    return scored.observe(counts, F.count(F.lit(1)).alias("rows"), refused.alias("refused")), counts


def _batch_scorer(shipped: Broadcast[dict[str, bytes]], version: str, raw: Sequence[str]) -> Any:
    """Return the function that Spark runs over Arrow batches on the executors."""

    def score(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        scorer = shipped_model(shipped)
        spec: ModelSpec = scorer.spec
        for batch in batches:
            answers = scorer.score(read_inputs(batch, spec, _FEATURE))
            kinds = {"prediction": pa.string() if spec.classes else pa.float64(), "reason": pa.string()}
            arrays = [batch.column(name) for name in raw]
            arrays += [pa.array(answers[n], kinds.get(n, pa.float64()), from_pandas=True) for n in answers.columns]
            arrays += [pa.array([version] * len(answers), pa.string())]
            yield pa.RecordBatch.from_arrays(arrays, names=[*raw, *answers.columns, "model_version"])

    return score


def with_declared(spark: SparkSession, rows: DataFrame, config: Config) -> DataFrame:
    """Add what a model's schema declares and the rows lack, as NULL: its features.sql may name it, the label say."""
    from pyspark.sql import functions as F

    from pipeline.ingest import source_schema

    there = {name.lower() for name in rows.columns}
    declared = source_schema(spark, config).fields
    return rows.withColumns({f.name: F.lit(None).cast(f.dataType) for f in declared if f.name.lower() not in there})


def model_inputs(spec: ModelSpec, prefix: str) -> list[Column]:
    """Return what features.sql made as the columns that :func:`read_inputs` reads: `prefix` and a number."""
    from pipeline.ingest import column

    numeric = [column(n.column).cast("float") for n in spec.network.numeric]
    categorical = [column(c.column).cast("string") for c in spec.network.categorical]
    return [value.alias(f"{prefix}{i}") for i, value in enumerate(numeric + categorical)]


def read_inputs(batch: pa.RecordBatch, spec: ModelSpec, prefix: str) -> pd.DataFrame:
    """Return the features of one Arrow batch as a :class:`Scorer` takes them."""
    import pandas as pd

    names = [*(n.column for n in spec.network.numeric), *(c.column for c in spec.network.categorical)]
    return pd.DataFrame({name: batch.column(f"{prefix}{i}").to_pandas() for i, name in enumerate(names)})


def ship_model(spark: SparkSession, folder: Path) -> Broadcast[dict[str, bytes]]:
    """Send a packaged model's files to the executors, each of which may be on another machine."""
    return spark.sparkContext.broadcast({file.name: file.read_bytes() for file in folder.iterdir()})


@functools.lru_cache(maxsize=2)
def shipped_model(files: Broadcast[dict[str, bytes]]) -> Scorer:
    """Load a model that has been shipped: once in each of Spark's Python processes, not once a batch."""
    import torch

    from pipeline.scorer import Scorer

    torch.set_num_threads(1)  # Spark runs one process per core
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.value.items():
            Path(folder, name).write_bytes(content)
        return Scorer(Path(folder))
