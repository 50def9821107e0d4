"""The records that driver and ranks exchange. Light to import: both sides need them first."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from pipeline.config import Config
from pipeline.data.manifest import Manifest
from pipeline.evaluation.metrics import EpochRecord, Evaluation, Importance
from pipeline.runtime.storage import Folder
from pipeline.training.placement import Place

Cache = Literal["memory", "stream"]
"""Whether a rank keeps its rows in memory, or reads them again in every epoch."""


@dataclass(frozen=True)
class Task:
    """What the driver asks of the ranks; the same for every rank."""

    config: Config
    data: Manifest
    folder: Folder
    """Where the prepared data set is."""
    tracking_uri: str
    run_id: str
    cores: dict[str, int]
    """Cores of each executor, by its id."""
    checkpoints: Folder
    """Where the checkpoints of this training are."""
    checkpoint: str | None = None
    """Name of the checkpoint to resume from; None: begin."""
    cache: Cache = "memory"
    is_elastic: bool = False
    """Whether ranks may come and go while training runs."""


@dataclass(frozen=True)
class TrainingResult:
    """What rank 0 returns."""

    weights_sha256: str
    """Checksum of the kept weights' safetensors file, which is in :attr:`Task.checkpoints`."""
    weights_text: str
    """The kept weights as text, for people; of a large network the shapes only."""
    network: str
    """The network's NetSpec as JSON."""
    best: EpochRecord
    """The epoch whose weights are kept."""
    evaluation: Evaluation
    """All metrics of the kept weights on the test rows, or on the validation rows if there are no test rows."""
    validation: Evaluation
    """The same on the validation rows."""
    uncalibrated: Evaluation | None
    """Like :attr:`evaluation`, with temperature 1; None if the temperature is 1."""
    importance: list[Importance]
    """Of each feature on the rows of the measured split, the greatest first."""
    temperature: float
    """The packaged model divides the network's outputs by it; see training/temperature.py."""
    threshold: float
    """The packaged model predicts `label.positive` from this probability on; see evaluation/threshold.py."""
    history: list[EpochRecord]
    """Every epoch, in order."""
    places: list[Place]
    """Where each rank ran."""
    pending: list[EpochRecord]
    """The epochs that the tracking store has not confirmed."""
    train_s: float
    """Seconds from the beginning of the first epoch to the end of the last."""
    peak_mib: list[int]
    """The most memory that each rank has had, in MiB."""
    resets: int = 0
    """How often ranks have come or gone."""


class ReportKind(StrEnum):
    """What a rank reports."""

    DONE = "done"
    """The rank has ended its training."""
    ALIVE = "alive"
    """The rank's process runs."""
    WORLD = "world"
    """The ranks have new numbers; the text is the number of ranks."""
    MISTAKE = "mistake"
    """The settings or the data are wrong; the text is the sentence for the user."""
    STORAGE = "storage"
    """The rank cannot read or write its files; the text is the sentence for the user."""
    STOPPED = "stopped"
    """The rank stopped after a SIGTERM and wrote a checkpoint; the text says where."""
    PEER = "peer"
    """Another rank has ended, so this one cannot go on; the text is the traceback."""
    FAILURE = "failure"
    """The rank failed in any other way; the text is the traceback."""


REPORT = "rank report: "


@dataclass
class RankReport:
    """What a rank reports to the driver: rank 0's result, why a rank failed, or a sign of life."""

    rank: int
    kind: ReportKind = ReportKind.DONE
    text: str = ""
    """The sentence, the traceback, or the number of ranks: see :class:`ReportKind`."""
    result: TrainingResult | None = None

    def send(self) -> None:
        """Print the report without the result as one line of stdout. Horovod carries it to the driver at once.

        Horovod hands over what a rank returns only when no rank fails.
        """
        # One write: another thread of the rank may report at the same time.
        sys.stdout.write(REPORT + json.dumps([self.rank, self.kind, self.text]) + "\n")
        sys.stdout.flush()

    @classmethod
    def parse(cls, line: str) -> RankReport:
        """Return the report that :meth:`send` has printed; ``line`` is without the mark `REPORT`."""
        rank, kind, text = json.loads(line)
        return cls(rank, ReportKind(kind), text)
