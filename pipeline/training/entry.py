"""What Horovod starts on each rank."""

from __future__ import annotations

from pipeline.training.task import RankReport, Task


def run_rank(task: Task) -> RankReport:
    """Train as one rank; Horovod starts this on each. torch is imported here, so never in the driver."""
    from pipeline.training import worker

    return worker.run_rank(task)
