"""Starting the ranks, and starting them again from the newest checkpoint when one is lost."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, replace
from typing import Any

from pyspark.sql import SparkSession

from pipeline.launch import elastic, executor_checks, executors, failures, watch
from pipeline.launch.horovod_patches import patched_driver
from pipeline.launch.reports import RankOutput, Reports
from pipeline.runtime import databricks, storage
from pipeline.runtime.console import log
from pipeline.runtime.errors import RankLost, UserError
from pipeline.tracking import store
from pipeline.training import checkpoint, place
from pipeline.training.entry import run_rank
from pipeline.training.task import RankReport, Task, TrainingResult

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5, 60
_LOG_EVERY_S = 10


@dataclass(frozen=True)
class Outcome:
    """What a training resulted in."""

    result: TrainingResult
    resumed_after_epoch: int | None
    """The last epoch of an earlier job; None if this job began the training."""
    restarts: int
    """How often this job has started the ranks again."""


def run_ranks(spark: SparkSession, task: Task, num_proc: int) -> Outcome:
    """Train on ``num_proc`` ranks; when a rank is lost, start all of them again from the newest checkpoint.

    Raises:
        UserError: the settings or the data are wrong; another attempt would fail in the same way.
        StorageError: a rank cannot write or read its files.
        RankError: a rank failed; the message holds the traceback of the rank that failed first.
        RankLost: ranks were lost more often than `recovery.max_restarts` allows.
    """
    restarts, max_restarts = 0, task.config.recovery.max_restarts
    task, resumed_after_epoch = _with_newest_checkpoint(spark, task)
    if resumed_after_epoch is not None:
        log.info("an earlier job has left a checkpoint: going on after epoch %d", resumed_after_epoch)
    while True:
        try:
            return Outcome(attempt(spark, task, num_proc), resumed_after_epoch, restarts)
        except RankLost as lost:
            if restarts == max_restarts:
                problem = f"{lost}; restarts: {restarts} (recovery.max_restarts)"
                raise RankLost(f"{problem}; run the same command to go on from the newest checkpoint") from None
            restarts += 1
            log.warning("%s; this is restart %d of %d", lost, restarts, max_restarts)
            _pause_before(restarts)
            num_proc = _await_executors_again(spark, task, num_proc, lost)
            task, _ = _with_newest_checkpoint(spark, task)


def attempt(spark: SparkSession, task: Task, num_proc: int) -> TrainingResult:
    """Run all ranks once and return rank 0's result. Raises what :func:`run_ranks` does, and RankLost for one rank."""
    log.info("launching %d rank(s) with Horovod", num_proc)
    reports, stall_timeout_s = Reports(task.is_elastic), task.config.recovery.stall_timeout_s
    with (
        patched_driver(),
        watch.errors_of_spark_job() as spark_errors,
        watch.watching(spark, reports, stall_timeout_s),
    ):
        try:
            returned = _run_horovod(spark, task, num_proc, reports)
        except Exception as error:
            cause = spark_errors[0] if spark_errors else error
            raise failures.explain(spark, reports, num_proc, stall_timeout_s, cause) from None
    result = returned[0].result
    assert result is not None
    return result


def _run_horovod(spark: SparkSession, task: Task, num_proc: int, reports: Reports) -> list[RankReport]:
    """Start the ranks and return what each of them returns, in their order."""
    import horovod.spark

    run, python = task.config.run, _python_of_ranks(spark)
    options: dict[str, Any] = {
        "num_proc": num_proc,
        "start_timeout": run.start_timeout_s,
        "env": _environment(task, num_proc),
        "nics": run.network_interfaces,
        "stdout": reports,
        "stderr": RankOutput(reports.started),
        "verbose": 0,
    }
    task = replace(task, tracking_uri=databricks.uri_for_ranks(task.tracking_uri))
    if task.is_elastic:
        return elastic.run(spark, python, task, **options)
    return list(horovod.spark.run(run_rank, (task,), use_gloo=True, executable=python, **options))


def _with_newest_checkpoint(spark: SparkSession, task: Task) -> tuple[Task, int | None]:
    """Return the task as the next attempt needs it, and the epoch of the checkpoint it continues from, if any."""
    newest = checkpoint.newest(task.checkpoints, task.cache)
    cores = executors.cores(spark)
    is_elastic = task.config.recovery.elastic is not None and place.DRIVER not in cores
    name, epoch = (newest[0], newest[1].epoch) if newest else (None, None)
    return replace(task, checkpoint=name, cores=cores, is_elastic=is_elastic), epoch


def _pause_before(restart: int) -> None:
    """Wait until the processes of the last attempt are gone: 5, 10, 20, … s, at most 60."""
    left = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (restart - 1))
    while left > 0:
        log.info("starting all ranks again in %d s", left)
        time.sleep(min(left, _LOG_EVERY_S))
        left -= _LOG_EVERY_S


def _await_executors_again(spark: SparkSession, task: Task, num_proc: int, lost: RankLost) -> int:
    """Wait for the executors of the next attempt, since the cluster may replace a lost one; return its ranks.

    Raises:
        RankLost: the executors have not come; the message also holds why ranks were ``lost``.
    """
    try:
        ready = executors.await_ranks(spark, task.config)
        num_proc = ready if task.is_elastic else num_proc
        executor_checks.check_executors(spark, task.config, num_proc)
    except UserError as error:
        raise RankLost(f"{lost}; the ranks cannot be started again: {error}") from None
    return num_proc


def _python_of_ranks(spark: SparkSession) -> str:
    """Return the Python that ranks run: on the driver's own machine the driver's, else that of the executors' tasks.

    On Databricks the driver's Python is on a disk that all nodes share.
    """
    is_here = executors.local_slots(str(spark.sparkContext.master)) is not None or databricks.is_runtime()
    return sys.executable if is_here else str(spark.sparkContext.pythonExec)


def _environment(task: Task, num_proc: int) -> dict[str, str]:
    """Return the variables of every rank: its share of the cores, how long it waits, and credentials of the stores."""
    sharing = num_proc if place.DRIVER in task.cores else task.config.run.ranks_per_executor
    threads = str(max(1, min(task.cores.values(), default=1) // sharing))  # the rank sets torch's exact number itself
    stall_timeout_s = task.config.recovery.stall_timeout_s
    return {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        # threads that wait for work must not spin on the cores of Horovod's own threads
        "OMP_WAIT_POLICY": "passive",
        "PYTHONWARNINGS": "ignore::FutureWarning,ignore::DeprecationWarning,ignore::UserWarning",
        # when a rank hangs, the others wait for its messages (gloo) or for its part of a sum (the stall check)
        "HOROVOD_GLOO_TIMEOUT_SECONDS": str(stall_timeout_s),
        "HOROVOD_STALL_CHECK_TIME_SECONDS": str(max(1, stall_timeout_s // 2)),
        "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": str(stall_timeout_s),
        "HOROVOD_LOG_LEVEL": "fatal",  # the driver reports a rank's failure, and once is enough
        **{name: os.environ[name] for name in store.CREDENTIALS + storage.CREDENTIALS if name in os.environ},
        **databricks.credentials(task.tracking_uri),
    }
