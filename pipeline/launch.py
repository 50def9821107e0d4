"""`horovod.spark.run`: one training process per Spark task slot, and their reports brought together."""

from __future__ import annotations

import codecs
import logging
import os
import re
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from pyspark.sql import SparkSession

from pipeline import databricks, placement, storage, tracking
from pipeline.console import log
from pipeline.errors import RankError
from pipeline.task import RankReport, Task, TrainingResult, run_rank


def run_ranks(spark: SparkSession, task: Task, num_proc: int) -> TrainingResult:
    """Train on ``num_proc`` ranks and return rank 0's result.

    Raises:
        UserError: the ranks are not where they should be.
        RankError: a rank failed; the message holds the traceback of the one that failed first.
    """
    import horovod.spark

    logging.getLogger("horovod").setLevel(logging.WARNING)
    _hear_ranks_at_once()
    log.info("launching %d rank(s) with Horovod", num_proc)
    heard = threading.Event()
    threading.Thread(target=_show_life, args=(heard,), daemon=True).start()
    try:
        reports: list[RankReport] = horovod.spark.run(
            run_rank,
            args=(replace(task, tracking_uri=databricks.uri_for_ranks(task.tracking_uri)),),
            num_proc=num_proc,
            start_timeout=task.config.run.start_timeout_s,
            use_gloo=True,
            env=_environment(task, num_proc),
            nics=task.config.run.network_interfaces,
            executable=_executable(spark),
            # stdout is for the summary alone
            stdout=_Relay(heard),
            stderr=_Relay(heard),
            verbose=0,
        )
    except Exception as error:
        raise RankError(f"training on {num_proc} ranks failed before every rank could report: {error}") from error
    finally:
        heard.set()
    if mistake := next((report.mistake for report in reports if report.mistake), None):
        raise task.config.mistake("run.num_proc", mistake)
    failed = [report for report in reports if report.error]
    if failed:
        first = next((report for report in failed if not report.stopped_by_peer), failed[0])
        raise RankError(f"rank {first.rank} of {num_proc} failed:\n{first.error}")
    result = reports[0].result
    assert result is not None
    return result


def _show_life(heard: threading.Event, every_s: float = 10) -> None:
    """Say that the ranks are still starting (Spark tasks, processes, imports) until one of them has been heard."""
    begin = time.monotonic()
    while not heard.wait(every_s):
        log.info("waiting for the ranks to start (%.0f s)", time.monotonic() - begin)


def _hear_ranks_at_once() -> None:
    """Make Horovod pass on what ranks print when they print it.

    The driver copies their output with shutil.copyfileobj, which waits for 64 KiB of it: for the end of most trainings.
    """
    from horovod.runner.common.util import network

    def copy(source: Any, target: Any) -> None:
        decode = codecs.getincrementaldecoder("utf8")("replace").decode
        while chunk := source.stream.read1(65536):
            target.write(decode(chunk))

    network.shutil = SimpleNamespace(copyfileobj=copy)


class _Relay:
    """Passes on what ranks print, without the `[rank]<stream>:` that Horovod puts before each line."""

    def __init__(self, heard: threading.Event) -> None:
        self._heard = heard

    def write(self, text: str) -> int:
        """Write to the driver's stderr."""
        self._heard.set()
        return sys.stderr.write(re.sub(r"^\[\d+\]<std(?:out|err)>:", "", text, flags=re.MULTILINE))

    def flush(self) -> None:
        """Flush the driver's stderr."""
        sys.stderr.flush()


def _executable(spark: SparkSession) -> str:
    """Return the Python that ranks run: the driver's own on its own machine, else that of the executors' tasks.

    On Databricks the driver's is on a disk that all nodes share.
    """
    is_here = placement.local_slots(str(spark.sparkContext.master)) is not None or databricks.is_runtime()
    return sys.executable if is_here else str(spark.sparkContext.pythonExec)


def _environment(task: Task, num_proc: int) -> dict[str, str]:
    """Environment of every rank: its share of the cores, what opens the stores, no warnings of other people's code."""
    sharing = num_proc if placement.DRIVER in task.cores else task.config.run.ranks_per_executor
    threads = str(max(1, min(task.cores.values(), default=1) // sharing))  # torch is told the exact number later
    return {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        # threads that wait for work must not spin on the cores of Horovod's own
        "OMP_WAIT_POLICY": "passive",
        "PYTHONWARNINGS": "ignore::FutureWarning,ignore::DeprecationWarning,ignore::UserWarning",
        "HOROVOD_LOG_LEVEL": "fatal",  # a rank's failure is told once, in the driver
        **{name: os.environ[name] for name in tracking.CREDENTIALS + storage.CREDENTIALS if name in os.environ},
        **databricks.credentials(task.tracking_uri),
    }
