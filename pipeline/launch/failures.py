"""Why a training failed: the one error that names the cause, made from what the ranks have reported."""

from __future__ import annotations

import time

from pyspark.sql import SparkSession

from pipeline.launch.reports import Reports
from pipeline.runtime.errors import RankError, RankLost, StorageError, UserError, one_line
from pipeline.training.task import ReportKind

_LATE_REPORTS_S = 3


def explain(
    spark: SparkSession, reports: Reports, num_proc: int, stall_timeout_s: int, error: BaseException
) -> Exception:
    """Return the error to raise when Horovod has raised ``error``.

    A report of a rank says more than Horovod's error, which names the rank that ended first, not the one that failed.

    Returns:
        UserError, StorageError or RankError if another attempt would fail in the same way, else RankLost.
    """
    _await_late_reports(reports, num_proc)
    first = {report.kind: report for report in reversed(reports.failures)}
    if report := first.get(ReportKind.MISTAKE):
        return UserError(report.text)
    if report := first.get(ReportKind.STORAGE):
        return StorageError(report.text)
    if report := first.get(ReportKind.FAILURE):
        return RankError(f"rank {report.rank} of {num_proc} failed:\n{report.text}")
    if not _is_running(spark):
        return RankError("Spark was stopped while the ranks trained; run the same command to go on")
    if report := first.get(ReportKind.STOPPED):
        return RankLost(f"rank {report.rank} of {num_proc} received SIGTERM: {report.text}")
    if not reports.failures and not reports.started.is_set():
        return RankError(f"training on {num_proc} ranks failed before they began: {one_line(error)}")
    silent = sorted(set(range(num_proc)) - {report.rank for report in reports.failures})
    lost = f"rank {', '.join(map(str, silent))} of {num_proc} was lost" if silent else "the ranks lost each other"
    return RankLost(f"{lost}: a rank ended without a report, or the others waited for it for {stall_timeout_s} s")


def _await_late_reports(reports: Reports, num_proc: int) -> None:
    """Wait until all ranks except the lost one have reported, at most for 3 s: reports may still be on their way."""
    deadline = time.monotonic() + _LATE_REPORTS_S
    while len(reports.failures) < num_proc - 1 and time.monotonic() < deadline:
        time.sleep(0.1)


def _is_running(spark: SparkSession) -> bool:
    try:
        return not spark.sparkContext._jsc.sc().isStopped()
    except Exception:  # the JVM is gone
        return False
