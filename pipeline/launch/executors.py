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
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.config import Config
from pipeline.runtime import databricks, storage
from pipeline.runtime.console import log
from pipeline.training.place import DRIVER, Place, here

if TYPE_CHECKING:
    from pyspark import SparkConf
    from pyspark.sql import SparkSession

_SETTLED_S = 10  # executors whose number nobody has set have all come when there is no new one for so long


@dataclass(frozen=True)
class Executor:
    """A live executor, as the driver knows it."""

    id: str
    host: str
    cores: int


@dataclass(frozen=True)
class Answer:
    """What an executor has found out when it was asked."""

    place: Place
    missing: list[tuple[str, str]]
    """Setting and path of what it does not see."""
    address: str
    """What its host's own name resolves to; empty: nothing."""


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
    each, elastic = config.run.ranks_per_executor, config.recovery.elastic
    conf = spark.sparkContext.getConf()
    needed = requested_executors(master, conf) if wanted == "auto" else -(-wanted // each)
    they_come_and_go = conf.get("spark.dynamicAllocation.enabled", "false") == "true"
    if elastic:
        least, most = -(-elastic.min // each), -(-elastic.max // each)
        if needed is None and they_come_and_go:
            needed = least
        found = _await_executors(spark, config, needed and min(max(needed, least), most), least)
        return min(found * each, elastic.max if wanted == "auto" else wanted)
    if needed is None and they_come_and_go:
        problem = (
            "auto has no meaning while executors come and go: set spark.dynamicAllocation.minExecutors, or a number, "
            "or recovery.elastic"
        )
        raise config.mistake("run.num_proc", problem)
    found = _await_executors(spark, config, needed)
    return (needed or found) * each if wanted == "auto" else wanted


def _await_executors(spark: SparkSession, config: Config, needed: int | None, least: int | None = None) -> int:
    """Return the number of executors once there are ``needed`` (or, if that is unknown, once no more come).

    When the time is over ``least`` of them will do.
    """
    begin = last_change = last_word = time.monotonic()
    found = 0
    while True:
        now, count = time.monotonic(), len(executors(spark))
        if count != found:
            found, last_change = count, now
        is_over = now - begin > config.run.start_timeout_s
        is_enough = found >= needed if needed else found >= (least or 1) and now - last_change >= _SETTLED_S
        if is_enough or (least and found >= least and is_over):
            log.info("%d executor(s): %s", found, ", ".join(f"{e.id} on {e.host}" for e in executors(spark)[:8]))
            return found
        if is_over:
            problem = f"{least or needed or 1} executor(s) are needed for the ranks, but {found} registered within "
            problem += f"{config.run.start_timeout_s} s; ask the cluster for more (spark.executor.instances, or "
            problem += "spark.dynamicAllocation.minExecutors), or lower run.num_proc"
            raise config.mistake("run.num_proc", problem)
        if now - last_word >= 10:
            last_word = now
            log.info("waiting for executors: %d of %s registered (%.0f s)", found, needed or "some", now - begin)
        time.sleep(0.2)


def check_executors(spark: SparkSession, config: Config, ranks: int = 0) -> None:
    """Run a task on every executor before any work is done; what an executor lacks is told.

    That is: it can run this package, and it sees the sources, if these are paths, under the same path as the driver.
    Where ``ranks`` will run it also sees the prepared data's folder (or has what reaches it, if that is a store), and
    its host can be reached from the others. An executor that has registered but is still unpacking what spark-submit
    ships is waited for, or the ranks would crowd on the others.

    Raises:
        UserError: an executor cannot run this package or does not see a path, or does not answer in time.
    """
    if local_slots(str(spark.sparkContext.master)) is not None:
        return
    sources, data = _local_sources(spark, config), config.data_dir
    if not ranks:
        _ask_executors(spark, config, ranks, sources)
    elif not data.is_local:
        _ask_executors(spark, config, ranks, sources, data)
    else:
        with tempfile.TemporaryDirectory(dir=data.path, prefix=".seen-by-executors-") as probe:
            key = "run.data_dir" if config.run.data_dir else "run.work_dir"
            _ask_executors(spark, config, ranks, [(key, data.path, probe), *sources])


def _ask_executors(
    spark: SparkSession,
    config: Config,
    ranks: int,
    paths: list[tuple[str, str, str]],
    store: storage.Folder | None = None,
) -> None:
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    from pipeline.runtime.session import progress  # here, for ranks import this module, but no pyspark

    begin = time.monotonic()
    silent, seen = {e.id for e in executors(spark)}, set()
    while silent:
        tasks = 4 * len(silent)
        asked = spark.sparkContext.parallelize(range(tasks), tasks).map(lambda _: _look(paths, store))
        try:
            with progress(spark, f"asking {len(silent)} executor(s) whether they are ready"):
                answers = asked.collect()  # a place and a few paths of each task
        except (Py4JError, PySparkException) as error:  # around whatever the executor's Python could not do
            told = re.search(r"\w*Error: .*|Cannot run program.*", str(error))
            problem = f"the executors cannot run this package ({told[0] if told else type(error).__name__}); "
            raise config.mistake("run", f"{problem}give them its environment (see the README, On a cluster)") from None
        for answer in answers:
            for key, path in answer.missing:
                where = f"executor {answer.place.executor} on {answer.place.host}"
                problem = f"{where} does not see {path}, or not what the driver sees there; "
                raise config.mistake(key, f"{problem}name a folder that the driver and all executors share")
        if ranks > 1 and (cut_off := unreachable(answers, executors(spark))):
            raise config.mistake("run", cut_off)
        seen |= {answer.place.executor for answer in answers}
        live = {e.id for e in executors(spark)}
        silent = live - seen
        if len(seen) >= len(live):
            return  # also where executors do not name themselves as Spark does
        if time.monotonic() - begin > config.run.start_timeout_s:
            problem = f"executor(s) {', '.join(sorted(silent))} run no task within {config.run.start_timeout_s} s"
            raise config.mistake("run.start_timeout_s", f"{problem} of having registered; look at their logs")


def _look(paths: Sequence[tuple[str, str, str]], store: storage.Folder | None) -> Answer:
    """Return where this process runs, and what it sees there; Spark runs this on the executors."""
    if store:
        store.filesystem()  # raises ImportError, which names the package that is missing
    time.sleep(0.2)  # so that one executor does not take the tasks of all
    missing = [(key, path) for key, path, witness in paths if not os.path.exists(witness)]
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        address = ""
    return Answer(here(), missing, address)


def unreachable(answers: Sequence[Answer], known: Sequence[Executor]) -> str | None:
    """Say which executor's host calls itself by an address that no other host can reach; None when all is well.

    Horovod 0.28 forgets the network interface when it connects the ranks of a process set (so always): they find each
    other by what each host's own name resolves to there. Debian resolves it to 127.0.1.1 unless told otherwise.
    """
    if len({executor.host for executor in known}) < 2:
        return None
    for answer in answers:
        if not answer.address or answer.address.startswith("127."):
            place, address = answer.place, answer.address or "nothing"
            return (
                f"the host of executor {place.executor} resolves its own name, {place.host}, to {address}, so ranks on "
                "other hosts cannot reach it; let /etc/hosts there give the name an address of its network"
            )
    return None


def _local_sources(spark: SparkSession, config: Config) -> list[tuple[str, str, str]]:
    """Return the sources on a local file system: setting, path, and what of it must be there."""
    default = str(spark.sparkContext._jsc.hadoopConfiguration().get("fs.defaultFS", "file:///"))
    found = []
    for path in config.source_paths:
        if storage.scheme(path) == "file" or (storage.scheme(path) is None and default.startswith("file:")):
            local = str(storage.local_path(path))
            fixed, *pattern = re.split(r"[*?\[{]", local, maxsplit=1)
            found.append(("source.path", local, os.path.dirname(fixed) if pattern else local))
    return found


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
    if databricks.is_runtime():
        return databricks.workers(conf)
    if master.startswith(("yarn", "k8s")):
        return 2  # Spark's own default there
    most, each = conf.get("spark.cores.max"), conf.get("spark.executor.cores")
    return max(1, int(most) // int(each)) if most and each else None


def cores(spark: SparkSession) -> dict[str, int]:
    """Return the cores of each executor by its id; on a local master those of the one that is called driver."""
    local = local_slots(str(spark.sparkContext.master))
    return {e.id: e.cores for e in executors(spark)} if local is None else {DRIVER: local}


def local_slots(master: str) -> int | None:
    """Return N of the master `local[N]` (or `local[*]`, `local[N, failures]`, `local`); None for a cluster."""
    found = re.fullmatch(r"local(?:\[\s*(\d+|\*)\s*(?:,.*)?\])?", master)
    if not found:
        return None
    return (os.cpu_count() or 1) if found[1] == "*" else int(found[1] or 1)
