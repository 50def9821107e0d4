"""Restarts: all ranks are started again from the newest checkpoint when one is lost."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from pyspark.sql import SparkSession

from pipeline.launch import executor_checks, executors, ranks
from pipeline.runtime.console import log
from pipeline.runtime.errors import RankLost, UserError
from pipeline.training import checkpoint, placement
from pipeline.training.task import Task, TrainingResult

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
            return Outcome(ranks.attempt(spark, task, num_proc), resumed_after_epoch, restarts)
        except RankLost as lost:
            if restarts == max_restarts:
                problem = f"{lost}; restarts: {restarts} (recovery.max_restarts)"
                raise RankLost(f"{problem}; run the same command to go on from the newest checkpoint") from None
            restarts += 1
            log.warning("%s; this is restart %d of %d", lost, restarts, max_restarts)
            _pause_before(restarts)
            num_proc = _await_executors_again(spark, task, num_proc, lost)
            task, _ = _with_newest_checkpoint(spark, task)


def _with_newest_checkpoint(spark: SparkSession, task: Task) -> tuple[Task, int | None]:
    """Return the task as the next attempt needs it, and the epoch of the checkpoint it continues from, if any."""
    newest = checkpoint.newest(task.checkpoints, task.cache)
    cores = executors.cores(spark)
    is_elastic = task.config.recovery.elastic is not None and placement.DRIVER not in cores
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
