"""What one rank does, from joining the others to its report. Horovod starts it once per executor; it knows no Spark."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Callable

from pipeline.runtime.errors import RowAccountingError, Stopped, StorageError, UserError
from pipeline.training import checkpoint, elastic, late_compiler
from pipeline.training.exchange import PeerLost, Ranks, current_rank
from pipeline.training.task import RankReport, ReportKind, Task, TrainingResult
from pipeline.training.trainer import Trainer


def run_rank(task: Task) -> RankReport:
    """Train as one rank of a Horovod job. A rank that fails reports why to the driver and ends with exit code 1."""
    # SIGTERM makes fixed ranks stop together and keep a part of an epoch. An elastic rank simply ends, since the others
    # go on; and they may be too few or too many to go on within an epoch.
    stop_asked = _catch_sigterm() if task.config.recovery.elastic is None else lambda: False

    # The driver takes a rank that gives no sign of life for lost.
    ended = _report_life(task, every_s=min(10.0, task.config.recovery.stall_timeout_s / 5))

    late_compiler.install()
    ranks = Ranks.start()
    try:
        if task.is_elastic:
            result = _train_elastically(task, ranks)
        else:
            result = Trainer(task, ranks, checkpoint.of_task(task), stop_asked).train()
        ended.set()
        report = RankReport(ranks.rank, result=result)
        RankReport(report.rank).send()
        return report
    except Exception as error:
        report = RankReport(current_rank(task.is_elastic) or 0, *_failure(error))
    finally:
        ranks.shut_down()
    ended.set()
    report.send()
    sys.exit(1)  # Horovod then ends the other ranks, also one that hangs


def _train_elastically(task: Task, ranks: Ranks) -> TrainingResult | None:
    """Train with the ranks that there are. When one is lost or comes, all go on from the end of the last epoch."""
    try:
        committed = elastic.Committed(checkpoint.of_task(task), ranks)
    except FileNotFoundError:  # This rank came later: the others have gone on since, and will send their state.
        committed = elastic.Committed(None, ranks)

    def train(committed: elastic.Committed) -> TrainingResult | None:
        if ranks.rank == 0:
            RankReport(0, ReportKind.WORLD, str(ranks.size)).send()
        return Trainer(task, ranks, committed.content).train(committed)

    return elastic.run(train, committed)


def _failure(error: Exception) -> tuple[ReportKind, str]:
    """Return the kind of a failure and the report's text."""
    match error:
        case UserError():
            return ReportKind.MISTAKE, str(error)
        case StorageError() | RowAccountingError():
            return ReportKind.STORAGE, str(error)
        case Stopped():
            return ReportKind.STOPPED, str(error)
        case PeerLost():
            return ReportKind.PEER, traceback.format_exc()
    return ReportKind.FAILURE, traceback.format_exc()


def _catch_sigterm() -> Callable[[], bool]:
    """Catch SIGTERM; return a function that returns whether it has come. The next step is then the last."""
    received: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    return lambda: bool(received)


def _report_life(task: Task, every_s: float) -> threading.Event:
    """Report to the driver every ``every_s`` seconds that this process runs, until the returned event is set."""
    ended = threading.Event()

    def report() -> None:
        while True:
            if (rank := current_rank(task.is_elastic)) is not None:
                RankReport(rank, ReportKind.ALIVE).send()
            if ended.wait(every_s):
                return

    threading.Thread(target=report, daemon=True).start()
    return ended
