"""The main job, from the configuration to the summary."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import evaluation, features, launch, package, session, shards, tracking
from pipeline.config import Config, load_config
from pipeline.console import Stopwatch, log
from pipeline.manifest import Manifest
from pipeline.task import Task, TrainingResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
        metrics = _kept_metrics(result.best)
        tracking.log_outcome(uri, run_id, metrics, {"weights_sha256": result.weights_sha256})
        model_uri = package.log_model(config, prepared.manifest, uri, run_id)
        for path, figure in _figures(config, prepared.manifest, result).items():
            tracking.log_figure(uri, run_id, figure, path)
    watch.lap("log")
    log.info("done: %s", "  ".join(f"{name} {value:.4g}" for name, value in metrics.items() if value is not None))
    train_s = round(result.train_s, 3)
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
        "timing_s": {
            "prepare": watch.seconds["prepare"],
            "launch": round(watch.seconds["launch and train"] - train_s, 3),
            "train": train_s,
            "total": watch.total(),
        },
    }


def _kept_metrics(best: dict[str, float]) -> dict[str, float | None]:
    """Return the validation metrics of the kept weights under their plain names, and their epoch."""
    names = {key.removeprefix("validation_"): value for key, value in best.items() if key.startswith("validation_")}
    del names["rows"]
    # r2 of a constant label, say, is not a number, and JSON has none but numbers
    return {**{n: v if math.isfinite(v) else None for n, v in names.items()}, "epoch": best["epoch"]}


def _figures(config: Config, data: Manifest, result: TrainingResult) -> dict[str, Figure]:
    detail, best_epoch = np.array(result.detail), int(result.best["epoch"])
    if data.label.classes:
        names = data.label.classes
        matrix = detail.reshape(len(names), len(names))
        metric, second = "accuracy", {"figures/confusion_matrix.png": evaluation.draw_confusion(matrix, names)}
    else:
        bins, stats = evaluation.HISTOGRAM_BINS, data.label.stats
        assert stats is not None
        histogram = detail[-(bins**2) :].reshape(bins, bins)
        drawn = evaluation.draw_predicted_vs_actual(histogram, stats.min, stats.max, config.label.column)
        metric, second = "rmse", {"figures/predicted_vs_actual.png": drawn}
    return {"figures/loss_curves.png": evaluation.draw_curves(result.history, metric, best_epoch), **second}


def _versions() -> dict[str, str]:
    packages = ("pyspark", "torch", "horovod", "petastorm", "mlflow", "pyarrow", "numpy", "pandas")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
