"""What an interrupted training needs to resume: rank 0 writes it, every rank reads it.

A checkpoint is one safetensors file. Its tensors are the network, the weights kept so far and the optimizer. The JSON
in its header holds the epoch, the step and the records of all epochs. A checkpoint within an epoch also holds each
rank's sums and its generator of random numbers; every other epoch seeds its own. A checkpoint's name holds its
checksum, and it is written whole or not at all, so a damaged one is never taken. Nothing in it can run code.
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
from pipeline.runtime.errors import StorageError, UserError, one_line
from pipeline.runtime.storage import Folder
from pipeline.training.task import Cache, Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_NAME = re.compile(r"epoch-(\d{6,})-step-(\d{9,})-([0-9a-f]{32})\.safetensors")
_FORMAT = 3
_OLDEST_FORMAT = 2


class TooOld(Exception):
    """A checkpoint has a format that this version cannot upgrade."""


@dataclass
class Progress:
    """Where a training stands; the same on all ranks."""

    epoch: int = 0
    """Epochs that are done."""
    step: int = 0
    """Steps that are done of the next epoch; only a training that was asked to stop keeps a part of an epoch."""
    parts: list[list[float]] = field(default_factory=list)
    """Of that part of an epoch, by rank: the vector of :class:`pipeline.evaluation.sums.MetricSums`."""
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
    """By name: `net.…`, `best.…`, `optimizer.<parameter>.…`, `random.<rank>`."""

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
    return bytes(save(whole, {"format": str(_FORMAT), "progress": json.dumps(vars(progress), default=vars)}))


def unpack(content: bytes) -> Checkpoint:
    """Return what :func:`pack` has packed. Raises ValueError if it is none, TooOld, or UserError if it is newer."""
    from safetensors.torch import load

    return Checkpoint(_progress(content), load(content))


def restore(checkpoint: Checkpoint, net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor] | None:
    """Put a network and its optimizer in the state that they had; return the weights kept until then, if any."""
    net.load_state_dict(checkpoint.below("net"))
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in checkpoint.below("optimizer").items():
        parameter, _, state = name.partition(".")
        states.setdefault(int(parameter), {})[state] = tensor
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    return checkpoint.below("best") or None


def random_state(device: torch.device) -> Tensor:
    """Return the state of the generator that dropout draws from on ``device``."""
    import torch

    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def restore_random_state(checkpoint: Checkpoint, rank: int, device: torch.device) -> None:
    """Put the generator of ``device`` in the state that ``rank`` had when it stopped within an epoch."""
    import torch

    state = checkpoint.tensors[f"random.{rank}"]
    torch.cuda.set_rng_state(state, device) if device.type == "cuda" else torch.set_rng_state(state)


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
            progress = _progress(read(folder, name))
            if not progress.step or cache in (None, progress.cache):
                return name, progress
        except TooOld as error:
            log.warning("skipping the checkpoint %s/%s, which stays there: %s", folder, name, one_line(error))
        except ValueError as error:
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
    """Return a checkpoint as it was written. Raises OSError if it cannot be read, ValueError if it was altered."""
    match = _NAME.fullmatch(name)
    content = folder.read(name)
    if not match or _digest(content) != match[3]:
        raise ValueError("it is not as it was written")
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


def write_or_explain(folder: Folder, progress: Progress, content: bytes) -> str:
    """Write a checkpoint and return its name. Raises StorageError, which says what to do."""
    try:
        return write(folder, progress, content)
    except Exception as error:  # each store has errors of its own
        problem = f"cannot write a checkpoint in {folder}: {one_line(error)}"
        raise StorageError(f"{problem}; make room there, and run again to resume from the last checkpoint") from None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _progress(content: bytes) -> Progress:
    """Return the progress in the header, without torch: the driver reads it, too."""
    length = int.from_bytes(content[:8], "little")
    try:
        tensors = json.loads(content[8 : 8 + length])
        header = tensors.pop("__metadata__")
        if int(header["format"]) > _FORMAT:
            problem = f"a checkpoint has format {header['format']}, but this version knows only up to {_FORMAT}"
            raise UserError(f"{problem}; use the newer version, or begin anew with --fresh")
        if int(header["format"]) < _OLDEST_FORMAT:
            raise TooOld(f"this version reads formats {_OLDEST_FORMAT} to {_FORMAT}, not {header['format']}")
        fields = json.loads(header["progress"])
        if int(header["format"]) == 2:
            fields = _from_2_to_3(fields, _outputs(tensors))
        fields["history"] = [EpochRecord.from_dict(record) for record in fields["history"]]
        fields["best"] = fields["best"] and EpochRecord.from_dict(fields["best"])
        return Progress(**fields)
    except (KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"it is no checkpoint of this pipeline ({one_line(error)})") from None


def _outputs(tensors: dict[str, Any]) -> int:
    """Return the number of the network's outputs; ``tensors`` are the descriptions in a file's header."""
    layers = [int(match[1]) for name in tensors if (match := re.fullmatch(r"net\.layers\.(\d+)\.bias", name))]
    return int(tensors[f"net.layers.{max(layers)}.bias"]["shape"][0])


def _from_2_to_3(fields: dict[str, Any], outputs: int) -> dict[str, Any]:
    """Return a progress of format 2 in the words of format 3.

    Format 2 kept an epoch's numbers in one flat dict, and the times of the epochs beside it. Its confusion matrix had
    no column "no answer".
    """
    times = fields.pop("times_ms")
    best = fields["best"]
    return {
        **fields,
        "history": [_record_from_2(record, times) for record in fields["history"]],
        "best": _record_from_2(best, times) if "epoch" in best else None,
        "parts": [_part_from_2(part, outputs) for part in fields["parts"]],
    }


def _record_from_2(record: dict[str, Any], times_ms: list[int]) -> dict[str, Any]:
    upgraded = {name: record[name] for name in ("epoch", "learning_rate", "rows_per_s", "ranks")}
    for split in ("train", "validation"):
        values = {n.removeprefix(f"{split}_"): value for n, value in record.items() if n.startswith(f"{split}_")}
        upgraded[split] = {"rows": values.pop("rows"), "loss": values.pop("loss"), "metrics": values}
    return {**upgraded, "ended_ms": times_ms[int(record["epoch"]) - 1]}


def _part_from_2(part: dict[str, Any], outputs: int) -> list[float]:
    cells = part["detail"]
    if outputs > 1:  # a classifier: each row of the confusion matrix gets its last column, "no answer"
        cells = [cell for i in range(outputs) for cell in [*cells[i * outputs : (i + 1) * outputs], 0.0]]
    return [*cells, part["loss"], float(part["rows"])]
