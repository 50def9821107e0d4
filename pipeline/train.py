"""The main job: CSV in, a tracked model out."""

from __future__ import annotations

import json
import math
import platform
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from threading import Thread
from typing import TYPE_CHECKING, Any

from pipeline import gate
from pipeline.config import Config, ConfigFiles, load_config
from pipeline.data import kept, parity, shards
from pipeline.data.specs import Resolved, Trained
from pipeline.evaluation import baselines, figures, report
from pipeline.evaluation.baselines import Beside
from pipeline.evaluation.decision import Decision
from pipeline.evaluation.metrics import Evaluation
from pipeline.launch import executor_checks, executors, horovod_version, memory, restarts, resume
from pipeline.launch.start import open_job
from pipeline.runtime.console import Stopwatch, log
from pipeline.runtime.errors import DeliveryError, hide_password, one_line
from pipeline.tracking import metric_writer, package, runs, store
from pipeline.training import checkpoint
from pipeline.training.task import Task, TrainingResult

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def train(
    config_files: ConfigFiles, overrides: Sequence[str] = (), gated: bool = True, fresh: bool = False
) -> dict[str, Any]:
    """Prepare the data, train on all ranks, keep everything in MLflow; return the summary for the last line of stdout.

    An interrupted training goes on from its newest checkpoint, unless ``fresh`` is true. With ``gated`` and a
    `tracking.registered_model` the gate decides about the model; otherwise :func:`pipeline.gate.judge` can, later.

    Raises:
        UserError: the configuration or the data is wrong, or another job does the same training.
        RankError: a rank failed.
        StorageError: there is no room.
        DeliveryError: training has ended, but the store has not accepted all results.
    """
    watch = Stopwatch()
    config = load_config(config_files, overrides)
    horovod_version.check_version()
    uri, spark = open_job(config, "train")
    watch.lap("start")

    shards.open_data_dir(config)
    num_proc = executors.await_ranks(spark, config)
    executor_checks.check_executors(spark, config, num_proc)
    elastic = config.recovery.elastic
    prepared = shards.prepare_data(spark, config, elastic.max if elastic else num_proc)
    parity.check_parity(config, prepared.resolved, prepared.folder, prepared.manifest.offsets)
    kept.prune(config, prepared.manifest.fingerprint)
    watch.lap("prepare")

    cache = memory.choose_cache(spark, config, prepared.manifest, elastic.min if elastic else num_proc)
    with (
        kept.in_use(prepared.folder),
        resume.claim(config, prepared.manifest, num_proc, fresh) as training,
        runs.open_run(config, uri, training.run_id) as run_id,
    ):
        training.remember(run_id)
        with store.delivery_errors(uri):
            runs.log_setup(uri, run_id, config, prepared.manifest, _versions(), num_proc)
        cores = executors.cores(spark)
        task = Task(config, prepared.manifest, prepared.folder, uri, run_id, cores, training.folder, cache=cache)
        Thread(target=_import_ahead, args=[config], daemon=True).start()
        outcome = restarts.run_ranks(spark, task, num_proc)
        weights = checkpoint.read_weights(task.checkpoints, outcome.result.weights_sha256)
        trained = Trained(weights, outcome.result.temperature, outcome.result.threshold)
        watch.lap("launch and train")
        try:
            model_uri, decision, beside = _deliver(spark, task, outcome, prepared.resolved, trained, watch, gated)
        except Exception as error:  # no failure after the training may cost the model
            raise _keep_locally(task, outcome.result, prepared.resolved, trained, error) from (
                None if store.is_down(error) else error
            )
        training.forget()
    return _summary(task, outcome, model_uri, prepared.reused, decision, beside, watch)


