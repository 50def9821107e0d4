"""Where a rank runs: its executor, its host, its share of the cores, its GPU and its memory."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch

    from pipeline.config import Config

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
    and Kubernetes alike). A JVM that names none gets an id of its host and process.
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
    """Return which executor has more ranks than it should; None if none has, as always on a local master."""
    for executor, ranks in Counter(place.executor for place in places).items():
        if executor != DRIVER and ranks > ranks_per_executor:
            where = ", ".join(f"rank {rank} on {p.executor} ({p.host})" for rank, p in enumerate(places))
            return (
                f"{ranks} ranks are on executor {executor}, where at most {ranks_per_executor} should be ({where}); "
                "start as many executors as there are ranks, and set spark.task.cpus to spark.executor.cores so that "
                "none takes two of them, or set run.ranks_per_executor"
            )
    return None


def check_places(places: Sequence[Place], config: Config, cores: dict[str, int]) -> None:
    """Raise UserError if an executor has more ranks than `run.ranks_per_executor`; ``cores``: by executor."""
    if DRIVER not in cores and (problem := crowded(places, config.run.ranks_per_executor)):
        raise config.mistake("run.num_proc", problem)


def threads(cores: dict[str, int], places: Sequence[Place], rank: int) -> int:
    """Return the threads of a rank: its executor's cores, shared with the other ranks on it."""
    mine = places[rank].executor
    return max(1, cores.get(mine, min(cores.values(), default=1)) // sum(place.executor == mine for place in places))


def device(places: Sequence[Place], rank: int) -> torch.device:
    """Return the GPU that Spark assigned to this rank's task, else one of this host's GPUs, or the CPU if it has none.

    Raises RuntimeError when the host has fewer GPUs than ranks.
    """
    import torch

    # Horovod keeps what Spark's task context says. It has this module loaded in each rank; the module imports pyspark.
    from horovod.spark.task import get_available_devices

    if assigned := get_available_devices():  # by spark.task.resource.gpu.amount
        return torch.device(f"cuda:{assigned[0]}")
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # Counted here: for Horovod each elastic rank is on a host of its own.
    hosts, gpus = [place.host for place in places], torch.cuda.device_count()
    before, on_host = hosts[:rank].count(hosts[rank]), hosts.count(hosts[rank])
    if before >= gpus:
        problem = f"{on_host} ranks are on a machine with {gpus} GPU(s)"
        hint = "lower run.num_proc, or hide the GPUs with CUDA_VISIBLE_DEVICES= to train on the CPU"
        raise RuntimeError(f"{problem}; {hint}")
    return torch.device(f"cuda:{before}")


def peak_memory_mib() -> int:
    """Return the most memory that this process has had, in MiB; 0 where the system does not report it."""
    with suppress(OSError), open("/proc/self/status", encoding="utf-8") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) // 1024
    return 0
