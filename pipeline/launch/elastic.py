"""Elastic training: ranks come and go while it runs, as executors die and others take their place.

When that happens all ranks continue from the state at the end of the last epoch, which each of them holds in memory
(`training/elastic.py`). Horovod 0.28's elastic mode runs whatever reaches the driver's port, shows secrets on command
lines and lets two ranks share an executor. `horovod_patches.py` replaces the functions that do so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.launch import executors
from pipeline.launch.horovod_patches import applied, start_elastic_rank, start_ranks_with, start_spark_tasks_in

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from pipeline.training.task import RankReport, Task


def run(spark: SparkSession, python: str, task: Task, **options: Any) -> list[RankReport]:
    """Train on as many ranks as `recovery.elastic` allows and executors are there; ranks run ``python``.

    ``options`` are more arguments of `horovod.spark.run_elastic`. Returns what the ranks that are there at the end
    return, in their order.
    """
    from horovod.spark import runner

    recovery = task.config.recovery
    assert recovery.elastic is not None
    context = _WholeExecutors(spark, task.config.run.ranks_per_executor)
    with applied(start_spark_tasks_in(context), start_ranks_with(python)):
        returned = runner.run_elastic(
            start_elastic_rank,
            (task,),
            min_num_proc=recovery.elastic.min,
            max_num_proc=recovery.elastic.max,
            elastic_timeout=recovery.stall_timeout_s,
            **options,
        )
    return list(returned)


class _WholeExecutors:
    """A SparkContext whose ranges give each task all cores of an executor, or a share if ranks are to share it.

    Without that, Spark restarts a lost executor's task on free cores of an executor that already runs a rank.
    """

    def __init__(self, spark: SparkSession, ranks_per_executor: int) -> None:
        from pyspark.resource import ResourceProfileBuilder, TaskResourceRequests

        self._context = spark.sparkContext
        cores = min(executors.cores(spark).values(), default=1)
        requests = TaskResourceRequests().cpus(max(1, cores // ranks_per_executor))
        if gpus := self._context.getConf().get("spark.task.resource.gpu.amount"):
            requests = requests.resource("gpu", float(gpus))
        self._profile = ResourceProfileBuilder().require(requests).build

    def range(self, *args: Any, **options: Any) -> Any:
        return self._context.range(*args, **options).withResources(self._profile)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)
