"""One rank's shard of a split, read through Petastorm, as batches of tensors.

Guarantees: an epoch yields every row of the shard exactly once, in batches of which only the last may be short; the
order of an epoch depends on the seed, the epoch's number and on whether the shard is streamed, and on nothing else.
Both splits of a job are counted: see :func:`check_rows`.

A shard that fits in memory is decoded once, and shuffled as a whole every epoch. One that does not is read anew every
epoch: its row groups in a random order, the rows of several (`_MIXED_GROUPS`) shuffled together, and the next ones
decoded while these are trained on. Memory then does not depend on the rows.
"""

from __future__ import annotations

import hashlib
import itertools
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.data.manifest import Manifest, SplitName
from pipeline.runtime.errors import RowAccountingError
from pipeline.runtime.storage import Folder
from pipeline.training.task import Cache

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


Batch = tuple[Tensor, Tensor]
"""Features, float32 (rows, features), and labels: int64 (rows,) class codes, or float32 (rows,) for regression."""

# So many row groups make a tenth of a batch's rows, more or less, come from any one of them.
_MIXED_GROUPS = 8


class Shard(Protocol):
    """The rows of one rank, in memory or not."""

    @property
    def rows(self) -> int:
        """Rows of the shard."""

    @property
    def nothing(self) -> Batch:
        """A batch of no rows."""

    def epoch(self, batch_size: int, seed: int, epoch: int, rank: int, skip: int = 0) -> Iterator[Batch]:
        """Yield the shard in this epoch's order, without its first ``skip`` batches."""

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield the shard as it lies in Parquet."""


@dataclass(frozen=True)
class MemoryShard:
    """The rows of one rank, in memory: decoded once, shuffled anew each epoch."""

    features: Tensor
    labels: Tensor

    @property
    def rows(self) -> int:
        """Rows of the shard."""
        return len(self.labels)

    @property
    def nothing(self) -> Batch:
        """A batch of no rows."""
        return self.features[:0], self.labels[:0]

    def epoch(self, batch_size: int, seed: int, epoch: int, rank: int, skip: int = 0) -> Iterator[Batch]:
        """Yield the shard in this epoch's order, without its first ``skip`` batches."""
        order = epoch_order(self.rows, seed, epoch, rank)
        for start in range(skip * batch_size, self.rows, batch_size):
            chosen = order[start : start + batch_size]
            yield self.features[chosen], self.labels[chosen]

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield the shard as it lies in Parquet."""
        for start in range(0, self.rows, batch_size):
            yield self.features[start : start + batch_size], self.labels[start : start + batch_size]


@dataclass(frozen=True)
class StreamedShard:
    """The rows of one rank, read anew in every epoch; in memory are some row groups at a time."""

    folder: Folder
    data: Manifest
    split: SplitName
    rank: int
    num_proc: int

    @property
    def rows(self) -> int:
        """Rows of the shard."""
        return self.data.splits[self.split].shard_rows(self.num_proc)[self.rank]

    @property
    def nothing(self) -> Batch:
        """A batch of no rows."""
        return _tensors(self.data, [])

    def epoch(self, batch_size: int, seed: int, epoch: int, rank: int, skip: int = 0) -> Iterator[Batch]:
        """Yield the shard in this epoch's order, without its first ``skip`` batches."""
        random = _generator(seed, epoch, rank)
        groups = len(self.data.splits[self.split].row_groups[self.rank :: self.num_proc])
        first_seed = int(torch.randint(2**31, (1,), generator=random))

        def mixed() -> Iterator[Batch]:
            blocks = self._blocks(first_seed)
            for chunk in _even_chunks(groups, _MIXED_GROUPS):
                yield shuffled(list(itertools.islice(blocks, chunk)))

        def shuffled(blocks: list[_Block]) -> Batch:
            order = torch.randperm(sum(len(labels) for _, labels in blocks), generator=random)
            return _tensors(self.data, blocks, torch.argsort(order))

        return itertools.islice(_rebatched(_ahead(mixed()), batch_size), skip, None)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield the shard as it lies in Parquet."""
        return _rebatched(_ahead(_tensors(self.data, [block]) for block in self._blocks()), batch_size)

    def _blocks(self, seed: int | None = None) -> Iterator[_Block]:
        return _read(self.folder, self.data, self.split, self.rank, self.num_proc, seed)


def _generator(seed: int, epoch: int, rank: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0]))


def _even_chunks(items: int, least: int) -> list[int]:
    """Cut ``items`` into chunks of about the same length, none shorter than ``least`` if there are so many."""
    chunks = max(1, items // least)
    return [items // chunks + (i < items % chunks) for i in range(chunks)]


def _ahead(items: Iterator[Batch]) -> Iterator[Batch]:
    """Make each item in a thread while the one before it is used."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item
            del item  # while the next is waited for


def _rebatched(blocks: Iterator[Batch], batch_size: int) -> Iterator[Batch]:
    """Cut blocks of any length into batches of the same length, of which only the last may be shorter."""
    left: Batch | None = None
    for features, labels in blocks:
        begin = 0 if left is None else batch_size - len(left[1])
        if left is not None:
            left = torch.cat((left[0], features[:begin])), torch.cat((left[1], labels[:begin]))
            if len(left[1]) < batch_size:
                continue
            yield left
        end = len(labels) - (len(labels) - begin) % batch_size
        for start in range(begin, end, batch_size):
            yield features[start : start + batch_size], labels[start : start + batch_size]
        # copies: a slice would keep all of the block while the next is made
        left = (features[end:].clone(), labels[end:].clone()) if end < len(labels) else None
        del features, labels
    if left is not None:
        yield left


