"""What the driver hands to a rank, and what a rank hands back. Light to import: both sides need it first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Config
from pipeline.evaluation import Evaluation
from pipeline.manifest import Manifest


@dataclass(frozen=True)
class Task:
    """The same for every rank."""

    config: Config
    data: Manifest
    folder: Path
    """Of the prepared data set."""
    tracking_uri: str
    run_id: str
    threads: int
    """Cores of a rank's share of its machine."""


@dataclass(frozen=True)
class TrainingResult:
    """What rank 0 hands back."""

    weights_sha256: str
    """Of the kept weights' safetensors file."""
    best: dict[str, float]
    """The kept epoch's record: epoch, learning_rate, rows_per_s, and rows, loss and metrics of each split."""
    evaluation: Evaluation
    """Of the kept weights, on the validation rows."""
    history: list[dict[str, float]]
    """The record of every epoch."""
    train_s: float
    """Seconds from the first epoch to the last."""


@dataclass
class RankReport:
    """The result of rank 0, or the traceback of a rank that failed."""

    rank: int
    result: TrainingResult | None = None
    error: str | None = None
    stopped_by_peer: bool = False
    """This rank was well, but another one had ended."""


def run_rank(task: Task) -> RankReport:
    """Train as one rank; Horovod starts this on each. torch is imported here, so never in the driver."""
    from pipeline import worker

    return worker.run_rank(task)
