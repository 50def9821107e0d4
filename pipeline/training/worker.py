"""What one rank does, from `hvd.init` to the last epoch. Horovod starts it once per executor; it knows no Spark."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

import horovod.torch as hvd
import torch
from horovod.common.exceptions import HorovodInternalError

from pipeline.runtime.errors import RowAccountingError, Stopped, StorageError, UserError
from pipeline.training import elastic
from pipeline.training.task import RankReport, ReportKind, Task, TrainingResult
from pipeline.training.trainer import checkpoint_of, train


def run_rank(task: Task) -> RankReport:
    """Train as one rank of a Horovod job; a rank that fails tells the driver why, and ends with exit code 1."""
    # one of the ranks that come and go may simply end: the others go on; and what is kept of an epoch's middle needs
    # as many ranks again
    stop_asked = _hear_sigterm() if task.config.recovery.elastic is None else lambda: False
    ended = _give_signs_of_life(task, every_s=min(10.0, task.config.recovery.stall_timeout_s / 5))
    _keep_compiler_out()
    hvd.init()
    try:
        result = _train_elastically(task) if task.is_elastic else train(task, stop_asked)
        ended.set()
        report = RankReport(hvd.rank(), result=result)
        RankReport(report.rank).send()
        return report
    except Exception as error:
        report = RankReport(_rank_now(task) or 0, *_failure(error))
    finally:
        hvd.shutdown()  # the others' next collective fails at once instead of waiting for this rank
    ended.set()
    report.send()
    sys.exit(1)  # Horovod ends the other ranks, even one that hangs


def _train_elastically(task: Task) -> TrainingResult | None:
    """Train with whatever ranks there are; when one is lost or comes, all go on from the last epoch's end."""
    try:
        committed = elastic.Committed(checkpoint_of(task))
    except FileNotFoundError:  # this rank has come later: others have gone on since, and will give it what they have
        committed = elastic.Committed(None)

    def train_in_this_world(committed: elastic.Committed) -> TrainingResult | None:
        if hvd.rank() == 0:
            RankReport(0, ReportKind.WORLD, str(hvd.size())).send()
        return train(task, committed=committed)

    result: TrainingResult | None = hvd.elastic.run(train_in_this_world)(committed)
    return result


def _failure(error: Exception) -> tuple[ReportKind, str]:
    """Return the kind of a failure and the report's text."""
    match error:
        case UserError():
            return ReportKind.MISTAKE, str(error)
        case StorageError() | RowAccountingError():
            return ReportKind.STORAGE, str(error)
        case Stopped():
            return ReportKind.STOPPED, str(error)
        case HorovodInternalError():
            return ReportKind.PEER, traceback.format_exc()
    return ReportKind.FAILURE, traceback.format_exc()


def _keep_compiler_out() -> None:
    """Spare this process torch's compiler: a second, and 65 MiB.

    Optimizers and seeds import it for nothing but to tell it to leave them alone (`torch._disable_dynamo`).
    """
    absent: Any = ModuleType("torch._dynamo")
    absent.disable = lambda function, *_, **__: function
    absent.graph_break = lambda: None
    sys.modules["torch._dynamo"] = absent
    torch._dynamo = absent


def _hear_sigterm() -> Callable[[], bool]:
    """Return a function that says whether this process was asked to end; the next step is then its last."""
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    return lambda: bool(heard)


def _give_signs_of_life(task: Task, every_s: float) -> threading.Event:
    """Tell the driver every so often that this process runs, until the event that is returned is set."""
    ended = threading.Event()

    def tell() -> None:
        while True:
            if (rank := _rank_now(task)) is not None:
                RankReport(rank, ReportKind.ALIVE).send()
            if ended.wait(every_s):
                return

    threading.Thread(target=tell, daemon=True).start()
    return ended


def _rank_now(task: Task) -> int | None:
    """Return this process's rank; None while ranks that come and go are being numbered anew."""
    if not task.is_elastic:
        return int(os.environ["HOROVOD_RANK"])
    try:
        return int(hvd.rank())
    except ValueError:
        return None
