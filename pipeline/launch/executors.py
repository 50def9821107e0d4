"""Spark's executors: how many there are, how many the ranks need, and the wait until these have registered.

Preparation wants one task per core, training one rank per executor, and both are in one application. Spark's scheduler
gives the tasks of a stage to the executors in turns. So the ranks land on different executors if all executors are
there and idle before the ranks start. The driver therefore waits for the executors, and the ranks compare their places
before the first step (`training/placement.py`). Stage-level resources are no way out: horovod.spark.run makes its own
RDD.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.config import Config
from pipeline.runtime import databricks
from pipeline.runtime.console import log
from pipeline.training.placement import DRIVER

if TYPE_CHECKING:
    from pyspark import SparkConf
    from pyspark.sql import SparkSession

_SETTLED_S = 10
"""When nobody has set the number of executors, they are complete once no new one has come for so long."""
_POLL_S = 0.2
_LOG_EVERY_S = 10
_DEFAULT_INSTANCES = 2  # Spark's own, on YARN and Kubernetes


@dataclass(frozen=True)
class Executor:
    """A live executor, as Spark's driver lists it."""

    id: str
    host: str
    cores: int


@dataclass(frozen=True)
class Demand:
    """How many executors the ranks wait for."""

    target: int | None
    """The wait ends as soon as so many have registered; None: the number is unknown."""
    minimum: int
    """So many suffice when the time is over."""


# ---- the executors of this application -----------------------------------------------------------------------------


def executors(spark: SparkSession) -> list[Executor]:
    """Return the live executors, without the driver's own entry."""
    listed = spark.sparkContext._jsc.sc().statusStore().executorList(True)
    entries = [listed.apply(i) for i in range(listed.size())]
    return [Executor(e.id(), e.hostPort().partition(":")[0], e.totalCores()) for e in entries if e.id() != DRIVER]


def cores(spark: SparkSession) -> dict[str, int]:
    """Return the cores of each executor by its id; a local master has one executor, which is called `driver`."""
    slots = local_slots(str(spark.sparkContext.master))
    return {e.id: e.cores for e in executors(spark)} if slots is None else {DRIVER: slots}


def local_slots(master: str) -> int | None:
    """Return N of the master `local[N]` (or `local[*]`, `local[N, failures]`, `local`); None for a cluster."""
    local = re.fullmatch(r"local(?:\[\s*(\d+|\*)\s*(?:,.*)?\])?", master)
    if not local:
        return None
    return (os.cpu_count() or 1) if local[1] == "*" else int(local[1] or 1)


