"""Whether the installed Horovod is the release whose internals `horovod_patches.py` replaces."""

from __future__ import annotations

import inspect
from importlib import import_module
from importlib.metadata import version
from operator import attrgetter

from pipeline.runtime.errors import UserError

_VERSION = "0.28.1"

_SIGNATURES = {
    "horovod.runner.common.service.task_service:BasicTaskClient.wait_for_command_exit_code": "(self, delay=1.0)",
    "horovod.runner.common.util.network:shutil": "module",
    "horovod.runner.common.util.network:socket": "module",
    "horovod.runner.elastic.worker:put_data_into_kvstore": "(addr, port, scope, key, value)",
    "horovod.runner.elastic.worker:secret": "module",
    "horovod.runner.gloo_run:create_rendezvous_handler": "(driver)",
    "horovod.runner.gloo_run:launch_gloo_elastic": (
        "(command_or_func, exec_command, settings, env, get_common_interfaces, rendezvous, executable)"
    ),
    "horovod.runner.gloo_run:register_shutdown_event": "()",
    "horovod.runner.launch:gloo_built": "(*args, **kwargs)",
    "horovod.spark.driver.rendezvous:SparkRendezvousServer": "(driver, verbose)",
    "horovod.spark.driver.rsh:traceback": "module",
    "horovod.spark.gloo_run:_exec_command_fn": (
        "(driver, key, settings, env, stdout, stderr, prefix_output_with_timestamp)"
    ),
    "horovod.spark.runner:MINIMUM_COMMAND_LIFETIME_S": "int",
    "horovod.spark.runner:_make_spark_thread": (
        "(spark_context, spark_job_group, driver, result_queue, settings, use_gloo, is_elastic)"
    ),
    "horovod.spark.runner:_task_fn": "(index, driver_addresses, key, settings, use_gloo, is_elastic)",
    "horovod.spark.runner:gloo_built": "(*args, **kwargs)",
    "horovod.spark.runner:gloo_run_elastic": "(settings, driver, env, stdout=None, stderr=None)",
}
"""What the patches replace or call, by module and name: its signature in Horovod 0.28.1, or the type of a value."""


def check_version() -> None:
    """Raise UserError unless the installed Horovod is the release that the patches are written for."""
    installed = version("horovod")
    if installed.partition("+")[0] != _VERSION:  # a runtime may append its own build, as in 0.28.1+db1
        raise UserError(
            f"horovod: version {installed} is installed, but launch/horovod_patches.py replaces internals of version "
            f"{_VERSION}; install horovod=={_VERSION}"
        )


def check_signatures() -> None:
    """Raise UserError unless all that is patched or called has the signature that it has in Horovod 0.28.1.

    This imports Horovod's driver, and pyspark with it.
    """
    check_version()
    for name, expected in _SIGNATURES.items():
        actual = _signature(*name.split(":"))
        if actual != expected:
            raise UserError(
                f"horovod: {name.replace(':', '.')} is {actual} in the installed package, where version {_VERSION} has "
                f"{expected}, and launch/horovod_patches.py replaces or calls it; reinstall horovod=={_VERSION}"
            )


def _signature(module: str, name: str) -> str:
    """Return the signature of a function or class, the type of another value, or `missing`."""
    try:
        value = attrgetter(name)(import_module(module))
    except (ImportError, AttributeError):
        return "missing"
    return str(inspect.signature(value)) if callable(value) else type(value).__name__
