"""The work of this project and of its peers; each function returns the seconds that it took."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from benchmark import distributor
from benchmark.work import PENGUINS
from pipeline import predict
from pipeline.config import Config
from pipeline.data import parity, shards
from pipeline.data.shards import Prepared
from pipeline.launch.ranks import attempt
from pipeline.tracking import runs, store
from pipeline.training import placement
from pipeline.training.loader import StreamedShard
from pipeline.training.task import Cache, Task, TrainingResult

RANKS = 2


@dataclass(frozen=True)
class Job:
    """What a whole job took, in seconds, from the start of its process."""

    total: float
    train: float
    """The epochs alone."""
    around: float
    """All but preparation and epochs: so also the start of Spark."""


def bare_copy(spark: SparkSession, csv: Path, schema: str, target: Path) -> float:
    """Have Spark read the CSV under its schema and write it as Parquet; return the seconds."""
    begin = time.perf_counter()
    spark.read.schema(schema).option("header", True).csv(str(csv)).write.mode("overwrite").parquet(str(target))
    seconds = time.perf_counter() - begin
    shutil.rmtree(target)
    return seconds


def prepare(spark: SparkSession, config: Config) -> tuple[float, Prepared]:
    """Prepare the data anew and compare features, as the job does; return the seconds, and what came of it."""
    config.data_dir.remove()
    config.data_dir.make()
    begin = time.perf_counter()
    prepared = shards.prepare_data(spark, config, RANKS)
    parity.check_parity(config, prepared.resolved, prepared.folder, prepared.manifest.offsets)
    return time.perf_counter() - begin, prepared


def train(
    spark: SparkSession, config: Config, prepared: Prepared, ranks: int = RANKS, cache: Cache = "memory"
) -> TrainingResult:
    """Train as the main job does, with MLflow and checkpoints, without preparation and gate; one core per rank."""
    uri = store.tracking_uri(config)
    store.open_store(config, uri)()
    run_id = runs.start_run(config, uri)
    checkpoints = config.checkpoint_dir / run_id
    checkpoints.make()
    cores = {placement.DRIVER: ranks}
    task = Task(config, prepared.manifest, prepared.folder, uri, run_id, cores, checkpoints, cache=cache)
    result = attempt(spark, task, ranks)
    checkpoints.remove()
    return result


def epoch_seconds(result: TrainingResult) -> list[float]:
    """Return what each epoch took, validation and accounting included; keeping its weights is not (milliseconds)."""
    return [record.train.rows / record.rows_per_s for record in result.history]


def floor_epochs(config: Config, prepared: Prepared, epochs: int) -> list[float]:
    """Run the processes of the floor at the same time; return the seconds of each epoch, in the slower process."""
    command = [sys.executable, "-m", "benchmark.floor"]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(RANKS)
    ]
    for rank, process in enumerate(running):
        assert process.stdin
        process.stdin.write(json.dumps([str(config.file), prepared.folder.path, rank, RANKS, epochs]))
        process.stdin.close()
        process.stdin = None
    try:
        outputs = [process.communicate(timeout=1800)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    if any(process.returncode for process in running):
        raise RuntimeError(f"the floor's processes ended with {[process.returncode for process in running]}")
    return [max(pair) for pair in zip(*map(json.loads, outputs), strict=True)]


def distributor_epochs(config: Config, prepared: Prepared, epochs: int) -> list[float]:
    """Train with TorchDistributor; return what each epoch took."""
    from pyspark.ml.torch.distributor import TorchDistributor

    trainer = TorchDistributor(num_processes=RANKS, local_mode=True, use_gpu=False)
    seconds = trainer.run(distributor.train, str(config.file), prepared.folder.path, epochs)
    assert seconds is not None
    return list(seconds)


def no_op_launch() -> float:
    """Have Horovod start ranks that return at once; return the seconds."""
    import horovod.spark

    begin = time.perf_counter()
    horovod.spark.run(_no_op, num_proc=RANKS, use_gloo=True, verbose=0, stdout=sys.stderr, stderr=sys.stderr)
    return time.perf_counter() - begin


def _no_op() -> None:
    pass


def our_job(work_dir: Path) -> Job:
    """Run the main job on the penguins in a process of its own, with an empty work directory."""
    shutil.rmtree(work_dir, ignore_errors=True)
    script = PENGUINS.parents[2] / "jobs" / "train.py"
    options = ["--config", str(PENGUINS), "--set", f"run.work_dir={work_dir}"]
    total, summary = _submitted(script, *options)
    timing = summary["timing_s"]
    return Job(total, timing["train"], total - timing["train"] - timing["prepare"])


def lab_job(folder: Path) -> Job:
    """Run the lab's notebook as a job in a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    total, summary = _submitted(Path(__file__).with_name("lab.py"), str(PENGUINS.parent / "penguins.csv"), str(folder))
    return Job(total, summary["train"], 0.0)


def _submitted(script: Path, *arguments: str) -> tuple[float, dict[str, Any]]:
    begin = time.perf_counter()
    ran = subprocess.run(
        ["spark-submit", str(script), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise RuntimeError(f"{script} ended with {ran.returncode}:\n{ran.stderr[-3000:]}")
    return time.perf_counter() - begin, json.loads(ran.stdout.splitlines()[-1])


def score(model: str, csv: Path, target: Path, uri: str) -> float:
    """Score the CSV with a model; return the seconds."""
    begin = time.perf_counter()
    predict.predict_files(model, [str(csv)], str(target), "parquet", uri)
    seconds = time.perf_counter() - begin
    shutil.rmtree(target)
    return seconds


def largest_share(config: Config, prepared: Prepared) -> float:
    """Stream rank 0's shard for an epoch; return the largest share of a full batch that came from one row group.

    The first feature identifies a row: hardly any two rows have the same value.
    """
    first, size = config.feature_columns[0], int(config.training.batch_size)
    files = [group.path for group in prepared.manifest.splits["train"].row_groups[::RANKS]]
    columns = [pq.read_table((prepared.folder / path).path, columns=[first])[first].to_numpy() for path in files]
    group_of = np.repeat(np.arange(len(files)), [len(column) for column in columns])
    values = np.concatenate(columns)
    order = np.argsort(values)
    values, group_of = values[order], group_of[order]
    shares = [0.0]
    for features, labels, _ in StreamedShard(prepared.folder, prepared.manifest, "train", 0, RANKS).epoch(
        size, 0, 1, 0
    ):
        if len(labels) == size:
            groups = group_of[np.searchsorted(values, features[:, 0].numpy())]
            shares.append(np.bincount(groups).max() / size)
    return max(shares)


def after_the_first(seconds: list[float]) -> float:
    """Return the median of all epochs but the first, which also warms up."""
    return statistics.median(seconds[1:] or seconds)
