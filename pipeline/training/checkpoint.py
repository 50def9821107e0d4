"""What an interrupted training needs to resume: rank 0 writes it, every rank reads it.

A checkpoint is one safetensors file. Its tensors are the network, the weights kept so far and the optimizer. The JSON
in its header holds the epoch, the step and the records of all epochs. A checkpoint within an epoch also holds the sums
of that part and each rank's generator of random numbers; every other epoch seeds its own. A checkpoint's name holds its
checksum, and it is written whole or not at all, so a damaged one is never taken. Nothing in it can run code.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.evaluation.metrics import EpochRecord
from pipeline.runtime.console import log
from pipeline.runtime.errors import StorageError, UserError, one_line
from pipeline.runtime.records import Unfit, check_type
from pipeline.runtime.storage import Folder
from pipeline.training import older_checkpoints, partial_epoch
from pipeline.training.task import Cache, Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_NAME = re.compile(r"epoch-(\d{6,})-step-(\d{9,})-([0-9a-f]{32})\.safetensors")
_FORMAT = 4
_OLDEST_FORMAT = 2
_WEIGHTS = "weights.safetensors"
"""The kept weights of a training that has ended. They go by file: Spark would collect them through its own messages."""


class TooOld(ValueError):
    """A checkpoint has a format that this version cannot upgrade, or none that it knows."""


class Altered(ValueError):
    """A checkpoint is not as it was written."""


@dataclass
class Progress:
    """Where a training stands; the same on all ranks."""

    epoch: int = 0
    """Epochs that are done."""
    step: int = 0
    """Steps that are done of the next epoch; only a training that was asked to stop keeps a part of an epoch."""
    history: list[EpochRecord] = field(default_factory=list)
    """The epochs that are done, in order."""
    best: EpochRecord | None = None
    """The epoch whose weights are kept: the one with the lowest validation loss."""
    lowest: float = math.inf
    """The validation loss that early stopping compares with; another is lower only if it is so by `min_delta`."""
    lowest_epoch: int = 0
    """The epoch that had it."""
    cache: Cache = "memory"
    """The order of the rows in an epoch depends on it."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds."""

    progress: Progress
    tensors: dict[str, Tensor]
    """By name: `net.…`, `best.…`, `optimizer.<parameter>.…`, and those of `partial_epoch.Part`."""

    def below(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names begin with ``prefix`` and a dot, without these."""
        return {n.removeprefix(f"{prefix}."): t for n, t in self.tensors.items() if n.startswith(f"{prefix}.")}


def pack(
    progress: Progress,
    net: nn.Module,
    best: dict[str, Tensor] | None,
    optimizer: torch.optim.Optimizer,
    part: partial_epoch.Part | None = None,
) -> bytes:
    """Return a training's state as a file; ``best``: the kept weights; ``part``: of an epoch that is not done."""
    from safetensors.torch import save

    tensors = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in (best or {}).items()}
    for parameter, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{parameter}.{name}": tensor for name, tensor in state.items() if tensor is not None}
    tensors |= part.named() if part else {}
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return bytes(save(whole, {"format": str(_FORMAT), "progress": json.dumps(vars(progress), default=vars)}))


def unpack(content: bytes) -> Checkpoint:
    """Return what :func:`pack` has packed. Raises TooOld, or UserError if it is newer."""
    from safetensors.torch import load

    return Checkpoint(_progress(content), {**load(content), **older_checkpoints.parts(content)})


def restore(checkpoint: Checkpoint, net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor] | None:
    """Put a network and its optimizer in the state that they had; return the weights kept until then, if any.

    Raises:
        UserError: the checkpoint is of another network.
    """
    states: dict[int, dict[str, Tensor]] = {}
    try:
        net.load_state_dict(checkpoint.below("net"))
        for name, tensor in checkpoint.below("optimizer").items():
            parameter, _, state = name.partition(".")
            states.setdefault(int(parameter), {})[state] = tensor
        optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    except (RuntimeError, ValueError, KeyError) as error:
        problem = f"a checkpoint does not fit this network ({one_line(error)})"
        raise UserError(f"{problem}; begin anew with --fresh") from None
    return checkpoint.below("best") or None


def newest(folder: Folder, cache: Cache | None = None) -> tuple[str, Progress] | None:
    """Return name and progress of the newest checkpoint that is as it was written; None when there is none.

    With ``cache``, a checkpoint within an epoch is skipped if that epoch began with another ``cache``: its rows came in
    another order.

    Raises:
        StorageError: a checkpoint cannot be read.
        UserError: a newer version of this package has written it.
    """
    for name in sorted((name for name in folder.names() if _NAME.fullmatch(name)), reverse=True):
        try:
            progress = _progress(content := read(folder, name))
            if not progress.step or cache in (None, progress.cache):
                return name, progress
        except TooOld as error:
            beside = Folder(f"{folder}-of-another-format")  # here it would go with the others when training has ended
            log.warning("the checkpoint %s/%s is not used, but kept in %s: %s", folder, name, beside, one_line(error))
            with contextlib.suppress(Exception):  # without room it stays where it is
                beside.make()
                beside.write(name, content)
                folder.delete(name)
        except Altered as error:
            log.warning("removing the checkpoint %s/%s: %s", folder, name, one_line(error))
            folder.delete(name)
        except OSError as error:
            problem = f"cannot read the checkpoint {folder}/{name}: {one_line(error)}"
            raise StorageError(f"{problem}; make it readable, or begin anew with --fresh") from None
    return None


