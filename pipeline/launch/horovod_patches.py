"""Every replacement of Horovod's internals: one function per patch, and all of them are undone after the run.

Three kinds of process are patched: the driver, the Python of a Spark task on an executor, and an elastic rank. Each of
them imports this module, so it loads neither pyspark nor torch by itself.
"""

from __future__ import annotations

import codecs
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.request import ProxyHandler, Request, build_opener

from pipeline.launch.horovod_version import check_signatures
from pipeline.launch.signed_addresses import Addresses, sign, verify
from pipeline.runtime.console import log
from pipeline.runtime.errors import one_line

if TYPE_CHECKING:
    from pipeline.training.task import RankReport, Task

_EXIT_CODE_DELAY_S = 0.1
_SHORTEST_COMMAND_S = 0.5


class Replacement(NamedTuple):
    """One attribute of Horovod, and what takes its place."""

    owner: Any
    name: str
    value: Any


# ---- applying -----------------------------------------------------------------------------------------


@contextmanager
def applied(*patches: Sequence[Replacement]) -> Iterator[None]:
    """Put the replacements in place while the block runs; afterwards restore what was there, also after an error."""
    with ExitStack() as undo:
        for patch in patches:
            for owner, name, value in patch:
                undo.callback(setattr, owner, name, getattr(owner, name))
                setattr(owner, name, value)
        yield


@contextmanager
def patched_driver() -> Iterator[None]:
    """Patch what the driver uses of Horovod for one run.

    Raises:
        UserError: the installed Horovod is not the one that the patches are written for.
    """
    check_signatures()
    with applied(
        leave_signals_to_the_job(),
        hide_traceback_of_lost_rank(),
        skip_gloo_check(),
        fetch_exit_codes_quickly(),
        end_spark_tasks_quickly(),
        pass_output_on_at_once(),
        notice_lost_hosts(),
    ):
        yield


# ---- in the driver -------------------------------------------------------------------------------------------------


def leave_signals_to_the_job() -> list[Replacement]:
    """Keep the driver's own handlers of SIGINT and SIGTERM.

    Without this patch Horovod takes both signals and never gives them back, so nobody can interrupt the job.
    """
    from horovod.runner import gloo_run

    return [Replacement(gloo_run, "register_shutdown_event", threading.Event)]


def hide_traceback_of_lost_rank() -> list[Replacement]:
    """Print no traceback in the driver when the connection to a rank breaks.

    Without this patch a lost rank floods stderr with tracebacks of Horovod's threads before our one sentence.
    """
    from horovod.spark.driver import rsh

    return [Replacement(rsh, "traceback", SimpleNamespace(print_exc=lambda: None))]


def skip_gloo_check() -> list[Replacement]:
    """Do not ask in the driver whether Horovod was built with gloo; a rank that lacks it fails with that message.

    Without this patch Horovod forks the driver and imports torch there; this import takes 3 s before any rank starts.
    """
    from horovod.runner import launch
    from horovod.spark import runner

    return [Replacement(module, "gloo_built", lambda **_: True) for module in (launch, runner)]


def fetch_exit_codes_quickly() -> list[Replacement]:
    """Ask for the exit code of a rank ten times per second.

    Without this patch Horovod asks once per second, so each run ends up to a second late.
    """
    from horovod.runner.common.service.task_service import BasicTaskClient

    return [Replacement(BasicTaskClient.wait_for_command_exit_code, "__defaults__", (_EXIT_CODE_DELAY_S,))]


def end_spark_tasks_quickly() -> list[Replacement]:
    """Let Spark run :func:`run_spark_task` on the executors.

    Without this patch each Spark task sleeps until 3 s after its rank has ended. Horovod means that for ranks that end
    as soon as they start.
    """
    from horovod.spark import runner

    return [Replacement(runner, "_task_fn", run_spark_task)]


def pass_output_on_at_once() -> list[Replacement]:
    """Copy what a rank prints to the driver as soon as the rank has printed it.

    Without this patch Horovod waits for 64 KiB, so the driver gets most reports and log lines when training has ended.
    """
    from horovod.runner.common.util import network

    def copy(source: Any, target: Any) -> None:
        decode = codecs.getincrementaldecoder("utf8")("replace").decode
        while chunk := source.stream.read1(65536):
            target.write(decode(chunk))

    return [Replacement(network, "shutil", SimpleNamespace(copyfileobj=copy))]


def notice_lost_hosts() -> list[Replacement]:
    """Have the system probe idle connections to executors.

    Without this patch the driver waits for ever for the answer of a host that no longer exists.
    """
    from horovod.runner.common.util import network

    def open_probed_socket(*args: Any, **options: Any) -> socket.socket:
        connection = socket.socket(*args, **options)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, seconds in ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3)):
            connection.setsockopt(socket.IPPROTO_TCP, option, seconds)
        return connection

    return [Replacement(network, "socket", SimpleNamespace(**{**vars(socket), "socket": open_probed_socket}))]


# ---- in the driver, elastic mode -----------------------------------------------------------------------------------


