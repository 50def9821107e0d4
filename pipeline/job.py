"""The main job, from the configuration to the summary."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from pipeline import evaluation, launch, session, shards, tracking
from pipeline.config import Config, load_config
from pipeline.console import Stopwatch, log
from pipeline.task import Task


def train(config_file: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Prepare the data, train on all ranks, keep everything in MLflow; return the summary for the last line of stdout.

    Raises:
        UserError: the configuration or the data is wrong.
        RankError: a rank failed.
    """
    watch = Stopwatch()
    config = load_config(config_file, overrides)
    _ = config.features_sql  # a missing file is told before Spark starts
    tracking.preload()
    spark = session.get_session(f"train {config.folder.name}")
    num_proc = session.slots(spark) if config.run.num_proc == "auto" else config.run.num_proc
    session.check_slots(spark, config, num_proc)
    prepared = shards.prepare_data(spark, config, num_proc)
    watch.lap("prepare")

    uri = tracking.tracking_uri(config)
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
        metrics = _kept_metrics(result["best"])
        tracking.log_outcome(uri, run_id, metrics, {"weights_sha256": result["weights_sha256"]})
        for path, figure in _figures(config, prepared.manifest, result).items():
            tracking.log_figure(uri, run_id, figure, path)
    watch.lap("log")
    log.info("done: %s", "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
    train_s = round(result["train_s"], 3)
    return {
        "status": "ok",
        "run_id": run_id,
        "model_uri": f"runs:/{run_id}/weights",
        "num_proc": num_proc,
        "rows": prepared.manifest.rows.model_dump(),
        "metrics": metrics,
        "weights_sha256": result["weights_sha256"],
        "reused_data": prepared.reused,
        "epochs": result["epochs"],
        "timing_s": {
            "prepare": watch.seconds["prepare"],
            "launch": round(watch.seconds["launch and train"] - train_s, 3),
            "train": train_s,
            "total": watch.total(),
        },
    }


def _kept_metrics(best: dict[str, float]) -> dict[str, float]:
    """Return the validation metrics of the kept weights under their plain names, and their epoch."""
    names = {key.removeprefix("validation_"): value for key, value in best.items() if key.startswith("validation_")}
    del names["rows"]
    return {**names, "epoch": best["epoch"]}


def _figures(config: Config, data: Any, result: dict[str, Any]) -> dict[str, Any]:
    detail, best_epoch = np.array(result["detail"]), int(result["best"]["epoch"])
    if data.label.classes:
        names = data.label.classes
        matrix = detail.reshape(len(names), len(names))
        metric, second = "accuracy", {"figures/confusion_matrix.png": evaluation.draw_confusion(matrix, names)}
    else:
        bins, stats = evaluation.HISTOGRAM_BINS, data.label.stats
        histogram = detail[-(bins**2) :].reshape(bins, bins)
        drawn = evaluation.draw_predicted_vs_actual(histogram, stats.min, stats.max, config.label.column)
        metric, second = "rmse", {"figures/predicted_vs_actual.png": drawn}
    return {"figures/loss_curves.png": evaluation.draw_curves(result["history"], metric, best_epoch), **second}


def _versions() -> dict[str, str]:
    packages = ("pyspark", "torch", "horovod", "petastorm", "mlflow", "pyarrow", "numpy", "pandas")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
