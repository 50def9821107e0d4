"""`horovod.spark.run`: one training process per Spark task slot, and their reports brought together."""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from pyspark.sql import SparkSession

from pipeline.launch import elastic, executors
from pipeline.launch.horovod_patches import patched_driver
from pipeline.runtime import databricks, storage
from pipeline.runtime.console import log
from pipeline.runtime.errors import RankError, RankLost, StorageError, UserError, one_line
from pipeline.tracking import store
from pipeline.training import checkpoint, place
from pipeline.training.entry import run_rank
from pipeline.training.task import REPORT, RankReport, ReportKind, Task, TrainingResult

_LAST_WORDS_S = 5  # for the other ranks, when one has failed


@dataclass(frozen=True)
class Outcome:
    """What has come of a training."""

    result: TrainingResult
    resumed_after_epoch: int | None
    """The last epoch of an earlier job; None: this one began."""
    restarts: int
    """How often this job has started the ranks again."""


def run_ranks(spark: SparkSession, task: Task, num_proc: int) -> Outcome:
    """Train on ``num_proc`` ranks; when one is lost, start all again from the newest checkpoint.

    Raises:
        UserError: the settings or the data are wrong; the same would happen again.
        StorageError: a rank cannot write or read what it must.
        RankError: a rank failed; the message holds the traceback of the one that failed first.
        RankLost: ranks were lost more than `recovery.max_restarts` times.
    """
    limit, restarts = task.config.recovery.max_restarts, 0
    resumed_after_epoch = None
    while True:
        found = checkpoint.newest(task.checkpoints, task.cache)
        cores = executors.cores(spark)
        is_elastic = task.config.recovery.elastic is not None and place.DRIVER not in cores
        task = replace(task, checkpoint=found[0] if found else None, cores=cores, is_elastic=is_elastic)
        if found and not restarts:
            resumed_after_epoch = found[1].epoch
            log.info("an earlier job has left a checkpoint: going on after epoch %d", resumed_after_epoch)
        try:
            return Outcome(attempt(spark, task, num_proc), resumed_after_epoch, restarts)
        except RankLost as lost:
            if restarts == limit:
                again = f"restarts: {restarts} (recovery.max_restarts); run the same command to go on"
                raise RankLost(f"{lost}; {again} from the newest checkpoint") from None
            restarts += 1
            pause = min(60, 5 * 2 ** (restarts - 1))  # what is left of the ranks before is gone by then
            log.warning("%s; starting all ranks again in %d s (%d of %d)", lost, pause, restarts, limit)
            time.sleep(pause)
            try:  # a lost executor may be on its way back
                ready = executors.await_ranks(spark, task.config)
                num_proc = ready if is_elastic else num_proc
                executors.check_executors(spark, task.config, num_proc)
            except UserError as error:
                raise RankLost(f"{lost}; and the ranks cannot be started again: {error}") from None


