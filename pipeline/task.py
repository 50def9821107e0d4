"""What the driver hands to a rank, and what a rank hands back. Light to import: both sides need it first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import Config
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


@dataclass
class RankReport:
    """The result of rank 0, or the traceback of a rank that failed."""

    rank: int
    result: dict[str, Any] | None = None
    error: str | None = None
    stopped_by_peer: bool = False
    """This rank was well, but another one had ended."""