def requested_executors(master: str, conf: SparkConf) -> int | None:
    """Return how many executors this application has requested; None if no setting says it."""
    if cluster := re.fullmatch(r"local-cluster\[\s*(\d+)\s*,.*\]", master):
        return int(cluster[1])
    if _allocates_dynamically(conf):
        return int(str(conf.get("spark.dynamicAllocation.minExecutors", "0"))) or None
    if instances := conf.get("spark.executor.instances"):
        return int(instances)
    if databricks.is_runtime():
        return databricks.workers(conf)
    if master.startswith(("yarn", "k8s")):
        return _DEFAULT_INSTANCES
    all_cores, cores_each = conf.get("spark.cores.max"), conf.get("spark.executor.cores")
    return max(1, int(all_cores) // int(cores_each)) if all_cores and cores_each else None


def _cores_of_a_task(conf: SparkConf) -> int:
    """Return how many cores each task takes, and so each rank."""
    return int(str(conf.get("spark.task.cpus", "1")))


def _allocates_dynamically(conf: SparkConf) -> bool:
    return str(conf.get("spark.dynamicAllocation.enabled", "false")).lower() == "true"


# ---- the wait for them ---------------------------------------------------------------------------------------------


def await_ranks(spark: SparkSession, config: Config) -> int:
    """Wait until the executors that the ranks need have registered; return the number of ranks.

    Raises:
        UserError: the executors have not registered within `run.start_timeout_s`, or a local master has too few slots.
    """
    master, conf = str(spark.sparkContext.master), spark.sparkContext.getConf()
    cores = local_slots(master)
    if cores is not None:
        return _ranks_on_local_master(config, master, cores, _cores_of_a_task(conf))
    demand = demanded_executors(config, requested_executors(master, conf), _allocates_dynamically(conf))
    registered = _await_executors(spark, config, demand)
    each, elastic = config.run.ranks_per_executor, config.recovery.elastic
    fewest = min(executor.cores for executor in executors(spark)) // _cores_of_a_task(conf)
    if fewest < each:
        problem = f"{each} rank(s) cannot run at once on an executor that runs {fewest} task(s) at once"
        raise config.mistake("run.ranks_per_executor", f"{problem}; lower it or spark.task.cpus, or give more cores")
    if config.run.num_proc != "auto":
        return min(registered * each, config.run.num_proc) if elastic else config.run.num_proc
    return min(registered * each, elastic.max) if elastic else (demand.target or registered) * each


def demanded_executors(config: Config, requested: int | None, dynamic_allocation: bool) -> Demand:
    """Return how many executors to wait for, given how many the application has ``requested`` (None: unknown).

    Raises:
        UserError: `run.num_proc` is `auto`, but dynamic allocation leaves the number of executors open.
    """
    each, elastic, num_proc = config.run.ranks_per_executor, config.recovery.elastic, config.run.num_proc
    target = requested if num_proc == "auto" else _ceil(num_proc, each)
    if elastic:
        least, most = _ceil(elastic.min, each), _ceil(elastic.max, each)
        if target is None and dynamic_allocation:
            target = least
        return Demand(target and min(max(target, least), most), least)
    if target is None and dynamic_allocation:
        problem = "auto has no meaning while executors come and go"
        remedy = "set spark.dynamicAllocation.minExecutors, or a number, or recovery.elastic"
        raise config.mistake("run.num_proc", f"{problem}: {remedy}")
    return Demand(target, target or 1)


def _ceil(ranks: int, ranks_per_executor: int) -> int:
    return -(-ranks // ranks_per_executor)


def _ranks_on_local_master(config: Config, master: str, cores: int, each: int) -> int:
    num_proc, slots = config.run.num_proc, cores // each
    if num_proc == "auto" and slots:
        return slots
    wanted = 1 if num_proc == "auto" else num_proc
    if wanted > slots:
        tasks = f" with spark.task.cpus {each}" if each > 1 else ""
        lower = ", or lower spark.task.cpus" if each > 1 else ""
        ranks = "1 rank" if wanted == 1 else f"{wanted} ranks"
        problem = f"{ranks} cannot run at once on the {slots} slot(s) of {master}{tasks}"
        raise config.mistake("run.num_proc", f"{problem}; start Spark with --master 'local[{wanted * each}]'{lower}")
    return wanted


def _await_executors(spark: SparkSession, config: Config, demand: Demand) -> int:
    """Return the number of registered executors once ``demand`` is met, with a log line every 10 s until then."""
    begin = last_change = last_log = time.monotonic()
    registered = 0
    while True:
        now, count = time.monotonic(), len(executors(spark))
        if count != registered:
            registered, last_change = count, now
        is_over = now - begin > config.run.start_timeout_s
        if _is_met(demand, registered, now - last_change, is_over):
            places = ", ".join(f"{e.id} on {e.host}" for e in executors(spark)[:8])
            log.info("%d executor(s): %s", registered, places)
            return registered
        if is_over:
            raise config.mistake("run.num_proc", _too_few(demand.minimum, registered, config.run.start_timeout_s))
        if now - last_log >= _LOG_EVERY_S:
            last_log = now
            wanted = demand.target or "some"
            log.info("waiting for executors: %d of %s registered (%.0f s)", registered, wanted, now - begin)
        time.sleep(_POLL_S)


def _is_met(demand: Demand, registered: int, unchanged_s: float, is_over: bool) -> bool:
    if demand.target and registered >= demand.target:
        return True
    is_settled = demand.target is None and unchanged_s >= _SETTLED_S
    return registered >= demand.minimum and (is_settled or is_over)


def _too_few(needed: int, registered: int, start_timeout_s: int) -> str:
    return (
        f"{needed} executor(s) are needed for the ranks, but {registered} registered within {start_timeout_s} s; "
        "ask the cluster for more (spark.executor.instances, or spark.dynamicAllocation.minExecutors), or lower "
        "run.num_proc"
    )