def attempt(spark: SparkSession, task: Task, num_proc: int) -> TrainingResult:
    """Run all ranks once and return rank 0's result. Raises what :func:`run_ranks` does, and RankLost for one rank."""
    import horovod.spark

    log.info("launching %d rank(s) with Horovod", num_proc)
    heard = threading.Event()
    threading.Thread(target=_show_life, args=(heard,), daemon=True).start()
    reports, ended = _Reports(heard, task.is_elastic), threading.Event()
    limit_s = task.config.recovery.stall_timeout_s
    threading.Thread(target=_end_hanging_ranks, args=(spark, reports, ended, limit_s), daemon=True).start()
    died_of: list[BaseException] = []
    print_of_threads, threading.excepthook = threading.excepthook, _keep_for_horovod(died_of)
    run, recovery = task.config.run, task.config.recovery
    to_ranks = replace(task, tracking_uri=databricks.uri_for_ranks(task.tracking_uri))
    options = {
        "num_proc": num_proc,
        "start_timeout": run.start_timeout_s,
        "env": _environment(task, num_proc),
        "nics": run.network_interfaces,
        # stdout is for the summary alone
        "stdout": reports,
        "stderr": _Relay(heard),
        "verbose": 0,
    }
    returned: list[RankReport]
    try:
        with patched_driver():
            if recovery.elastic and task.is_elastic:
                least, most = recovery.elastic.min, recovery.elastic.max
                options |= {"min_num_proc": least, "max_num_proc": most, "elastic_timeout": recovery.stall_timeout_s}
                returned = elastic.run(spark, _executable(spark), run.ranks_per_executor, to_ranks, **options)
            else:
                python = _executable(spark)
                returned = horovod.spark.run(run_rank, (to_ranks,), use_gloo=True, executable=python, **options)
    except UserError:  # the installed Horovod is another one
        raise
    except Exception as error:
        cause = died_of[0] if died_of else error
        raise _explained(spark, task, num_proc, reports, cause) from None
    finally:
        threading.excepthook = print_of_threads
        ended.set()
        heard.set()
    result = returned[0].result
    assert result is not None
    return result


def _explained(spark: SparkSession, task: Task, num_proc: int, reports: _Reports, error: BaseException) -> Exception:
    """Return the error that says what has happened to the ranks, by what they have reported."""
    deadline = time.monotonic() + 3
    while len(reports.received) < num_proc - 1 and time.monotonic() < deadline:
        time.sleep(0.1)  # the last words of a rank may still be on their way
    by_kind = {report.kind: report for report in reversed(reports.received)}
    if report := by_kind.get(ReportKind.MISTAKE):
        return UserError(report.text)
    if report := by_kind.get(ReportKind.STORAGE):
        return StorageError(report.text)
    if report := by_kind.get(ReportKind.FAILURE):
        return RankError(f"rank {report.rank} of {num_proc} failed:\n{report.text}")
    if not _is_running(spark):
        return RankError("Spark was stopped while the ranks trained; run the same command to go on")
    if report := by_kind.get(ReportKind.STOPPED):
        return RankLost(f"rank {report.rank} of {num_proc} was told to end: {report.text}")
    silent = sorted(set(range(num_proc)) - {report.rank for report in reports.received})
    if not reports.received and not reports.anything:
        return RankError(f"training on {num_proc} ranks failed before they began: {one_line(error)}")
    which = f"rank {', '.join(map(str, silent))} of {num_proc} was lost" if silent else "the ranks lost each other"
    return RankLost(
        f"{which}: it ended without a word, or kept the others waiting for {task.config.recovery.stall_timeout_s} s"
    )


def _is_running(spark: SparkSession) -> bool:
    try:
        return not spark.sparkContext._jsc.sc().isStopped()
    except Exception:  # the JVM is gone
        return False


def _show_life(heard: threading.Event, every_s: float = 10) -> None:
    """Say that the ranks are still starting (Spark tasks, processes, imports) until one of them has been heard."""
    begin = time.monotonic()
    while not heard.wait(every_s):
        log.info("waiting for the ranks to start (%.0f s)", time.monotonic() - begin)


def _end_hanging_ranks(spark: SparkSession, reports: _Reports, ended: threading.Event, limit_s: int) -> None:
    """End what is left of the ranks when one has failed, or is silent for too long: Horovod would wait for ever."""
    from horovod.spark.driver import job_id

    while not ended.wait(1):
        if reports.failed.is_set() or reports.longest_silence_s() > limit_s:
            if not ended.wait(_LAST_WORDS_S):
                with contextlib.suppress(Exception):  # Spark itself may be gone
                    spark.sparkContext.cancelJobGroup(f"horovod.spark.run.{job_id.JOB_ID}")
            return


