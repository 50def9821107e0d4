"""Locks between jobs: one job at a time prepares a data set or works on a training."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.runtime.console import log

_POLL_S = 0.5
_LOG_EVERY_S = 10


@contextmanager
def lock(file: Path) -> Iterator[str | None]:
    """Hold the lock on ``file`` while the block runs; yield None, or the holder's description if another job has it.

    Where the disk supports no locks, the description is empty.

    The operating system frees the lock when its process ends, however it ends. Jobs of several machines exclude each
    other only if the disk that they share supports locks, as NFS does since version 4.

    Raises:
        OSError: the lock's folder or file cannot be made.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(file, os.O_RDWR | os.O_CREAT, 0o600), "r+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield handle.read() or "it has just begun"
            return
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            log.warning("%s does not support locks: a second job there can do the same work at once", file.parent)
            yield ""
            return
        handle.truncate()
        handle.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%H:%M:%S')}")
        handle.flush()
        yield None


@contextmanager
def wait_for_lock(file: Path, work: str) -> Iterator[None]:
    """Hold the lock on ``file`` while the block runs; wait until no other job has it, and log ``work`` meanwhile."""
    begin, last_log = time.monotonic(), -float(_LOG_EVERY_S)
    while True:
        with lock(file) as holder:
            if not holder:
                yield
                return
        waited = time.monotonic() - begin
        if waited - last_log >= _LOG_EVERY_S:
            last_log = waited
            log.info("waiting for another job that is %s (%s; %.0f s)", work, holder, waited)
        time.sleep(_POLL_S)
