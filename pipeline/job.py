"""The main job, from the configuration to the summary."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from threading import Thread
from typing import TYPE_CHECKING, Any

from pipeline import delivery, features, gate, launch, package, placement, report, resume, session, shards, tracking
from pipeline.config import Config, load_config
from pipeline.console import Stopwatch, log
from pipeline.errors import DeliveryError
from pipeline.task import Task, TrainingResult

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def train(config_file: str, overrides: Sequence[str] = (), gated: bool = True, fresh: bool = False) -> dict[str, Any]:
    """Prepare the data, train on all ranks, keep everything in MLflow; return the summary for the last line of stdout.

    A training that was interrupted goes on from its newest checkpoint, unless it is to begin ``fresh``. With ``gated``,
    and a `tracking.registered_model`, the gate decides about the model; else :func:`judge` may, later.

    Raises:
        UserError: the configuration or the data is wrong, or another job does the same training.
        RankError: a rank failed.
        StorageError: there is no room.
        DeliveryError: training has ended, but the store has not taken what came of it.
    """
    watch = Stopwatch()
    config = load_config(config_file, overrides)
    uri, spark = _open(config, "train")
    watch.lap("start")
    shards.open_data_dir(config)
    num_proc = placement.await_ranks(spark, config)
    placement.check_executors(spark, config, num_proc)
    most_ranks = config.run.elastic.max if config.run.elastic else num_proc
    prepared = shards.prepare_data(spark, config, most_ranks)
    compared = package.check_parity(spark, config)
    log.info("Spark and DuckDB make the same features of %d rows: a model will see what training saw", compared)
    watch.lap("prepare")

    fewest_ranks = config.run.elastic.min if config.run.elastic else num_proc
    cache = placement.cache(spark, config, prepared.manifest, fewest_ranks)
    with (
        resume.claim(config, prepared.manifest, num_proc, fresh) as training,
        tracking.open_run(config, uri, training.run_id) as run_id,
    ):
        training.remember(run_id)
        with tracking.told_if_down(uri):
            tracking.log_setup(uri, run_id, config, prepared.manifest, _versions(), num_proc)
        cores = placement.cores(spark)
        task = Task(config, prepared.manifest, prepared.folder, uri, run_id, cores, training.folder, cache=cache)
        Thread(target=_import_ahead, daemon=True).start()
        outcome = launch.run_ranks(spark, task, num_proc)
        result = outcome.result
        watch.lap("launch and train")
        try:
            model_uri, decision = _hand_over(spark, task, outcome, watch, gated)
        except Exception as error:  # whatever goes wrong here must not cost the model
            raise _keep_here(task, result, error) from (None if tracking.is_down(error) else error)
        training.forget()
    metrics = _kept_metrics(result)
    log.info("done: %s", "  ".join(f"{name} {value:.4g}" for name, value in metrics.items() if value is not None))
    return {
        "status": "ok",
        "run_id": run_id,
        "model_uri": model_uri,
        "rows": prepared.manifest.rows.model_dump(),
        "metrics": metrics,
        "reused_data": prepared.reused,
        **_course(outcome),
        "gate": asdict(decision) if decision else None,
        "timing_s": {**_timing(watch, result), "total": watch.total()},
    }


def judge(config_file: str, overrides: Sequence[str] = (), run_id: str | None = None) -> dict[str, Any]:
    """Let the gate decide about a training that is in the store; return the summary for the last line of stdout.

    Without ``run_id`` it is the newest finished one of the experiment, under `tracking.run_name` if that is set.

    Raises:
        UserError: there is no such training, or it was one of another configuration or source.
    """
    watch = Stopwatch()
    config = load_config(config_file, overrides)
    if not config.tracking.registered_model:
        raise config.mistake("tracking.registered_model", "is needed: the name whose champion the gate decides about")
    uri, spark = _open(config, "gate")
    with tracking.told_if_down(uri):
        placement.check_executors(spark, config)
        run = tracking.read_run(config, uri, run_id)
        shards.check_prepared_from(config, run.data)
        decision = gate.judge(spark, config, run.data, uri, run.run_id, run.model_uri, run.metrics)
    return {
        "status": "ok",
        "run_id": run.run_id,
        "model_uri": run.model_uri,
        "gate": asdict(decision),
        "timing_s": {"total": watch.total()},
    }


def _open(config: Config, job: str) -> tuple[str, SparkSession]:
    """Return the tracking store's URI and the Spark session; the store is opened while Spark starts."""
    features.translate(config)  # what is wrong with the SQL is told before Spark starts
    uri = tracking.tracking_uri(config)
    wait_for_store = tracking.open_store(config, uri)
    spark = session.get_session(f"{job} {config.folder.name}", config.work_dir)
    wait_for_store()
    return uri, spark


