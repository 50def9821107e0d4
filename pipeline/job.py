"""The main job, from the configuration to the summary."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from pipeline import features, gate, launch, package, report, session, shards, tracking
from pipeline.config import load_config
from pipeline.console import Stopwatch, log
from pipeline.task import Task, TrainingResult


def train(config_file: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Prepare the data, train on all ranks, keep everything in MLflow; return the summary for the last line of stdout.

    Raises:
        UserError: the configuration or the data is wrong.
        RankError: a rank failed.
    """
    watch = Stopwatch()
    config = load_config(config_file, overrides)
    features.translate(config)  # what is wrong with the SQL is told before Spark starts
    uri = tracking.tracking_uri(config)
    wait_for_store = tracking.open_store(config, uri)
    spark = session.get_session(f"train {config.folder.name}", config.work_dir)
    num_proc = session.slots(spark) if config.run.num_proc == "auto" else config.run.num_proc
    session.check_slots(spark, config, num_proc)
    wait_for_store()
    prepared = shards.prepare_data(spark, config, num_proc)
    compared = package.check_parity(spark, config)
    log.info("Spark and DuckDB make the same features of %d rows: a model will see what training saw", compared)
    watch.lap("prepare")

    with tracking.open_run(config, uri) as run_id:
        tracking.log_setup(uri, run_id, config, prepared.manifest, _versions(), num_proc)
        task = Task(
            config=config,
            data=prepared.manifest,
            folder=prepared.folder,
            tracking_uri=uri,
            run_id=run_id,
            threads=session.cores_per_rank(spark, num_proc),
        )
        result = launch.run_ranks(spark, task, num_proc)
        watch.lap("launch and train")
        metrics = _kept_metrics(result)
        tracking.log_outcome(uri, run_id, metrics, {"weights_sha256": result.weights_sha256})
        model_uri = package.log_model(config, prepared.manifest, uri, run_id)
        watch.lap("package")
        decision = None
        if config.tracking.registered_model:
            decision = gate.judge(spark, config, prepared.manifest, uri, run_id, model_uri, result.evaluation)
            watch.lap("gate")
        timing_s = _timing(watch, result)
        report.log_report(uri, run_id, config, prepared.manifest, result, decision, timing_s)
    log.info("done: %s", "  ".join(f"{name} {value:.4g}" for name, value in metrics.items() if value is not None))
    return {
        "status": "ok",
        "run_id": run_id,
        "model_uri": model_uri,
        "num_proc": num_proc,
        "rows": prepared.manifest.rows.model_dump(),
        "metrics": metrics,
        "weights_sha256": result.weights_sha256,
        "reused_data": prepared.reused,
        "epochs": len(result.history),
        "gate": asdict(decision) if decision else None,
        "timing_s": {**timing_s, "total": watch.total()},
    }


def _kept_metrics(result: TrainingResult) -> dict[str, float | None]:
    """Return the validation metrics of the kept weights, and their epoch."""
    best = result.best
    metrics = {"loss": best["validation_loss"], **result.evaluation.metrics}
    # r2 of a constant label, say, is not a number, and JSON has none but numbers
    return {**{n: v if math.isfinite(v) else None for n, v in metrics.items()}, "epoch": best["epoch"]}


def _timing(watch: Stopwatch, result: TrainingResult) -> dict[str, float]:
    """Return the seconds of each stage; what horovod.spark.run took is told as the epochs, and all around them."""
    train_s = round(result.train_s, 3)
    stages = dict(watch.seconds)
    around = round(stages.pop("launch and train") - train_s, 3)
    return {"prepare": stages.pop("prepare"), "launch": around, "train": train_s, **stages}


def _versions() -> dict[str, str]:
    packages = ("pyspark", "torch", "horovod", "petastorm", "mlflow", "pyarrow", "numpy", "pandas")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