def of_task(task: Task) -> bytes | None:
    """Return the checkpoint that ``task`` resumes from; None when it begins. Raises what :func:`read` does."""
    return read(task.checkpoints, task.checkpoint) if task.checkpoint else None


def read(folder: Folder, name: str) -> bytes:
    """Return a checkpoint as it was written. Raises OSError if it cannot be read, Altered if it was altered."""
    match = _NAME.fullmatch(name)
    content = folder.read(name)
    if not match or _digest(content) != match[3]:
        raise Altered("it is not as it was written")
    return content


class Writer:
    """Writes checkpoints in a thread of its own, so that no step waits for a disk, and keeps the newest ``keep``.

    Of the checkpoints that come while one is being written, only the last is written. So if epochs are shorter than a
    write there are fewer checkpoints than epochs, and the newest one is still the newest.
    """

    def __init__(self, folder: Folder, keep: int) -> None:
        self._folder = folder
        self._keep = keep
        self._waiting: tuple[Progress, bytes] | None = None
        self._error: StorageError | None = None
        self._is_closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, progress: Progress, content: bytes) -> None:
        """Have ``content`` written; returns at once. Raises StorageError if an earlier write failed."""
        self._raise_if_failed()
        with self._changed:
            self._waiting = (Progress(progress.epoch, progress.step), content)
            self._changed.notify()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, raised: type[BaseException] | None, *_: object) -> None:
        """Wait until the newest is written. Raises StorageError if a write failed."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()
        if raised is None:
            self._raise_if_failed()

    def _raise_if_failed(self) -> None:
        if self._error is not None:
            raise self._error from None

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._waiting is None and not self._is_closing:
                    self._changed.wait()
                if self._waiting is None:
                    return
                (progress, content), self._waiting = self._waiting, None
            try:
                written = write_or_explain(self._folder, progress, content)
            except StorageError as error:
                self._error = error
                return
            with contextlib.suppress(Exception):  # the next write deletes what is left now
                names = sorted(name for name in self._folder.names() if _NAME.fullmatch(name) and name <= written)
                for old in names[: -self._keep]:
                    self._folder.delete(old)


def write(folder: Folder, progress: Progress, content: bytes) -> str:
    """Write a checkpoint so that it is there whole or not at all; return its name. Raises what its store raises."""
    name = f"epoch-{progress.epoch:06d}-step-{progress.step:09d}-{_digest(content)}.safetensors"
    folder.write(name, content)
    return name


def write_weights(folder: Folder, content: bytes) -> str:
    """Write the kept weights for the driver; return their checksum. Raises StorageError."""
    with _explained(folder, "the weights"):
        folder.write(_WEIGHTS, content)
    return hashlib.sha256(content).hexdigest()


def read_weights(folder: Folder, sha256: str) -> bytes:
    """Return the weights that rank 0 has written. Raises StorageError if they are not there as they were written."""
    try:
        content = folder.read(_WEIGHTS)
    except OSError as error:
        raise StorageError(f"cannot read {folder}/{_WEIGHTS}: {one_line(error)}; run again to resume") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise StorageError(f"{folder}/{_WEIGHTS} is not as rank 0 has written it; run again to resume")
    return content


def write_or_explain(folder: Folder, progress: Progress, content: bytes) -> str:
    """Write a checkpoint and return its name. Raises StorageError, which says what to do."""
    with _explained(folder, "a checkpoint"):
        return write(folder, progress, content)


@contextlib.contextmanager
def _explained(folder: Folder, what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each store has errors of its own
        problem = f"cannot write {what} in {folder}: {one_line(error)}"
        raise StorageError(f"{problem}; make room there, and run again to resume from the last checkpoint") from None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _progress(content: bytes) -> Progress:
    """Return the progress in the header, without torch: the driver reads it, too."""
    try:
        tensors = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        header = tensors.pop("__metadata__")
        if int(header["format"]) > _FORMAT:
            problem = f"a checkpoint has format {header['format']}, but this version knows only up to {_FORMAT}"
            raise UserError(f"{problem}; use the newer version, or begin anew with --fresh")
        if int(header["format"]) < _OLDEST_FORMAT:
            raise TooOld(f"this version reads formats {_OLDEST_FORMAT} to {_FORMAT}, not {header['format']}")
        fields = json.loads(header["progress"])
        if int(header["format"]) == 2:
            fields = older_checkpoints.from_2_to_3(fields, tensors)
        parts = fields.pop("parts", None)  # of formats 2 and 3: see older_checkpoints.parts
        fields["history"] = [EpochRecord.from_dict(record) for record in fields["history"]]
        fields["best"] = fields["best"] and EpochRecord.from_dict(fields["best"])
        progress = Progress(**fields)
        check_type("progress", progress, Progress, finite=False)
        if len(progress.history) != progress.epoch or progress.lowest_epoch > progress.epoch:
            raise Unfit("progress.epoch does not fit progress.history")
        if progress.step and not (older_checkpoints.are_parts(parts) or partial_epoch.are_named(tensors)):
            raise Unfit("it is within an epoch, and lacks what the ranks had counted")
        return progress
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, TooOld):
            raise
        raise TooOld(f"it has no format that this version knows ({one_line(error)})") from None
