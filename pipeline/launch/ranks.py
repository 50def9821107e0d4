"""One attempt of a training: Horovod starts a rank on each executor, and rank 0 returns the result."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import Any

from pyspark.sql import SparkSession

from pipeline.launch import elastic, executors, failures, watch
from pipeline.launch.horovod_patches import patched_driver
from pipeline.launch.reports import RankOutput, Reports
from pipeline.runtime import databricks, storage
from pipeline.runtime.console import log
from pipeline.tracking import store
from pipeline.training import placement
from pipeline.training.entry import run_rank
from pipeline.training.task import RankReport, Task, TrainingResult


def attempt(spark: SparkSession, task: Task, num_proc: int) -> TrainingResult:
    """Run all ranks once and return rank 0's result. Raises what
    :func:`pipeline.launch.restarts.run_ranks` does, and RankLost for one rank.
    """
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


def _python_of_ranks(spark: SparkSession) -> str:
    """Return the Python that ranks run: on the driver's own machine the driver's, else that of the executors' tasks.

    On Databricks the driver's Python is on a disk that all nodes share.
    """
    is_here = executors.local_slots(str(spark.sparkContext.master)) is not None or databricks.is_runtime()
    return sys.executable if is_here else str(spark.sparkContext.pythonExec)


def _environment(task: Task, num_proc: int) -> dict[str, str]:
    """Return the variables of every rank: its share of the cores, how long it waits, and credentials of the stores."""
    sharing = num_proc if placement.DRIVER in task.cores else task.config.run.ranks_per_executor
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
