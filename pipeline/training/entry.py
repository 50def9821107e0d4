"""The function that Horovod starts on each rank."""

from __future__ import annotations

from pipeline.training.task import RankReport, Task


def run_rank(task: Task) -> RankReport:
    """Train as one rank. The import is here, since the driver imports this module and must not import torch."""
    from pipeline.training import worker

    return worker.run_rank(task)
