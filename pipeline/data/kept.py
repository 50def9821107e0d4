"""Which prepared data are in use, how much all take, and the removal of old ones: `run.keep_data`.

Every job that uses a data set writes a heartbeat into its folder, a file for each machine. Data are removed only when
it is known that nobody uses them: the folder is on this machine's disk, which supports locks, its manifest says that
this use case made it, and the only heartbeats are this machine's, older than ``UNUSED_S``, of a process that has ended.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from pipeline.config import Config
from pipeline.data.manifest import FILE_NAME, Manifest
from pipeline.runtime.console import log
from pipeline.runtime.errors import UserError
from pipeline.runtime.lock import lock
from pipeline.runtime.storage import Folder

UNUSED_S = 3600
"""Seconds without a heartbeat after which data count as unused."""

_BEAT_S = 60
_BEAT = "in-use-by-"


@dataclass(frozen=True)
class DataSet:
    """A prepared data set in the folder of all."""

    name: str
    folder: Folder
    bytes: int
    last_used: float
    """Seconds since 1970; 0 if nobody has said it."""
    kept_because: str
    """Why it cannot be known that it is unused; empty if it can."""


def beat(folder: Folder) -> None:
    """Write down that this process uses the data in ``folder`` now; in a store that is never pruned write nothing."""
    if folder.is_on_this_disk:
        folder.write(_BEAT + _machine(), f"{os.getpid()} {time.time():.0f}".encode())


@contextmanager
def in_use(folder: Folder) -> Iterator[None]:
    """Write a heartbeat into ``folder`` once a minute while the block runs."""
    ended = threading.Event()

    def keep_on() -> None:
        while not ended.wait(_BEAT_S):
            with suppress(OSError):  # a full disk; the next beat may find room
                beat(folder)

    beat(folder)
    thread = threading.Thread(target=keep_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()  # a beat that is being written must not come back after the folder was removed


def prune(config: Config, current: str, unused_s: float = UNUSED_S) -> None:
    """Log how much prepared data there are; keep the newest `run.keep_data` sets of this use case and remove others.

    ``current`` is the name of the data set that this job uses. Data that another machine has used, or that were used
    within the last ``unused_s`` seconds, stay; so do all in an object store.
    """
    keep, data_dir = config.run.keep_data, config.data_dir
    names = [name for name in data_dir.names() if re.fullmatch(r"[0-9a-f]{16}", name)]
    if keep is None and len(names) < 2:
        return
    size = sum(_bytes(data_dir / name) for name in names)
    log.info("prepared data: %d data set(s), %s, in %s", len(names), _mib(size), data_dir)
    if keep is None:
        log.info("all are kept; set run.keep_data to keep only the newest of this use case")
        return
    if not data_dir.is_on_this_disk:
        log.warning("run.keep_data removes nothing: whether another machine uses %s cannot be known", data_dir)
        return
    own = [_inspect(data_dir / name, name, unused_s) for name in names if _is_of(config, data_dir / name)]
    own.sort(key=lambda one: (one.name == current, one.last_used, one.name), reverse=True)
    for old in own[keep:]:
        if old.kept_because:
            log.info("kept beyond run.keep_data: %s %s", old.folder, old.kept_because)
            continue
        with lock(config.lock_dir / old.name) as holder:  # a job that begins to use it has this lock
            if holder is None and not _inspect(old.folder, old.name, unused_s).kept_because:
                old.folder.delete(FILE_NAME)  # from now on it is no data set
                old.folder.remove()
                log.info("removed old prepared data: %s, %s", old.folder, _mib(old.bytes))
            else:
                log.info("kept beyond run.keep_data: %s is being prepared or used", old.folder)


def _is_of(config: Config, folder: Folder) -> bool:
    """Whether ``folder`` holds a data set that this use case has prepared."""
    try:
        manifest = Manifest.read(folder)
    except UserError:  # of a newer version
        return False
    return manifest is not None and manifest.use_case == config.folder.name


def _inspect(folder: Folder, name: str, unused_s: float) -> DataSet:
    last_used, because = 0.0, ""
    beats = [file.removeprefix(_BEAT) for file in folder.names() if file.startswith(_BEAT)]
    if not beats:
        because = "does not say when it was used"
    for machine in beats:
        try:
            pid, seconds = (int(part) for part in folder.read(_BEAT + machine).split())
        except (ValueError, OSError):
            return DataSet(name, folder, _bytes(folder), last_used, "has a damaged heartbeat")
        last_used = max(last_used, seconds)
        if machine != _machine():
            because = f"was used on another machine, {machine}: remove it yourself when nobody uses it there"
        elif not because and (time.time() - seconds < unused_s or (pid != os.getpid() and _is_alive(pid))):
            because = "was used just now"
    return DataSet(name, folder, _bytes(folder), last_used, because)


def _machine() -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _bytes(folder: Folder) -> int:
    with suppress(OSError):  # another job removes it meanwhile
        return int(folder.filesystem().du(folder.path))
    return 0


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
