"""Whether ranks keep their rows in memory or stream them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.config import Config
from pipeline.launch.executors import local_slots
from pipeline.runtime.console import log
from pipeline.training.task import Cache

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from pipeline.data.manifest import Manifest


def choose_cache(spark: SparkSession, config: Config, data: Manifest, num_proc: int) -> Cache:
    """Return `memory` if ranks keep their rows, `stream` if they read them in every epoch: `run.cache`, or what fits.

    `auto` compares the data with Spark's settings, never with the memory that happens to be free: the order of the
    rows, and so the weights, differs between the two.
    """
    if config.run.cache != "auto":
        return config.run.cache
    setting, share = _memory_of_rank(spark, config, num_proc)
    needed = data.shard_bytes(num_proc) / 2**20
    cache: Cache = "memory" if needed <= share / 2 else "stream"
    log.info("run.cache: %s: a rank's rows take %.0f MiB, its share of %s is %.0f MiB", cache, needed, setting, share)
    return cache


def _memory_of_rank(spark: SparkSession, config: Config, num_proc: int) -> tuple[str, float]:
    """Return the Spark setting that limits the memory of the ranks, and one rank's share of it in MiB."""
    context = spark.sparkContext
    conf, master = context.getConf(), str(context.master)
    if local_slots(master) is not None:
        setting, default, sharing = "spark.driver.memory", "1g", num_proc
    elif master.startswith(("yarn", "k8s")):
        # a container that takes more than its limit is killed, and the executor's JVM takes its memory from the rest
        setting, default = "spark.executor.memoryOverhead", "384m"
        if conf.get("spark.executor.pyspark.memory"):
            setting = "spark.executor.pyspark.memory"
        sharing = config.run.ranks_per_executor
    else:
        setting, default, sharing = "spark.executor.memory", "1g", config.run.ranks_per_executor
    jvm = context._jvm
    assert jvm is not None
    given = jvm.org.apache.spark.network.util.JavaUtils.byteStringAsMb(str(conf.get(setting, default)))
    return setting, given / sharing
