"""One rank's shard of a split, read through Petastorm, as batches of tensors.

Guarantees: an epoch yields every row of the shard exactly once, in batches of which only the last may be short; the
order of an epoch depends on the seed and the epoch's number alone. Both splits of a job are counted: see
:func:`check_rows`.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import RowAccountingError
from pipeline.manifest import Manifest, SplitName
from pipeline.storage import Folder

with warnings.catch_warnings():  # Petastorm 0.12 uses names that pyarrow 14 has deprecated
    warnings.simplefilter("ignore")
    from petastorm import make_batch_reader
    from pyarrow.filesystem import DaskFileSystem


class _AnyFileSystem(DaskFileSystem):  # type: ignore[misc]
    """A file system of fsspec in the only form in which Petastorm 0.12 can read a store: pyarrow's old interface."""

    def isdir(self, path: str) -> bool:
        return bool(self.fs.isdir(path))

    def isfile(self, path: str) -> bool:
        return bool(self.fs.isfile(path))


@dataclass(frozen=True)
class Shard:
    """The rows of one rank, in memory: decoded once, shuffled anew each epoch."""

    features: Tensor
    """float32 (rows, features)"""
    labels: Tensor
    """int64 (rows,) class codes, or float32 (rows,) for regression"""

    @property
    def rows(self) -> int:
        """Rows of the shard."""
        return len(self.labels)

    def batches(self, batch_size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (features, labels) of ``batch_size`` rows, the last one maybe fewer, in ``order`` (a permutation)."""
        for start in range(0, self.rows, batch_size):
            if order is None:
                yield self.features[start : start + batch_size], self.labels[start : start + batch_size]
            else:
                chosen = order[start : start + batch_size]
                yield self.features[chosen], self.labels[chosen]


def epoch_order(rows: int, seed: int, epoch: int, rank: int) -> Tensor:
    """Return the permutation in which ``rank`` takes its rows in ``epoch``."""
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0]))
    return torch.randperm(rows, generator=generator)


def read_shard(folder: Folder, data: Manifest, split: SplitName, rank: int, num_proc: int) -> Shard:
    """Read every ``num_proc``-th row group of ``split``, starting with the ``rank``-th, through Petastorm.

    Raises:
        RowAccountingError: the shard does not hold the rows that the manifest says.
    """
    features = [*data.numeric, *data.vocabularies]
    is_class = bool(data.label.classes)
    blocks = [np.empty((0, len(features)), np.float32)]
    labels = [np.empty(0, np.int64 if is_class else np.float32)]
    groups = data.splits[split].row_groups
    if groups[rank::num_proc]:
        # The files are named, in the manifest's order: that is the order in which Petastorm deals row groups out.
        urls = list(dict.fromkeys((folder / group.path).url for group in groups))
        try:
            for path in dict.fromkeys(group.path for group in groups[rank::num_proc]):
                _check_file(folder, path, data.sha256[path])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", category=FutureWarning)
                reader = make_batch_reader(
                    urls,
                    schema_fields=[*features, data.label.column],
                    # One thread: with more, row groups arrive in another order every time.
                    reader_pool_type="thread",
                    workers_count=1,
                    shuffle_row_groups=False,
                    # Petastorm wants a row group for every shard. With fewer, each is a shard of its own.
                    cur_shard=rank,
                    shard_count=min(num_proc, len(groups)),
                    num_epochs=1,
                    filesystem=_petastorm_filesystem(folder),
                )
        except OSError as error:
            # pyarrow's words for a file that is not there; anything else is no reason to delete good data
            is_gone = isinstance(error, FileNotFoundError) or "non-file path" in str(error)
            what = _mend(folder) if is_gone else "can this rank reach them?"
            raise RowAccountingError(f"the {split} data in {folder} cannot be read: {error}; {what}") from None
        with reader:
            for batch in reader:
                # One matrix per row group: gathering a batch from it is one operation, not one per column.
                blocks.append(np.column_stack([getattr(batch, name).astype(np.float32) for name in features]))
                labels.append(getattr(batch, data.label.column).astype(labels[0].dtype))
    shard = Shard(torch.from_numpy(np.concatenate(blocks)), torch.from_numpy(np.concatenate(labels)))
    expected = data.splits[split].shard_rows(num_proc)[rank]
    if shard.rows != expected:
        problem = f"rank {rank} read {shard.rows} {split} rows, but the manifest says {expected}"
        raise RowAccountingError(f"{problem}; {_mend(folder)}")
    return shard


def _check_file(folder: Folder, path: str, sha256: str) -> None:
    """Raise RowAccountingError unless a file is as it was written. This also keeps foreign metadata from Petastorm."""
    with folder.open(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    if digest != sha256:
        raise RowAccountingError(f"{folder}/{path} is not as it was written: its checksum differs; {_mend(folder)}")


def _petastorm_filesystem(folder: Folder) -> Any:
    return None if folder.is_local else _AnyFileSystem(folder.filesystem())


def check_rows(data: Manifest, folder: Folder, split: SplitName, epoch: int, seen: int) -> None:
    """Raise RowAccountingError unless all ranks together saw ``data``'s rows of ``split`` in this epoch."""
    expected = data.splits[split].rows
    if seen != expected:
        problem = f"epoch {epoch}: the ranks saw {seen} {split} rows, but the manifest says {expected}"
        raise RowAccountingError(f"{problem}; {_mend(folder)}")


def _mend(folder: Folder) -> str:
    return f"the prepared data have changed since they were written: delete {folder} and run again"


def steps_and_rows(shard_rows: list[int], batch_size: int) -> list[int]:
    """Return the global batch's rows of every step of an epoch, so also the number of steps.

    All ranks take the steps of the fullest one; a rank that has run out of rows takes part with none. Nothing has to
    be exchanged for this: every rank works it out from the manifest.
    """
    steps = -(-max(shard_rows) // batch_size)
    return [sum(min(batch_size, max(0, rows - step * batch_size)) for rows in shard_rows) for step in range(steps)]
