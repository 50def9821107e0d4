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


def cache(spark: SparkSession, config: Config, data: Manifest, num_proc: int) -> Cache:
    """Return whether ranks keep their rows in `memory` or `stream` them: what `run.cache` says, or what fits.

    `auto` looks at nothing but the data and Spark's settings, not at what memory happens to be free: the order of the
    rows, and so the weights, differs between the two.
    """
    if config.run.cache != "auto":
        return config.run.cache
    context = spark.sparkContext
    conf, is_local = context.getConf(), local_slots(str(context.master)) is not None
    # YARN and Kubernetes end what takes more than its container, in which the JVM has the rest
    is_contained = str(context.master).startswith(("yarn", "k8s"))
    keys = ["spark.executor.pyspark.memory", "spark.executor.memoryOverhead"] if is_contained else []
    default = "384m" if is_contained else "1g"
    key = "spark.driver.memory" if is_local else next((k for k in keys if conf.get(k)), "spark.executor.memory")
    given = default if is_contained and key not in keys else str(conf.get(key, default))
    sharing = num_proc if is_local else config.run.ranks_per_executor
    share = context._jvm.org.apache.spark.network.util.JavaUtils.byteStringAsMb(given) / sharing  # type: ignore[union-attr]
    needed = data.shard_bytes(num_proc) / 2**20
    chosen: Cache = "memory" if needed <= share / 2 else "stream"
    log.info("run.cache: %s, for a rank's rows take %.0f MiB, and its share of %s is %.0f", chosen, needed, key, share)
    return chosen
