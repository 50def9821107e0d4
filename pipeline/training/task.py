"""What the driver hands to a rank, and what a rank hands back. Light to import: both sides need it first."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass

from pipeline.config import Config
from pipeline.data.manifest import Manifest
from pipeline.evaluation.metrics import Evaluation
from pipeline.runtime.storage import Folder
from pipeline.training.place import Place


@dataclass(frozen=True)
class Task:
    """The same for every rank."""

    config: Config
    data: Manifest
    folder: Folder
    """Of the prepared data set."""
    tracking_uri: str
    run_id: str
    cores: dict[str, int]
    """Of each executor, by its id."""
    checkpoints: Folder
    """Of this training."""
    checkpoint: str | None = None
    """The one that it goes on from."""
    cache: str = "memory"
    """Whether a rank keeps its rows in `memory`, or reads them in every epoch: `stream`."""
    is_elastic: bool = False
    """Whether ranks may come and go."""


@dataclass(frozen=True)
class TrainingResult:
    """What rank 0 hands back."""

    weights: bytes
    """The kept weights as a safetensors file."""
    weights_text: str
    """The same for people."""
    network: str
    """JSON: all that is needed to build the network again."""
    best: dict[str, float]
    """The kept epoch's record: epoch, learning_rate, rows_per_s, and rows, loss and metrics of each split."""
    evaluation: Evaluation
    """Of the kept weights, on the validation rows."""
    history: list[dict[str, float]]
    """The record of every epoch."""
    places: list[Place]
    """Where each rank ran."""
    pending: list[tuple[int, int, dict[str, float]]]
    """The epochs that the tracking store has not got: time in ms, epoch, metrics."""
    train_s: float
    """Seconds from the first epoch to the last."""
    peak_mib: list[int]
    """The most memory that each rank has had, in MiB."""
    resets: int = 0
    """How often ranks have come or gone."""

    @property
    def weights_sha256(self) -> str:
        """Of the kept weights' safetensors file."""
        return hashlib.sha256(self.weights).hexdigest()


REPORT = "rank report: "


@dataclass
class RankReport:
    """The result of rank 0, or why a rank failed."""

    rank: int
    kind: str = "done"
    """done; alive: still at work; world: the ranks are numbered anew; mistake, storage or stopped, each with its
    sentence; peer: this rank was well, but another one had ended; failure: anything else"""
    said: str = ""
    """The sentence, or the traceback."""
    result: TrainingResult | None = None

    def send(self) -> None:
        """Tell the driver over stdout, which Horovod carries there: what ranks return comes only if all are well."""
        # in one write, for another thread may be telling that this rank is alive
        sys.stdout.write(REPORT + json.dumps([self.rank, self.kind, self.said]) + "\n")
        sys.stdout.flush()