def start_spark_tasks_in(context: Any) -> list[Replacement]:
    """Start the Spark tasks of the ranks through ``context``, a SparkContext that gives each task a whole executor.

    Without this patch Spark restarts a lost executor's task on an executor that already runs a rank.
    """
    from horovod.spark import runner

    make_thread = runner._make_spark_thread

    def make_thread_in_context(_: Any, *args: Any, **options: Any) -> threading.Thread:
        thread: threading.Thread = make_thread(context, *args, **options)
        return thread

    return [Replacement(runner, "_make_spark_thread", make_thread_in_context)]


def start_ranks_with(executable: str) -> list[Replacement]:
    """Start elastic ranks with the Python ``executable``, with no secret on their command line.

    Without this patch the ranks run the driver's Python. Everybody on an executor's host can read the job's key and all
    credentials from the command lines. What differs from Horovod's function has a comment.
    """
    from horovod.runner import gloo_run
    from horovod.runner.common.util import codec
    from horovod.spark import gloo_run as spark_gloo_run
    from horovod.spark import runner
    from horovod.spark.driver.rendezvous import SparkRendezvousServer

    def launch(settings: Any, driver: Any, env: dict[str, str], stdout: Any = None, stderr: Any = None) -> None:
        key, settings.key = settings.key, None  # the settings are on the command line; the Spark task gives the key
        addresses, pickled = codec.dumps_base64(driver.addresses()), codec.dumps_base64(settings)
        command = (executable, "-m", "horovod.spark.task.gloo_exec_fn", addresses, pickled)
        start = spark_gloo_run._exec_command_fn(driver, key, settings, env, stdout, stderr, False)
        interfaces = driver.get_common_interfaces()
        rendezvous = SparkRendezvousServer(driver, settings.verbose)
        with applied(accept_signed_addresses_only(key)):
            # the environment travels in the signed message that starts a rank; given here it is on the command line
            gloo_run.launch_gloo_elastic(command, start, settings, {}, lambda _: interfaces, rendezvous, executable)

    return [Replacement(runner, "gloo_run_elastic", launch)]


def accept_signed_addresses_only(key: bytes) -> list[Replacement]:
    """Have Horovod's server accept a rank's addresses only as JSON that is signed with the job's ``key``.

    Without this patch the server unpickles whatever reaches its port: whoever reaches it runs code in the driver
    (CVE-2024-10190).
    """
    from horovod.runner import gloo_run
    from horovod.runner.elastic.rendezvous import PUT_WORKER_ADDRESSES

    make_handler = gloo_run.create_rendezvous_handler

    def make_careful_handler(driver: Any) -> type[Any]:
        base: type[Any] = make_handler(driver)

        class Handler(base):  # type: ignore[misc]
            def _put_value(self, scope: str, name: str, value: bytes) -> None:
                if scope != PUT_WORKER_ADDRESSES:
                    super(base, self)._put_value(scope, name, value)
                    return
                try:
                    addresses = verify(key, name, value)
                except ValueError as error:
                    log.warning("Horovod's server ignores a message: %s", one_line(error))
                    return
                host, _, local_rank = name.partition(":")
                self._put_worker_addresses(host, int(local_rank), addresses, key)

        return Handler

    return [Replacement(gloo_run, "create_rendezvous_handler", make_careful_handler)]


# ---- in a Spark task on an executor --------------------------------------------------------------------------------


def run_spark_task(*task: Any) -> Any:
    """Run Horovod's task function, which starts one rank, and end soon after the rank; see end_spark_tasks_quickly."""
    from horovod.spark import runner

    with applied([Replacement(runner, "MINIMUM_COMMAND_LIFETIME_S", _SHORTEST_COMMAND_S)]):
        return runner._task_fn(*task)


# ---- in an elastic rank --------------------------------------------------------------------------------------------


def start_elastic_rank(task: Task) -> RankReport:
    """Train as one elastic rank; Horovod starts this function in each rank's process."""
    from pipeline.training.entry import run_rank

    with applied(send_signed_addresses()):
        return run_rank(task)


def send_signed_addresses() -> list[Replacement]:
    """Send the driver this rank's addresses as JSON signed with the job's key, and accept news signed with that key.

    Without this patch the rank sends an unsigned pickle that contains a new key in plain text, and the patched driver
    ignores it: the rank never learns that others have come or gone.
    """
    from horovod.runner.common.util import codec, secret
    from horovod.runner.elastic import worker

    key: bytes = codec.loads_base64(os.environ[secret.HOROVOD_SECRET_KEY])

    def put(host: str, port: int, scope: str, name: str, value: tuple[Addresses, bytes]) -> None:
        url = f"http://{host}:{port}/{scope}/{name}"
        # the driver is never behind the proxy that a rank's environment may name for the tracking store
        build_opener(ProxyHandler({})).open(
            Request(url, data=sign(key, name, value[0]), method="PUT"), timeout=60
        ).close()

    return [
        Replacement(worker, "secret", SimpleNamespace(make_secret_key=lambda: key)),
        Replacement(worker, "put_data_into_kvstore", put),
    ]
