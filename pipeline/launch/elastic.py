"""Ranks that come and go: Horovod's elastic mode on Spark, with what it lacks to be trusted and to fit in here.

What all ranks go on from when one is lost or comes is the state at the end of the last epoch, which each of them holds
in memory. As Horovod 0.28 has it, anyone who reaches the driver's port could make it unpickle what he sends
(CVE-2024-10190), the job's secret and every credential stand on the ranks' command lines, and Spark may put the task of
a lost executor on one that has a rank already. Here none of this is so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipeline.launch import executors
from pipeline.runtime.console import log
from pipeline.runtime.errors import one_line
from pipeline.training.elastic import verify

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


# ---- on the driver -------------------------------------------------------------------------------------------------


def run(spark: SparkSession, executable: str, ranks_per_executor: int, *args: Any, **options: Any) -> list[Any]:
    """Do what `horovod.spark.run_elastic` does, with the given Python, and never more ranks on one executor.

    Returns what the last ranks have returned, in their order.
    """
    from horovod.spark import runner

    context = _OneRankPerExecutor(spark, ranks_per_executor)
    make_thread, launch = runner._make_spark_thread, runner.gloo_run_elastic
    runner._make_spark_thread = lambda _, *args, **options: make_thread(context, *args, **options)
    runner.gloo_run_elastic = _launcher(executable)
    try:
        return list(runner.run_elastic(*args, **options))
    finally:
        runner._make_spark_thread, runner.gloo_run_elastic = make_thread, launch


class _OneRankPerExecutor:
    """A SparkContext whose ranges take all cores of an executor for one task, or a share if ranks are to share it.

    Otherwise Spark would start the task of a lost executor anew on the free cores of one that has a rank.
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


def _launcher(executable: str) -> Callable[..., None]:
    """Return what takes the place of Horovod's `gloo_run_elastic`, which is the same but for what is commented."""
    from horovod.runner import gloo_run
    from horovod.runner.common.util import codec
    from horovod.spark import gloo_run as spark_gloo_run
    from horovod.spark.driver.rendezvous import SparkRendezvousServer

    def launch(settings: Any, driver: Any, env: dict[str, str], stdout: Any = None, stderr: Any = None) -> None:
        key, settings.key = settings.key, None  # not on the command line; each rank has it from its Spark task
        command = (
            executable,  # not the driver's own Python, wherever the ranks are
            "-m",
            "horovod.spark.task.gloo_exec_fn",
            codec.dumps_base64(driver.addresses()),
            codec.dumps_base64(settings),
        )
        start = spark_gloo_run._exec_command_fn(driver, key, settings, env, stdout, stderr, False)
        nics = driver.get_common_interfaces()
        rendezvous, make_handler = SparkRendezvousServer(driver, settings.verbose), gloo_run.create_rendezvous_handler
        gloo_run.create_rendezvous_handler = lambda elastic_driver: _handler(make_handler(elastic_driver), key)
        try:
            # the environment goes with the message that starts a rank, so here it is empty: not on the command line
            gloo_run.launch_gloo_elastic(command, start, settings, {}, lambda _: nics, rendezvous, executable)
        finally:
            gloo_run.create_rendezvous_handler = make_handler

    return launch


def _handler(base: type[Any], key: bytes) -> type[Any]:
    """Return Horovod's handler of what ranks tell, as one that believes only what this job's ranks have signed."""
    from horovod.runner.elastic.rendezvous import PUT_WORKER_ADDRESSES

    class Handler(base):  # type: ignore[misc]
        def _put_value(self, scope: str, name: str, value: bytes) -> None:
            if scope != PUT_WORKER_ADDRESSES:
                super(base, self)._put_value(scope, name, value)
                return
            try:
                addresses = verify(key, name, value)
            except ValueError as error:
                log.warning("a message to Horovod's server was not heeded: %s", one_line(error))
                return
            host, _, local_rank = name.partition(":")
            self._put_worker_addresses(host, int(local_rank), addresses, key)

    return Handler
