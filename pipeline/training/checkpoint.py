"""What a training needs to go on after it was interrupted: rank 0 writes it, every rank reads it.

A checkpoint is one safetensors file: the network, the weights kept so far, the optimizer, and as JSON in its header the
epoch, the step, the records of all epochs and each rank's count of rows. Its name holds its own checksum, and it is
there whole or not at all, so one that is cut off or altered is known by its name and never taken. Random numbers need
no room: every epoch seeds its own (only a stop within an epoch keeps the generators). Nothing here can run code.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.evaluation.metrics import EpochRecord
from pipeline.runtime.console import log
from pipeline.runtime.errors import StorageError, one_line
from pipeline.runtime.storage import Folder
from pipeline.training.task import Cache

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_NAME = re.compile(r"epoch-(\d{6,})-step-(\d{9,})-([0-9a-f]{32})\.safetensors")
_FORMAT = "3"


@dataclass
class Progress:
    """Where a training stands; the same on all ranks."""

    epoch: int = 0
    """Epochs that are done."""
    step: int = 0
    """Steps that are done of the next one; only a training that was told to stop keeps a part of an epoch."""
    parts: list[dict[str, Any]] = field(default_factory=list)
    """Of the epoch in which it stopped, by rank: rows, loss and detail so far."""
    history: list[EpochRecord] = field(default_factory=list)
    """The epochs that are done, in order."""
    best: EpochRecord | None = None
    """The epoch whose weights are kept: the one with the lowest validation loss."""
    lowest: float = math.inf
    """The validation loss that early stopping compares with, which is lower only if it is so by `min_delta`."""
    lowest_epoch: int = 0
    cache: Cache = "memory"
    """Whether rows were kept in memory or streamed: their order in an epoch depends on it."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds."""

    progress: Progress
    tensors: dict[str, Tensor]
    """`net.…`, `best.…`, `optimizer.<parameter>.…`, `random.<rank>`"""

    def below(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names begin with ``prefix`` and a dot, without these."""
        return {n.removeprefix(f"{prefix}."): t for n, t in self.tensors.items() if n.startswith(f"{prefix}.")}


def pack(
    progress: Progress,
    net: nn.Module,
    best: dict[str, Tensor] | None,
    optimizer: torch.optim.Optimizer,
    random: list[Tensor] | None = None,
) -> bytes:
    """Return a training's state as a file; ``best``: the kept weights; ``random``: each rank's generator."""
    from safetensors.torch import save

    tensors = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in (best or {}).items()}
    for parameter, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{parameter}.{name}": tensor for name, tensor in state.items() if tensor is not None}
    tensors |= {f"random.{rank}": tensor for rank, tensor in enumerate(random or [])}
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return bytes(save(whole, {"format": _FORMAT, "progress": json.dumps(vars(progress), default=vars)}))


def unpack(content: bytes) -> Checkpoint:
    """Return what :func:`pack` has packed. Raises ValueError."""
    from safetensors.torch import load

    return Checkpoint(_progress(content), load(content))


def restore(checkpoint: Checkpoint, net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor] | None:
    """Put a network and its optimizer in the state that they had; return the weights kept until then, if any."""
    net.load_state_dict(checkpoint.below("net"))
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in checkpoint.below("optimizer").items():
        parameter, _, what = name.partition(".")
        states.setdefault(int(parameter), {})[what] = tensor
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    return checkpoint.below("best") or None


def newest(folder: Folder, cache: Cache | None = None) -> tuple[str, Progress] | None:
    """Return name and progress of the newest checkpoint that is as it was written; None when there is none.

    With ``cache``, one within an epoch is passed over if that epoch was begun with another: the order was another.
    """
    for name in sorted((name for name in folder.names() if _NAME.fullmatch(name)), reverse=True):
        try:
            progress = _progress(read(folder, name))
            if not progress.step or cache in (None, progress.cache):
                return name, progress
        except ValueError as error:
            log.warning("removing the checkpoint %s/%s: %s", folder, name, one_line(error))
            folder.delete(name)
        except OSError as error:
            what = f"cannot read the checkpoint {folder}/{name}: {one_line(error)}"
            raise StorageError(f"{what}; mend that, or begin anew with --fresh") from None
    return None


def read(folder: Folder, name: str) -> bytes:
    """Return a checkpoint as it was written. Raises OSError, and ValueError where it is not that any more."""
    found = _NAME.fullmatch(name)
    content = folder.read(name)
    if not found or _digest(content) != found[3]:
        raise ValueError("it is not as it was written")
    return content


class Writer:
    """Writes checkpoints in a thread of its own, so that no step waits for a disk, and keeps the newest ``keep``.

    While one is being written, of those that come meanwhile only the last is: with epochs shorter than a write there
    are fewer checkpoints than epochs, but never an older newest one.
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
        """Have ``content`` written; returns at once. Raises StorageError when an earlier one could not be."""
        self._raise_if_failed()
        with self._changed:
            self._waiting = (Progress(progress.epoch, progress.step), content)
            self._changed.notify()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, raised: type[BaseException] | None, *_: object) -> None:
        """Wait until the newest is written. Raises StorageError when it could not be."""
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
                written = write_or_tell(self._folder, progress, content)
            except StorageError as error:
                self._error = error
                return
            with contextlib.suppress(Exception):  # what is not deleted now is so the next time
                names = sorted(name for name in self._folder.names() if _NAME.fullmatch(name) and name <= written)
                for old in names[: -self._keep]:
                    self._folder.delete(old)


def write(folder: Folder, progress: Progress, content: bytes) -> str:
    """Write a checkpoint so that it is there whole or not at all; return its name. Raises what its store raises."""
    name = f"epoch-{progress.epoch:06d}-step-{progress.step:09d}-{_digest(content)}.safetensors"
    folder.write(name, content)
    return name


def write_or_tell(folder: Folder, progress: Progress, content: bytes) -> str:
    """Write a checkpoint and return its name. Raises StorageError, which says what to do."""
    try:
        return write(folder, progress, content)
    except Exception as error:  # each store has errors of its own
        what = f"cannot write a checkpoint in {folder}: {one_line(error)}"
        raise StorageError(f"{what}; make room or mend it, and run again to go on from the last one") from None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _progress(content: bytes) -> Progress:
    """Return what the header says, without torch: the driver reads it, too."""
    length = int.from_bytes(content[:8], "little")
    try:
        said = json.loads(content[8 : 8 + length])["__metadata__"]
        if said["format"] != _FORMAT:
            raise ValueError(f"it has format {said['format']}, which this version does not know")
        fields = json.loads(said["progress"])
        fields["history"] = [EpochRecord.from_dict(record) for record in fields["history"]]
        fields["best"] = fields["best"] and EpochRecord.from_dict(fields["best"])
        return Progress(**fields)
    except (KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"it is no checkpoint of this pipeline ({one_line(error)})") from None