def _log_model(task: Task, outcome: restarts.Outcome, resolved: Resolved, trained: Trained) -> str:
    """Log metrics, weights and the packaged model; return the model's URI."""
    uri, run_id, result = task.tracking_uri, task.run_id, outcome.result
    if result.pending:
        logged = metric_writer.logged_epochs(store.connect(uri), run_id)
        metric_writer.log_records(uri, run_id, [record for record in result.pending if record.epoch not in logged])
    result.pending.clear()
    metrics = {f"best_{name}": value for name, value in _kept_metrics(result, result.evaluation).items()}
    validated = _kept_metrics(result, result.validation)
    metrics |= {f"best_validation_{name}": value for name, value in validated.items() if name != "epoch"}
    metrics |= {
        "temperature": result.temperature,
        "threshold": result.threshold,
        "restarts": outcome.restarts,
        "resets": result.resets,
        "peak_memory_mib": max(result.peak_mib),
    }
    tags = {"weights_sha256": result.weights_sha256, "metrics_of": task.data.measured_split}
    places = {"executors": ", ".join(place.executor for place in result.places)}
    runs.log_outcome(uri, run_id, metrics, tags, places)
    runs.log_bytes(uri, run_id, trained.weights, "weights/weights.safetensors")
    runs.log_text(uri, run_id, result.weights_text, "weights/weights.txt")
    runs.log_text(uri, run_id, result.network, "weights/network.json")
    model_uri = package.log_model(task.config, task.data, resolved, trained, uri, run_id)
    runs.log_outcome(uri, run_id, {}, {"model_uri": model_uri})
    return model_uri


def _deliver(
    spark: SparkSession,
    task: Task,
    outcome: restarts.Outcome,
    resolved: Resolved,
    trained: Trained,
    watch: Stopwatch,
    gated: bool,
) -> tuple[str, Decision | None, Beside | None]:
    """Log the model, let the gate decide, if it may, log the report; return the model's URI, decision and baselines."""
    uri, config, result = task.tracking_uri, task.config, outcome.result
    run, decision = _trained_run(task, result), None
    with ThreadPoolExecutor(2) as pool:  # while the driver waits for the store and for Spark
        drawing = pool.submit(_log_figures, uri, run)
        model_uri = _log_model(task, outcome, resolved, trained)
        watch.lap("package")
        # Not before: if the store is down, the model must not wait for the trees.
        fitting = pool.submit(baselines.measure, spark, config, task.data, task.folder, trained)
        if config.tracking.registered_model and gated:
            logged = runs.LoggedRun(task.run_id, model_uri, result.evaluation.metrics, task.data)
            decision = gate.judge_candidate(spark, config, uri, logged)
            watch.lap("gate")
        svg, beside = drawing.result(), fitting.result()
    watch.lap("baselines")
    _warn_of_threshold(config, result)
    if beside:
        log.info("on the same rows: %s", beside.line(config.gate_metric))
        runs.log_outcome(uri, task.run_id, beside.as_metrics(), {})
    page = report.render(run, decision, beside, _timing(watch, result), svg)
    runs.log_text(uri, task.run_id, page, "report.html")
    return model_uri, decision, beside


def _warn_of_threshold(config: Config, result: TrainingResult) -> None:
    """Warn if no threshold does what `label.threshold` asks for, on the validation rows that chose it."""
    rule = config.label.threshold_rule
    if rule is None:
        return
    reached = result.validation.metrics[rule.metric]
    if reached < rule.least or not reached > 0:
        log.warning(
            "label.threshold: %s is not reached on the validation rows: %s is %.4g there with the threshold %.4g",
            config.label.threshold,
            rule.metric,
            reached,
            result.threshold,
        )


def _trained_run(task: Task, result: TrainingResult) -> report.TrainedRun:
    return report.TrainedRun(
        name=task.config.folder.name,
        run_id=task.run_id,
        data=task.data,
        config=task.config,
        history=result.history,
        best_epoch=result.best.epoch,
        evaluation=result.evaluation,
        validation=result.validation,
        uncalibrated=result.uncalibrated,
        temperature=result.temperature,
        threshold=result.threshold,
        importance=result.importance,
    )


def _log_figures(uri: str, trained: report.TrainedRun) -> dict[str, str]:
    """Log `figures/` and `evaluation/evaluation.json`; return the figures as SVG by name."""
    drawn = report.draw(trained)
    for name, figure in drawn.items():
        runs.log_figure(uri, trained.run_id, figure, f"figures/{name}.png")
    runs.log_text(uri, trained.run_id, report.as_json(trained), "evaluation/evaluation.json")
    return {name: figures.as_svg(figure) for name, figure in drawn.items()}


