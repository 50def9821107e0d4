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

from pipeline import gate
from pipeline.config import ConfigFiles, load_config
from pipeline.data import parity, shards
from pipeline.evaluation import decision, report
from pipeline.launch import executors, memory, ranks, resume
from pipeline.launch.start import open_job
from pipeline.runtime.console import Stopwatch, log
from pipeline.runtime.errors import DeliveryError, hide_password, one_line
from pipeline.tracking import metric_writer, package, runs, store
from pipeline.training.task import Task, TrainingResult

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def train(
    config_files: ConfigFiles, overrides: Sequence[str] = (), gated: bool = True, fresh: bool = False
) -> dict[str, Any]:
    """Prepare the data, train on all ranks, keep everything in MLflow; return the summary for the last line of stdout.

    A training that was interrupted goes on from its newest checkpoint, unless it is to begin ``fresh``. With ``gated``,
    and a `tracking.registered_model`, the gate decides about the model; else :func:`pipeline.gate.judge` may, later.

    Raises:
        UserError: the configuration or the data is wrong, or another job does the same training.
        RankError: a rank failed.
        StorageError: there is no room.
        DeliveryError: training has ended, but the store has not taken what came of it.
    """
    watch = Stopwatch()
    config = load_config(config_files, overrides)
    uri, spark = open_job(config, "train")
    watch.lap("start")
    shards.open_data_dir(config)
    num_proc = executors.await_ranks(spark, config)
    executors.check_executors(spark, config, num_proc)
    most_ranks = config.recovery.elastic.max if config.recovery.elastic else num_proc
    prepared = shards.prepare_data(spark, config, most_ranks)
    compared = parity.check_parity(spark, config)
    log.info("Spark and DuckDB make the same features of %d rows: a model will see what training saw", compared)
    watch.lap("prepare")

    fewest_ranks = config.recovery.elastic.min if config.recovery.elastic else num_proc
    cache = memory.cache(spark, config, prepared.manifest, fewest_ranks)
    with (
        resume.claim(config, prepared.manifest, num_proc, fresh) as training,
        runs.open_run(config, uri, training.run_id) as run_id,
    ):
        training.remember(run_id)
        with store.told_if_down(uri):
            runs.log_setup(uri, run_id, config, prepared.manifest, _versions(), num_proc)
        cores = executors.cores(spark)
        task = Task(config, prepared.manifest, prepared.folder, uri, run_id, cores, training.folder, cache=cache)
        Thread(target=_import_ahead, daemon=True).start()
        outcome = ranks.run_ranks(spark, task, num_proc)
        result = outcome.result
        watch.lap("launch and train")
        try:
            model_uri, decision = _hand_over(spark, task, outcome, watch, gated)
        except Exception as error:  # whatever goes wrong here must not cost the model
            raise _keep_here(task, result, error) from (None if store.is_down(error) else error)
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


def _hand_over(
    spark: SparkSession, task: Task, outcome: ranks.Outcome, watch: Stopwatch, gated: bool
) -> tuple[str, decision.Decision | None]:
    """Put all that has come of a training into the store; return the model's URI and the gate's decision, if any."""
    config, data, uri, run_id, result = task.config, task.data, task.tracking_uri, task.run_id, outcome.result
    if result.pending:
        known = metric_writer.logged_epochs(store.connect(uri), run_id)
        metric_writer.log_records(uri, run_id, [record for record in result.pending if record.epoch not in known])
    result.pending.clear()
    tags = {"weights_sha256": result.weights_sha256}
    places = {"executors": ", ".join(place.executor for place in result.places)}
    metrics = {f"best_{name}": value for name, value in _kept_metrics(result).items()}
    metrics |= {"restarts": outcome.restarts, "resets": result.resets, "peak_memory_mib": max(result.peak_mib)}
    runs.log_outcome(uri, run_id, metrics, tags, places)
    runs.log_bytes(uri, run_id, result.weights, "weights/weights.safetensors")
    runs.log_text(uri, run_id, result.weights_text, "weights/weights.txt")
    runs.log_text(uri, run_id, result.network, "weights/network.json")
    model_uri = package.log_model(config, data, result.weights, uri, run_id)
    runs.log_outcome(uri, run_id, {}, {"model_uri": model_uri})
    watch.lap("package")
    decision = None
    with ThreadPoolExecutor(1) as pool:
        # drawn while Spark works for the gate
        drawing = pool.submit(report.log_evaluation, uri, run_id, config, data, result)
        if config.tracking.registered_model and gated:
            run = runs.LoggedRun(run_id, model_uri, result.evaluation.metrics, data)
            decision = gate.judge_candidate(spark, config, uri, run)
            watch.lap("gate")
        page = report.render(config, data, result, decision, _timing(watch, result), drawing.result(), run_id)
    runs.log_text(uri, run_id, page, "report.html")
    return model_uri, decision


def _keep_here(task: Task, result: TrainingResult, error: Exception) -> DeliveryError:
    """Keep in the work directory what the store has not got; return the error that says so."""
    folder = task.config.work_dir / "undelivered" / task.run_id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.safetensors").write_bytes(result.weights)  # first: what fails may be the packaging
    package.save_model(task.config, task.data, result.weights, folder / "model")
    epochs = [{"time_ms": record.ended_ms, **metric_writer.finite(record.values)} for record in result.pending]
    lines = [json.dumps(epoch) + "\n" for epoch in epochs]
    (folder / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
    what = "does not answer" if store.is_down(error) else "has not taken all that came of it"
    return DeliveryError(
        f"training has ended well, but the MLflow store {hide_password(task.tracking_uri)} {what} "
        f"({one_line(error)}): the model and the metrics of {len(lines)} epoch(s) are kept in {folder}; "
        "run again when the store is back"
    )


def _import_ahead() -> None:
    """Import what packaging and the report need, seconds of it, while the ranks start."""
    with suppress(ImportError):  # it will be told where it is needed
        import pipeline.model.scorer  # noqa: F401


def _kept_metrics(result: TrainingResult) -> dict[str, float | None]:
    """Return the validation metrics of the kept weights, and their epoch."""
    best = result.best
    metrics = {"loss": best.validation.loss, **result.evaluation.metrics}
    # r2 of a constant label, say, is not a number, and JSON has none but numbers
    return {**{n: v if math.isfinite(v) else None for n, v in metrics.items()}, "epoch": best.epoch}


def _course(outcome: ranks.Outcome) -> dict[str, Any]:
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
