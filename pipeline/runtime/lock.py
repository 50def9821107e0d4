"""Two jobs at once: which of them may work on what, and who has it."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.config import Config
from pipeline.runtime.console import log


@contextmanager
def lock(config: Config, name: str) -> Iterator[str | None]:
    """Hold a lock while the block runs, if it is free: yield None, else who has it.

    The system frees it when its process ends, however it ends. It lies beside the checkpoints where these are on a
    disk, and otherwise in the work directory: it keeps jobs of one machine apart, and of several if the disk that they
    share knows locks (NFS does since version 4).
    """
    base = Path(config.checkpoint_dir.path).parent if config.checkpoint_dir.is_local else config.work_dir
    (base / ".locks").mkdir(parents=True, exist_ok=True)
    with open(os.open(base / ".locks" / name, os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield file.read() or "it has just begun"
            return
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            log.warning("%s knows no locks: nothing keeps a second job from doing the same there", base)
            yield None
            return
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%H:%M:%S')}")
        file.flush()
        yield None


@contextmanager
def one_at_a_time(config: Config, name: str, what: str) -> Iterator[None]:
    """Let the block run in one job at a time; the others wait until it has ended there, and say so."""
    begin, last_word = time.monotonic(), -10.0
    while True:
        with lock(config, name) as holder:
            if holder is None:
                yield
                return
        waited = time.monotonic() - begin
        if waited - last_word >= 10:
            last_word = waited
            log.info("waiting for another job that is %s (%s; %.0f s)", what, holder, waited)
        time.sleep(0.5)
