"""One rank per Spark executor: how many executors there are, which of them a rank is on, and whether that is right.

Preparation wants a task per core, training a rank per executor, in one application. Spark's scheduler gives a stage's
tasks to the executors in turns, one each, so as many ranks as there are idle executors land on different ones, as long
as all executors are there before the ranks start. So the driver waits for them, and before the first step the ranks
tell each other where they are. (Stage-level resources would be the other way, but horovod.spark.run makes its own RDD.)
"""

from __future__ import annotations

import os
import re
import socket
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from pipeline.config import Config
from pipeline.console import log

if TYPE_CHECKING:
    from pyspark import SparkConf
    from pyspark.sql import SparkSession

DRIVER = "driver"  # what Spark calls the one executor of a local master
_SETTLED_S = 5  # executors whose number nobody has set have all come when there is no new one for so long


@dataclass(frozen=True)
class Executor:
    """A live executor, as the driver knows it."""

    id: str
    host: str
    cores: int


@dataclass(frozen=True)
class Place:
    """Where one rank runs."""

    executor: str
    """Spark's id of the executor, as in its UI."""
    host: str


def here() -> Place:
    """Return where this process runs.

    A rank is a descendant of its executor's JVM, whose command line names the id (`--executor-id`, on standalone, YARN,
    Kubernetes and Databricks alike). Where it cannot be read, the executor's scratch folder tells executors apart.
    """
    for process in psutil.Process().parents():
        try:
            command = process.cmdline()
        except psutil.Error:
            continue
        if "--executor-id" in command[:-1]:
            return Place(command[command.index("--executor-id") + 1], socket.gethostname())
    return Place(os.environ.get("SPARK_EXECUTOR_DIRS", DRIVER), socket.gethostname())


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


def await_ranks(spark: SparkSession, config: Config) -> int:
    """Wait until the executors that the ranks need have registered; return the number of ranks.

    Raises:
        UserError: they have not come within `run.start_timeout_s`, or a local master has too few slots.
    """
    master, wanted = str(spark.sparkContext.master), config.run.num_proc
    local = local_slots(master)
    if local is not None:
        if wanted != "auto" and wanted > local:
            problem = f"{wanted} ranks cannot run at once on the {local} slot(s) of {master}"
            raise config.mistake("run.num_proc", f"{problem}; start Spark with --master 'local[{wanted}]'")
        return local if wanted == "auto" else wanted
    each = config.run.ranks_per_executor
    needed = requested_executors(master, spark.sparkContext.getConf()) if wanted == "auto" else -(-wanted // each)
    found = _await_executors(spark, config, needed)
    return found * each if wanted == "auto" else wanted


def _await_executors(spark: SparkSession, config: Config, needed: int | None) -> int:
    """Return the number of executors once there are ``needed`` (or, if that is unknown, once no more come)."""
    begin = last_change = last_word = time.monotonic()
    found = 0
    while True:
        now, count = time.monotonic(), len(executors(spark))
        if count != found:
            found, last_change = count, now
        if found and (found >= needed if needed else now - last_change >= _SETTLED_S):
            log.info("%d executor(s): %s", found, ", ".join(f"{e.id} on {e.host}" for e in executors(spark)[:8]))
            return found
        if now - begin > config.run.start_timeout_s:
            problem = f"{needed or 1} executor(s) are needed for the ranks, but {found} registered within "
            problem += f"{config.run.start_timeout_s} s; ask the cluster for more (spark.executor.instances, or "
            problem += "spark.dynamicAllocation.minExecutors), or lower run.num_proc"
            raise config.mistake("run.num_proc", problem)
        if now - last_word >= 10:
            last_word = now
            log.info("waiting for executors: %d of %s registered (%.0f s)", found, needed or "some", now - begin)
        time.sleep(0.2)


def check_paths(spark: SparkSession, config: Config) -> None:
    """Raise UserError when an executor does not see what the driver sees under the same path; before any work is done.

    That is the work directory, where the shards are written and read, and sources without a scheme or with `file://`.
    """
    if local_slots(str(spark.sparkContext.master)) is not None:
        return
    config.work_dir.mkdir(parents=True, exist_ok=True)
    probe = config.work_dir / f".seen-by-executors-{uuid.uuid4().hex}"
    probe.touch()
    paths = [("run.work_dir", str(config.work_dir), str(probe))]
    default_is_local = str(spark.sparkContext._jsc.hadoopConfiguration().get("fs.defaultFS", "file:")).startswith(
        "file:"
    )
    for path in config.source_paths:
        if path.startswith("file:") or ("://" not in path and default_is_local):
            local = re.sub(r"^file:/*", "/", path)
            paths.append(
                ("source.path", local, re.split(r"[*?\[{]", local)[0].rpartition("/")[0] if _has_glob(local) else local)
            )
    tasks = 4 * len(executors(spark))
    try:
        look = spark.sparkContext.parallelize(range(tasks), tasks).flatMap(lambda _: _missing(paths))
        missing = look.collect()
    finally:
        probe.unlink()
    if missing:
        key, path, place = missing[0]
        problem = f"executor {place.executor} on {place.host} does not see {path}, or not what the driver sees there"
        raise config.mistake(key, f"{problem}; name a folder that the driver and all executors share")


def _missing(paths: Sequence[tuple[str, str, str]]) -> list[tuple[str, str, Place]]:
    """Return which of these paths this process does not see; Spark runs this on the executors."""
    time.sleep(0.2)  # so that one executor does not take the tasks of all
    return [(key, path, here()) for key, path, witness in paths if not os.path.exists(witness)]


def _has_glob(path: str) -> bool:
    return any(character in path for character in "*?[{")


def executors(spark: SparkSession) -> list[Executor]:
    """Return the live executors, the driver's own entry left out."""
    listed = spark.sparkContext._jsc.sc().statusStore().executorList(True)
    entries = [listed.apply(i) for i in range(listed.size())]
    return [Executor(e.id(), e.hostPort().partition(":")[0], e.totalCores()) for e in entries if e.id() != DRIVER]


def requested_executors(master: str, conf: SparkConf) -> int | None:
    """Return how many executors this application has asked for; None where nothing says it."""
    if cluster := re.fullmatch(r"local-cluster\[\s*(\d+)\s*,.*\]", master):
        return int(cluster[1])
    if conf.get("spark.dynamicAllocation.enabled", "false") == "true":
        return int(str(conf.get("spark.dynamicAllocation.minExecutors", "0"))) or None
    if instances := conf.get("spark.executor.instances"):
        return int(instances)
    most, each = conf.get("spark.cores.max"), conf.get("spark.executor.cores")
    return max(1, int(most) // int(each)) if most and each else None


def cores(spark: SparkSession) -> dict[str, int]:
    """Return the cores of each executor by its id; on a local master those of the one that is called driver."""
    local = local_slots(str(spark.sparkContext.master))
    return {e.id: e.cores for e in executors(spark)} if local is None else {DRIVER: local}


def threads(cores: dict[str, int], places: Sequence[Place], rank: int) -> int:
    """Return the threads of a rank: its executor's cores, shared with the other ranks on it."""
    mine = places[rank].executor
    return max(1, cores.get(mine, 1) // sum(place.executor == mine for place in places))


def local_slots(master: str) -> int | None:
    """Return N of the master `local[N]` (or `local[*]`, `local[N, failures]`, `local`); None for a cluster."""
    found = re.fullmatch(r"local(?:\[\s*(\d+|\*)\s*(?:,.*)?\])?", master)
    if not found:
        return None
    return (os.cpu_count() or 1) if found[1] == "*" else int(found[1] or 1)