def _keep_for_horovod(died_of: list[BaseException]) -> Callable[[threading.ExceptHookArgs], None]:
    """Return what keeps the error of Horovod's thread with the Spark job, and prints those of other threads."""

    def hook(args: threading.ExceptHookArgs) -> None:
        if not (args.thread and "run_spark" in args.thread.name):
            threading.__excepthook__(args)
        elif args.exc_value:
            died_of.append(args.exc_value)

    return hook


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


class _Reports(_Relay):
    """Keeps the reports that failing ranks print on stdout, and passes on the rest."""

    def __init__(self, heard: threading.Event, is_elastic: bool) -> None:
        super().__init__(heard)
        self._is_elastic = is_elastic
        self.received: list[RankReport] = []
        self.failed = threading.Event()
        self._heard_at: dict[int, float] = {}
        """When each rank that has begun, and has not ended, has last given a sign of life."""
        self._begun: dict[int, str] = {}
        """What has come of a line so far; each rank's output comes in a thread of its own."""

    def _take(self, report: RankReport) -> None:
        if report.kind == ReportKind.ALIVE:
            self._heard_at[report.rank] = time.monotonic()
            return
        if report.kind == ReportKind.WORLD:
            # of ranks that are gone there will be no sign any more
            self._heard_at = dict.fromkeys(range(int(report.text)), time.monotonic())
            return
        self._heard_at.pop(report.rank, None)
        if report.kind != ReportKind.DONE:
            self.received.append(report)
        if report.kind != ReportKind.DONE and not (self._is_elastic and report.kind == ReportKind.PEER):
            self.failed.set()

    def longest_silence_s(self) -> float:
        """Return for how long the rank that is silent for longest has given no sign of life."""
        return time.monotonic() - min(self._heard_at.copy().values(), default=math.inf) if self._heard_at else 0.0

    @property
    def anything(self) -> bool:
        """Whether any rank has printed anything, here or on stderr."""
        return self._heard.is_set()

    def write(self, text: str) -> int:
        """Take what one rank has printed."""
        *lines, begun = (self._begun.get(threading.get_ident(), "") + text).split("\n")
        self._begun[threading.get_ident()] = begun
        for line in lines:
            _, mark, report = line.partition(REPORT)
            if mark:
                self._take(RankReport.parse(report))
            else:
                super().write(line + "\n")
        return len(text)


def _executable(spark: SparkSession) -> str:
    """Return the Python that ranks run: the driver's own on its own machine, else that of the executors' tasks.

    On Databricks the driver's is on a disk that all nodes share.
    """
    is_here = executors.local_slots(str(spark.sparkContext.master)) is not None or databricks.is_runtime()
    return sys.executable if is_here else str(spark.sparkContext.pythonExec)


def _environment(task: Task, num_proc: int) -> dict[str, str]:
    """Environment of every rank: its share of the cores, what opens the stores, no warnings of other people's code."""
    sharing = num_proc if place.DRIVER in task.cores else task.config.run.ranks_per_executor
    threads = str(max(1, min(task.cores.values(), default=1) // sharing))  # torch is told the exact number later
    return {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        # threads that wait for work must not spin on the cores of Horovod's own
        "OMP_WAIT_POLICY": "passive",
        "PYTHONWARNINGS": "ignore::FutureWarning,ignore::DeprecationWarning,ignore::UserWarning",
        # a rank that hangs: its peers wait for its messages (gloo), or for its part of a sum (the stall check)
        "HOROVOD_GLOO_TIMEOUT_SECONDS": str(task.config.recovery.stall_timeout_s),
        "HOROVOD_STALL_CHECK_TIME_SECONDS": str(max(1, task.config.recovery.stall_timeout_s // 2)),
        "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": str(task.config.recovery.stall_timeout_s),
        "HOROVOD_LOG_LEVEL": "fatal",  # a rank's failure is told once, in the driver
        **{name: os.environ[name] for name in store.CREDENTIALS + storage.CREDENTIALS if name in os.environ},
        **databricks.credentials(task.tracking_uri),
    }
