"""The SparkSession: the one that spark-submit or Databricks has started, else a local one."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import SparkSession

from pipeline.config import Config
from pipeline.console import log

_SETTINGS = {
    # features.sql means the same everywhere: a bad CAST or a division by zero gives NULL, and times are UTC
    "spark.sql.ansi.enabled": "false",
    "spark.sql.session.timeZone": "UTC",
    # with pruning, Spark does not look at columns that a query does not use, and misses records that do not fit
    "spark.sql.csv.parser.columnPruning.enabled": "false",
    # write both splits in one pass without sorting the rows by split first
    "spark.sql.maxConcurrentOutputFileWriters": "8",
}


def get_session(app_name: str) -> SparkSession:
    """Return the running SparkSession, or start one (`local[2]` unless spark-submit or the conf names a master)."""
    builder = SparkSession.builder.appName(app_name)
    if SparkSession.getActiveSession() is None:
        log.info("starting Spark")
    spark = builder.config(map={"spark.master": "local[2]"} if not _has_master() else {}).getOrCreate()
    for key, value in _SETTINGS.items():
        spark.conf.set(key, value)
    log.info("Spark %s on %s", spark.version, spark.sparkContext.master)
    return spark


def _has_master() -> bool:
    from pyspark import SparkConf, SparkContext

    return SparkContext._active_spark_context is not None or SparkConf().contains("spark.master")


def slots(spark: SparkSession) -> int:
    """Return how many ranks `run.num_proc: auto` means: executors of a cluster, N on `local[N]`."""
    context = spark.sparkContext
    if is_local(spark):
        return int(context.defaultParallelism)
    if str(context.master).startswith("local-cluster"):
        return int(re.findall(r"\d+", str(context.master))[0])
    # every entry but the driver's own
    return max(1, len(context._jsc.sc().statusTracker().getExecutorInfos()) - 1)


def cores_per_rank(spark: SparkSession, num_proc: int) -> int:
    """Return the cores that one rank may use: its share of `local[N]`, or its executor's cores."""
    context = spark.sparkContext
    if is_local(spark):
        return max(1, context.defaultParallelism // num_proc)
    return max(1, int(context.getConf().get("spark.executor.cores", "1") or 1))


def check_slots(spark: SparkSession, config: Config, num_proc: int) -> None:
    """Raise UserError when a local master can never run ``num_proc`` ranks at once."""
    context = spark.sparkContext
    if is_local(spark) and num_proc > context.defaultParallelism:
        problem = f"{num_proc} ranks cannot run at once on the {context.defaultParallelism} slots of {context.master}"
        raise config.mistake("run.num_proc", f"{problem}; start Spark with --master 'local[{num_proc}]'")


def is_local(spark: SparkSession) -> bool:
    """Return whether everything runs in the driver's own process (`local[N]`)."""
    return re.match(r"local(\[|$)", str(spark.sparkContext.master)) is not None


@contextmanager
def progress(spark: SparkSession, what: str, every_s: float = 10) -> Iterator[None]:
    """Log how many tasks of the running Spark stages are done every ``every_s`` seconds while the block runs."""
    done = threading.Event()

    def report() -> None:
        tracker = spark.sparkContext.statusTracker()
        while not done.wait(every_s):
            stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
            finished, tasks = (sum(getattr(s, name) for s in stages if s) for name in ("numCompletedTasks", "numTasks"))
            log.info("%s: %d of %d tasks done", what, finished, tasks)

    log.info("%s", what)
    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
