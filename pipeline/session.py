"""The SparkSession: the one that spark-submit or Databricks has started, else a local one."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


def get_session(app_name: str, work_dir: Path) -> SparkSession:
    """Return the running SparkSession, or start one (`local[2]` unless spark-submit or the conf names a master)."""
    if SparkSession.getActiveSession() is None:
        log.info("starting Spark")
    defaults: dict[str, bool | float | int | str | None] = {} if _has_master() else {"spark.master": "local[2]"}
    builder = SparkSession.builder.appName(app_name).config(map=defaults)
    # else Spark makes a folder where the job happens to be started
    spark = builder.config("spark.sql.warehouse.dir", str(work_dir / "spark-warehouse")).getOrCreate()
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
    if (local := local_slots(str(context.master))) is not None:
        return local
    # every entry but the driver's own
    return max(1, len(context._jsc.sc().statusTracker().getExecutorInfos()) - 1)


def cores_per_rank(spark: SparkSession, num_proc: int) -> int:
    """Return the cores that one rank may use: its share of `local[N]`, or its executor's cores."""
    context = spark.sparkContext
    if (local := local_slots(str(context.master))) is not None:
        return max(1, local // num_proc)
    return max(1, int(context.getConf().get("spark.executor.cores", "1") or 1))


def check_slots(spark: SparkSession, config: Config, num_proc: int) -> None:
    """Raise UserError when a local master can never run ``num_proc`` ranks at once."""
    master = str(spark.sparkContext.master)
    local = local_slots(master)
    if local is not None and num_proc > local:
        problem = f"{num_proc} ranks cannot run at once on the {local} slot(s) of {master}"
        raise config.mistake("run.num_proc", f"{problem}; start Spark with --master 'local[{num_proc}]'")


def local_slots(master: str) -> int | None:
    """Return N of the master `local[N]` (or `local[*]`, `local[N, failures]`, `local`); None for a cluster."""
    found = re.fullmatch(r"local(?:\[\s*(\d+|\*)\s*(?:,.*)?\])?", master)
    if not found:
        return None
    return (os.cpu_count() or 1) if found[1] == "*" else int(found[1] or 1)


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
