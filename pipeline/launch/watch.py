"""While the ranks run: the job shows that it waits for them, and ends them when one hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pyspark.sql import SparkSession

from pipeline.launch.reports import Reports
from pipeline.runtime.console import log

_LOG_EVERY_S = 10
_GRACE_S = 5
"""The seconds that the other ranks have to report when one has failed."""


@contextmanager
def watching(spark: SparkSession, reports: Reports, stall_timeout_s: float) -> Iterator[None]:
    """Watch the ranks while the block runs.

    Until a rank has printed something, a log line every 10 s says that they start. When a rank has failed, or gives no
    sign of life for ``stall_timeout_s``, all are ended: Horovod would wait for ever.
    """
    ended = threading.Event()
    threading.Thread(target=_show_start, args=(reports.started,), daemon=True).start()
    threading.Thread(target=_end_hanging_ranks, args=(spark, reports, ended, stall_timeout_s), daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        reports.started.set()


@contextmanager
def errors_of_spark_job() -> Iterator[list[BaseException]]:
    """Collect the errors of Horovod's Spark job while the block runs.

    Horovod runs the job in a thread of its own, whose errors Python would print. Errors of other threads are printed.
    """
    errors: list[BaseException] = []
    print_error = threading.excepthook

    def collect(failure: threading.ExceptHookArgs) -> None:
        if not (failure.thread and "run_spark" in failure.thread.name):
            print_error(failure)
        elif failure.exc_value:
            errors.append(failure.exc_value)

    threading.excepthook = collect
    try:
        yield errors
    finally:
        threading.excepthook = print_error


def _show_start(started: threading.Event) -> None:
    begin = time.monotonic()
    while not started.wait(_LOG_EVERY_S):
        log.info("waiting for the ranks to start (%.0f s)", time.monotonic() - begin)


def _end_hanging_ranks(spark: SparkSession, reports: Reports, ended: threading.Event, stall_timeout_s: float) -> None:
    from horovod.spark.driver import job_id

    while not ended.wait(1):
        if reports.failed.is_set() or reports.longest_silence_s() > stall_timeout_s:
            if not ended.wait(_GRACE_S):
                with suppress(Exception):  # Spark itself may be gone
                    spark.sparkContext.cancelJobGroup(f"horovod.spark.run.{job_id.JOB_ID}")
            return