def _keep_locally(
    task: Task, result: TrainingResult, resolved: Resolved, trained: Trained, error: Exception
) -> DeliveryError:
    """Write the model and the metrics that the store lacks to the work directory; return the error that names it."""
    folder = task.config.work_dir / "undelivered" / task.run_id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.safetensors").write_bytes(trained.weights)  # first: the packaging may be what fails
    for name in ("model", "model.part"):  # of an earlier job of this training, which the store refused, too
        shutil.rmtree(folder / name, ignore_errors=True)
    package.save_model(task.config, task.data, resolved, trained, folder / "model.part")
    (folder / "model.part").rename(folder / "model")
    epochs = [{"time_ms": record.ended_ms, **metric_writer.finite(record.values)} for record in result.pending]
    lines = [json.dumps(epoch) + "\n" for epoch in epochs]
    (folder / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
    failure = "does not answer" if store.is_down(error) else "has not accepted all results"
    return DeliveryError(
        f"training has ended well, but the MLflow store {hide_password(task.tracking_uri)} {failure} "
        f"({one_line(error)}): the model and the metrics of {len(lines)} epoch(s) are kept in {folder}; "
        "run again when the store is back"
    )


def _summary(
    task: Task,
    outcome: restarts.Outcome,
    model_uri: str,
    reused: bool,
    decision: Decision | None,
    beside: Beside | None,
    watch: Stopwatch,
) -> dict[str, Any]:
    """Return the summary for the last line of stdout."""
    result, metrics = outcome.result, _kept_metrics(outcome.result, outcome.result.evaluation)
    log.info("done: %s", "  ".join(f"{name} {value:.4g}" for name, value in metrics.items() if value is not None))
    return {
        "status": "ok",
        "run_id": task.run_id,
        "model_uri": model_uri,
        "rows": task.data.rows.model_dump(),
        "missing": task.data.missing,
        "metrics": metrics,
        "metrics_of": task.data.measured_split,
        "baselines": beside.as_json() if beside else {},
        "temperature": result.temperature,
        "threshold": result.threshold,
        "validation_metrics": _kept_metrics(result, result.validation),
        "reused_data": reused,
        "num_proc": len(result.places),
        "epochs": len(result.history),
        "weights_sha256": result.weights_sha256,
        "resumed_after_epoch": outcome.resumed_after_epoch,
        "restarts": outcome.restarts,
        "resets": result.resets,
        "gate": asdict(decision) if decision else None,
        "timing_s": {**_timing(watch, result), "total": watch.total()},
    }


def _import_ahead(config: Config) -> None:
    """Import what packaging and baselines need while the ranks start; the import takes seconds."""
    with suppress(ImportError):  # the import where it is needed raises it again
        import pipeline.model.scorer  # noqa: F401

        if config.evaluation.baselines:
            import sklearn.ensemble  # noqa: F401


def _kept_metrics(result: TrainingResult, evaluation: Evaluation) -> dict[str, float | None]:
    """Return the metrics of the kept weights in an evaluation of them, and their epoch."""
    metrics = {"loss": evaluation.loss, **evaluation.metrics}
    # JSON has no NaN, and r2 of a constant label is one
    plain = {n: v if v is not None and math.isfinite(v) else None for n, v in metrics.items()}
    return {**plain, "epoch": result.best.epoch}


def _timing(watch: Stopwatch, result: TrainingResult) -> dict[str, float]:
    """Return the seconds of each stage; `launch` is the time of horovod.spark.run around the epochs."""
    train_s = round(result.train_s, 3)
    stages = dict(watch.seconds)
    before = {name: stages.pop(name) for name in ("start", "prepare")}
    launch_s = round(stages.pop("launch and train") - train_s, 3)
    return {**before, "launch": launch_s, "train": train_s, **stages}


def _versions() -> dict[str, str]:
    packages = ("pyspark", "torch", "horovod", "petastorm", "mlflow", "pyarrow", "numpy", "pandas")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
