"""Elastic training: ranks come and go while it runs, as executors die and others take their place.

When that happens all ranks continue from the state at the end of the last epoch, which each of them holds in memory
(`training/elastic.py`). Horovod 0.28 lacks what is needed to trust its elastic mode on Spark. `horovod_patches.py` adds
it: no unsigned message is unpickled, no secret is on a command line, and a rank has its executor to itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.launch import executors
from pipeline.launch.horovod_patches import applied, start_elastic_rank, start_ranks_with, start_spark_tasks_in

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from pipeline.training.task import RankReport, Task


def run(spark: SparkSession, executable: str, ranks_per_executor: int, task: Task, **options: Any) -> list[RankReport]:
    """Do what `horovod.spark.run_elastic` does, with the given Python and never more ranks on one executor.

    Returns the reports of the ranks that are there at the end, in their order.
    """
    from horovod.spark import runner

    context = _WholeExecutors(spark, ranks_per_executor)
    with applied(start_spark_tasks_in(context), start_ranks_with(executable)):
        return list(runner.run_elastic(start_elastic_rank, args=(task,), **options))


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
