"""Where a rank runs: its executor, its host, its share of the cores."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

DRIVER = "driver"  # what Spark calls the one executor of a local master


@dataclass(frozen=True)
class Place:
    """Where one rank runs."""

    executor: str
    """Spark's id of the executor, as in its UI."""
    host: str


def here() -> Place:
    """Return where this process runs.

    A rank is a descendant of its executor's JVM, whose command line names the id (`--executor-id`, on standalone, YARN
    and Kubernetes alike). A JVM that names none is told from others by its host and process.
    """
    host = socket.gethostname()
    for process in psutil.Process().parents():
        try:
            command, name = process.cmdline(), process.name()
        except psutil.Error:
            continue
        if "--executor-id" in command[:-1]:
            return Place(command[command.index("--executor-id") + 1], host)
        if name == "java":
            return Place(DRIVER if "org.apache.spark.deploy.SparkSubmit" in command else f"{host}:{process.pid}", host)
    return Place(f"{host}:{os.getppid()}", host)


def crowded(places: Sequence[Place], ranks_per_executor: int) -> str | None:
    """Say which executor has more ranks than it should; None when all is well, as it always is on a local master."""
    for executor, ranks in Counter(place.executor for place in places).items():
        if executor != DRIVER and ranks > ranks_per_executor:
            where = ", ".join(f"rank {rank} on {p.executor} ({p.host})" for rank, p in enumerate(places))
            return (
                f"{ranks} ranks are on executor {executor}, where at most {ranks_per_executor} should be ({where}); "
                "start as many executors as there are ranks, and set spark.task.cpus to spark.executor.cores so that "
                "none takes two of them, or set run.ranks_per_executor"
            )
    return None


def threads(cores: dict[str, int], places: Sequence[Place], rank: int) -> int:
    """Return the threads of a rank: its executor's cores, shared with the other ranks on it."""
    mine = places[rank].executor
    return max(1, cores.get(mine, min(cores.values(), default=1)) // sum(place.executor == mine for place in places))
