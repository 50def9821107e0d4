"""Which prepared data are in use, how much all take, and the removal of old ones: `run.keep_data`.

Every process that uses a data set writes a heartbeat into its folder. Data are removed only when it is known that
nobody uses them. That is: the folder is on a disk of this machine, which supports locks. Its manifest says that this
use case made it. All heartbeats are this machine's, older than ``UNUSED_S``, of processes that have ended.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipeline.config import Config
from pipeline.data.manifest import Manifest
from pipeline.runtime.console import log
from pipeline.runtime.errors import StorageError, UserError, one_line
from pipeline.runtime.lock import lock
from pipeline.runtime.storage import Folder

UNUSED_S = 3600
"""Seconds without a heartbeat after which data count as unused."""

_BEAT_S = 60
_BEAT = "in-use-by-"
_REMOVED = ".removed-"
_DISKS = frozenset(["ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "overlay", "tmpfs"])
"""File systems that no other machine shares; on all others it cannot be known who uses a file."""


@dataclass(frozen=True)
class DataSet:
    """A prepared data set of this use case."""

    folder: Folder
    bytes: int
    last_used: float
    """Seconds since 1970; 0 if nobody has said it."""
    kept_because: str
    """Why it cannot be known that it is unused; empty if it can."""


def beat(folder: Folder) -> None:
    """Write down that this process uses the data in ``folder`` now; in a store that is never pruned write nothing."""
    if not folder.is_on_this_disk:
        return
    own = f"{_BEAT}{_machine()}-{os.getpid()}"
    try:
        folder.write(own, f"{time.time():.0f}".encode())
    except OSError as error:
        raise StorageError(f"cannot write in {folder}: {one_line(error)}; make room, or make it writable") from None
    for file in folder.names():  # this beat says all that those of ended processes say
        if file.startswith(f"{_BEAT}{_machine()}-") and file != own and not _is_alive(_pid(file)):
            folder.delete(file)


@contextmanager
def in_use(folder: Folder) -> Iterator[None]:
    """Write a heartbeat into ``folder`` once a minute while the block runs."""
    ended = threading.Event()

    def keep_on() -> None:
        while not ended.wait(_BEAT_S):
            with suppress(StorageError):  # a full disk; the next beat may find room
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
    within the last ``unused_s`` seconds, stay; so do all on a disk that machines share, and in an object store.
    """
    keep, data_dir = config.run.keep_data, config.data_dir
    names = [name for name in data_dir.names() if re.fullmatch(r"[0-9a-f]{16}", name)]
    if keep is None and len(names) < 2:
        return
    size = f", {_mib(sum(_bytes(data_dir / name) for name in names))}" if data_dir.is_on_this_disk else ""
    log.info("prepared data: %d data set(s)%s, in %s", len(names), size, data_dir)
    if keep is None:
        log.info("all are kept; set run.keep_data to keep only the newest of this use case")
        return
    if not data_dir.is_on_this_disk or _file_system(data_dir.path) not in _DISKS:
        log.warning("run.keep_data removes nothing: whether another machine uses %s cannot be known", data_dir)
        return
    _finish_removals(data_dir)
    own = [found for name in names if (found := _inspect(config, data_dir / name, unused_s)) is not None]
    own.sort(key=lambda one: (one.folder == data_dir / current, one.last_used, one.folder.path), reverse=True)
    for old in own[keep:]:
        because = old.kept_because or _remove(config, old, unused_s)
        if because:
            log.info("kept beyond run.keep_data: %s %s", old.folder, because)
        else:
            log.info("removed old prepared data: %s, %s", old.folder, _mib(old.bytes))


def _remove(config: Config, old: DataSet, unused_s: float) -> str:
    """Remove a data set, unless a job begins to use it; return why it stays."""
    name = Path(old.folder.path).name
    try:
        with lock(config.lock_dir / name) as holder:  # a job that begins to use it has this lock
            again = _inspect(config, old.folder, unused_s) if holder is None else None
            if again is None or again.kept_because:
                return "is being prepared or used"
            os.rename(old.folder.path, (config.data_dir / f"{_REMOVED}{name}").path)  # from now on it is no data set
    except OSError as error:  # of another user
        return f"cannot be removed: {one_line(error)}"
    _finish_removals(config.data_dir)
    return ""


def _finish_removals(data_dir: Folder) -> None:
    """Delete the files of the data sets that were removed, also of those whose removal was interrupted."""
    for name in data_dir.names():
        if name.startswith(_REMOVED):
            shutil.rmtree((data_dir / name).path, ignore_errors=True)


def _inspect(config: Config, folder: Folder, unused_s: float) -> DataSet | None:
    """Return what is known of a data set; None unless it says that this use case has prepared it."""
    try:
        manifest = Manifest.read(folder)
        if manifest is None or manifest.use_case != config.folder.name:
            return None
        beats = {name: float(folder.read(name)) for name in folder.names() if name.startswith(_BEAT)}
    except (UserError, OSError):  # of a newer version, of another user, or gone meanwhile
        return None
    except ValueError:
        return DataSet(folder, _bytes(folder), 0.0, "has a damaged heartbeat")
    because = "" if beats else "does not say when it was used"
    for name, seconds in beats.items():
        if not name.startswith(f"{_BEAT}{_machine()}-"):
            machine = name.removeprefix(_BEAT).rpartition("-")[0]
            because = f"was used on another machine, {machine}: remove it yourself when nobody uses it there"
        elif not because and (time.time() - seconds < unused_s or _is_alive(_pid(name))):
            because = "was used just now"
    return DataSet(folder, _bytes(folder), max(beats.values(), default=0.0), because)


def _machine() -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())


def _pid(beat_file: str) -> int:
    number = beat_file.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def _is_alive(pid: int) -> bool:
    """Whether another process of this number may run; this one knows what it uses."""
    return pid < 0 or (pid != os.getpid() and psutil.pid_exists(pid))


def _file_system(path: str) -> str:
    """Return the type of the file system that holds ``path``, as Linux names it; empty where that cannot be known."""
    path, found = os.path.realpath(path), ("", "")
    with suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        for line in mounts:
            before, _, after = line.partition(" - ")
            place = before.split()[4].replace("\\040", " ")
            if os.path.commonpath([place, path]) == place and len(place) >= len(found[0]):
                found = place, after.split()[0]
    return found[1]


def _bytes(folder: Folder) -> int:
    with suppress(OSError):  # another job removes it meanwhile
        return int(folder.filesystem().du(folder.path))
    return 0


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