def epoch_order(rows: int, seed: int, epoch: int, rank: int) -> Tensor:
    """Return the permutation in which ``rank`` takes its rows in ``epoch``, when they are in memory."""
    return torch.randperm(rows, generator=_generator(seed, epoch, rank))


_Block = tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]
"""One row group as Petastorm has decoded it: one matrix, so that to gather a batch is one operation, not one a column;
and the labels."""


def open_shard(folder: Folder, data: Manifest, split: SplitName, rank: int, num_proc: int, cache: Cache) -> Shard:
    """Return every ``num_proc``-th row group of ``split`` from the ``rank``-th on; ``cache``: `memory` or `stream`.

    Raises:
        RowAccountingError: a file is not as it was written, or the shard does not hold the rows that the manifest says.
    """
    if cache == "memory":
        return read_shard(folder, data, split, rank, num_proc)
    shard = StreamedShard(folder, data, split, rank, num_proc)
    with _told(folder, split):
        _check_files(folder, data, split, rank, num_proc)
    return shard


def read_shard(folder: Folder, data: Manifest, split: SplitName, rank: int, num_proc: int) -> MemoryShard:
    """Read a shard into memory. Raises what :func:`open_shard` does."""
    with _told(folder, split):
        _check_files(folder, data, split, rank, num_proc)
    shard = MemoryShard(*_tensors(data, list(_read(folder, data, split, rank, num_proc))))
    expected = data.splits[split].shard_rows(num_proc)[rank]
    if shard.rows != expected:
        problem = f"rank {rank} read {shard.rows} {split} rows, but the manifest says {expected}"
        raise RowAccountingError(f"{problem}; {_mend(folder)}")
    return shard


def _tensors(data: Manifest, blocks: list[_Block], place: Tensor | None = None) -> Batch:
    """Return row groups as one batch: each row where ``place`` has it, else in their order.

    ``blocks`` is empty then: each is let go when it has been copied, so that memory never holds all of them twice.
    """
    rows = sum(len(labels) for _, labels in blocks)
    features = torch.empty(rows, len(data.numeric) + len(data.vocabularies))
    labels = torch.empty(rows, dtype=torch.int64 if data.label.classes else torch.float32)
    place = torch.arange(rows) if place is None else place
    end = rows
    while blocks:
        some, their_labels = blocks.pop()
        start = end - len(their_labels)
        features[place[start:end]] = torch.from_numpy(some)
        labels[place[start:end]] = torch.from_numpy(their_labels)
        end = start
    return features, labels


def _read(
    folder: Folder, data: Manifest, split: SplitName, rank: int, num_proc: int, seed: int | None = None
) -> Iterator[_Block]:
    """Yield the shard's row groups in the manifest's order, or in the order that ``seed`` makes."""
    names = [*data.numeric, *data.vocabularies]
    label_type = np.int64 if data.label.classes else np.float32
    groups = data.splits[split].row_groups
    if not groups[rank::num_proc]:
        return
    # The files are named, in the manifest's order: that is the order in which Petastorm deals row groups out.
    urls = list(dict.fromkeys((folder / group.path).url for group in groups))
    with _told(folder, split), warnings.catch_warnings():
        warnings.simplefilter("ignore", category=FutureWarning)
        reader = make_batch_reader(
            urls,
            schema_fields=[*names, data.label.column],
            # One thread: with more, row groups arrive in another order every time.
            reader_pool_type="thread",
            workers_count=1,
            results_queue_size=2,  # each is a row group
            shuffle_row_groups=seed is not None,
            seed=seed,
            # Petastorm wants a row group for every shard. With fewer, each is a shard of its own.
            cur_shard=rank,
            shard_count=min(num_proc, len(groups)),
            num_epochs=1,
            filesystem=_petastorm_filesystem(folder),
        )
    with _told(folder, split), reader:
        for batch in reader:
            features = np.column_stack([getattr(batch, name).astype(np.float32) for name in names])
            yield features, getattr(batch, data.label.column).astype(label_type)


@contextmanager
def _told(folder: Folder, split: SplitName) -> Iterator[None]:
    """Turn what cannot be read into a RowAccountingError that says whether to delete the data."""
    try:
        yield
    except OSError as error:
        # pyarrow's words for a file that is not there; anything else is no reason to delete good data
        is_gone = isinstance(error, FileNotFoundError) or "non-file path" in str(error)
        what = _mend(folder) if is_gone else "can this rank reach them?"
        raise RowAccountingError(f"the {split} data in {folder} cannot be read: {error}; {what}") from None


def _check_files(folder: Folder, data: Manifest, split: SplitName, rank: int, num_proc: int) -> None:
    """Raise RowAccountingError unless a shard's files are as they were written."""
    for path in dict.fromkeys(group.path for group in data.splits[split].row_groups[rank::num_proc]):
        _check_file(folder, path, data.sha256[path])


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