def _hand_over(
    spark: SparkSession, task: Task, outcome: launch.Outcome, watch: Stopwatch, gated: bool
) -> tuple[str, gate.Decision | None]:
    """Put all that has come of a training into the store; return the model's URI and the gate's decision, if any."""
    config, data, uri, run_id, result = task.config, task.data, task.tracking_uri, task.run_id, outcome.result
    if result.pending:
        known = delivery.logged_epochs(tracking.connect(uri), run_id)
        delivery.log_records(uri, run_id, [record for record in result.pending if record[1] not in known])
    result.pending.clear()
    tags = {"weights_sha256": result.weights_sha256}
    places = {"executors": ", ".join(place.executor for place in result.places)}
    metrics = {f"best_{name}": value for name, value in _kept_metrics(result).items()}
    metrics |= {"restarts": outcome.restarts, "resets": result.resets, "peak_memory_mib": max(result.peak_mib)}
    tracking.log_outcome(uri, run_id, metrics, tags, places)
    tracking.log_bytes(uri, run_id, result.weights, "weights/weights.safetensors")
    tracking.log_text(uri, run_id, result.weights_text, "weights/weights.txt")
    tracking.log_text(uri, run_id, result.network, "weights/network.json")
    model_uri = package.log_model(config, data, result.weights, uri, run_id)
    tracking.log_outcome(uri, run_id, {}, {"model_uri": model_uri})
    watch.lap("package")
    decision = None
    with ThreadPoolExecutor(1) as pool:
        # drawn while Spark works for the gate
        drawing = pool.submit(report.log_evaluation, uri, run_id, config, data, result)
        if config.tracking.registered_model and gated:
            decision = gate.judge(spark, config, data, uri, run_id, model_uri, result.evaluation.metrics)
            watch.lap("gate")
        page = report.render(config, data, result, decision, _timing(watch, result), drawing.result(), run_id)
    tracking.log_text(uri, run_id, page, "report.html")
    return model_uri, decision


def _keep_here(task: Task, result: TrainingResult, error: Exception) -> DeliveryError:
    """Keep in the work directory what the store has not got; return the error that says so."""
    folder = task.config.work_dir / "undelivered" / task.run_id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.safetensors").write_bytes(result.weights)  # first: what fails may be the packaging
    package.save_model(task.config, task.data, result.weights, folder / "model")
    lines = [json.dumps({"time_ms": when, **metrics}) + "\n" for when, _, metrics in result.pending]
    (folder / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
    what = "does not answer" if tracking.is_down(error) else "has not taken all that came of it"
    return DeliveryError(
        f"training has ended well, but the MLflow store {tracking.shown(task.tracking_uri)} {what} "
        f"({tracking.one_line(error)}): the model and the metrics of {len(lines)} epoch(s) are kept in {folder}; "
        "run again when the store is back"
    )


def _import_ahead() -> None:
    """Import what packaging and the report need, seconds of it, while the ranks start."""
    with suppress(ImportError):  # it will be told where it is needed
        from pipeline import scorer  # noqa: F401


def _kept_metrics(result: TrainingResult) -> dict[str, float | None]:
    """Return the validation metrics of the kept weights, and their epoch."""
    best = result.best
    metrics = {"loss": best["validation_loss"], **result.evaluation.metrics}
    # r2 of a constant label, say, is not a number, and JSON has none but numbers
    return {**{n: v if math.isfinite(v) else None for n, v in metrics.items()}, "epoch": best["epoch"]}


def _course(outcome: launch.Outcome) -> dict[str, Any]:
    """Return how the training went, as the summary has it."""
    return {
        "num_proc": len(outcome.result.places),
        "epochs": len(outcome.result.history),
        "weights_sha256": outcome.result.weights_sha256,
        "resumed_after_epoch": outcome.resumed_after_epoch,
        "restarts": outcome.restarts,
        "resets": outcome.result.resets,
    }


def _timing(watch: Stopwatch, result: TrainingResult) -> dict[str, float]:
    """Return the seconds of each stage; what horovod.spark.run took is told as the epochs, and all around them."""
    train_s = round(result.train_s, 3)
    stages = dict(watch.seconds)
    before = {name: stages.pop(name) for name in ("start", "prepare")}
    around = round(stages.pop("launch and train") - train_s, 3)
    return {**before, "launch": around, "train": train_s, **stages}


def _versions() -> dict[str, str]:
    packages = ("pyspark", "torch", "horovod", "petastorm", "mlflow", "pyarrow", "numpy", "pandas")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
