"""Every replacement of Horovod's internals."""

from __future__ import annotations

import codecs
import socket
import threading
from types import SimpleNamespace
from typing import Any


def adapt_horovod() -> None:
    """Make Horovod pass on what ranks print when they print it, and leave signals and tracebacks to us.

    The driver copies their output with shutil.copyfileobj, which waits for 64 KiB of it: for the end of most trainings.
    It takes SIGINT and SIGTERM for itself and does not give them back: the job could not be interrupted any more.
    It waits without end for the answer of a host that is there no more. When a rank has ended, Horovod asks for the
    exit code once a second, and the Spark task then sleeps for 3 s, which is meant for ranks that end as soon as they
    start. And before it starts any rank, it forks the driver and imports torch there, 3 s, to see whether it was built
    with gloo; if it was not, the ranks will tell.
    """
    from horovod.runner import gloo_run
    from horovod.runner import launch as launcher
    from horovod.runner.common.service import task_service
    from horovod.runner.common.util import network
    from horovod.spark import runner
    from horovod.spark.driver import rsh

    gloo_run.register_shutdown_event = threading.Event
    rsh.traceback = SimpleNamespace(print_exc=lambda: None)

    def copy(source: Any, target: Any) -> None:
        decode = codecs.getincrementaldecoder("utf8")("replace").decode
        while chunk := source.stream.read1(65536):
            target.write(decode(chunk))

    def kept_alive(*args: Any, **options: Any) -> socket.socket:
        connection = socket.socket(*args, **options)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, seconds in ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3)):
            connection.setsockopt(socket.IPPROTO_TCP, option, seconds)
        return connection

    def end_soon(*task: Any) -> Any:
        from horovod.spark import runner as on_executor  # where this runs nothing is adapted

        on_executor.MINIMUM_COMMAND_LIFETIME_S = 0.5
        return on_executor._task_fn(*task)

    runner._task_fn = end_soon
    launcher.gloo_built = runner.gloo_built = lambda **_: True
    task_service.BasicTaskClient.wait_for_command_exit_code.__defaults__ = (0.1,)
    network.shutil = SimpleNamespace(copyfileobj=copy)
    network.socket = SimpleNamespace(**{**vars(socket), "socket": kept_alive})
