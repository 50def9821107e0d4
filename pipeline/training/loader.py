"""One rank's shard of a split, read through Petastorm, as batches of tensors.

Guarantees: an epoch yields every row of the shard exactly once, in batches of which only the last may be short. The
order of an epoch depends only on the seed, the epoch, the rank and whether the shard is streamed. The rows of both
splits are counted: see :func:`check_rows`.

A shard in memory is decoded once, and shuffled as a whole in every epoch. A streamed shard is read again in every
epoch. Its row groups come in a random order, and the rows of several (`_MIXED_GROUPS`) are shuffled together. The next
row groups are decoded while the network trains on these. So the memory does not grow with the rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.data.manifest import Manifest, SplitName
from pipeline.runtime.errors import RowAccountingError
from pipeline.runtime.storage import Folder
from pipeline.training.petastorm_reader import Block, advice, check_files, read_row_groups
from pipeline.training.task import Cache


class Batch(NamedTuple):
    """Some rows."""

    features: Tensor
    """float32 (rows, features). Numbers of a wide column, one that float32 would spoil, are counted from its offset."""
    labels: Tensor
    """(rows,): int64 class codes, or float32 for regression, counted from the label's offset."""
    weights: Tensor | None = None
    """float32 (rows,); None without `label.weight`."""

    def at(self, rows: Tensor | slice) -> Batch:
        """Return some of the rows, in the order of their numbers if ``rows`` has numbers."""
        return Batch(self.features[rows], self.labels[rows], None if self.weights is None else self.weights[rows])

    def to(self, device: torch.device) -> Batch:
        """Return the rows on ``device``."""
        weights = None if self.weights is None else self.weights.to(device)
        return Batch(self.features.to(device), self.labels.to(device), weights)

    def copy(self) -> Batch:
        """Return the rows in memory of their own."""
        weights = None if self.weights is None else self.weights.clone()
        return Batch(self.features.clone(), self.labels.clone(), weights)


def joined(batches: Sequence[Batch]) -> Batch:
    """Return the rows of at least one batch, in their order."""
    features, labels, weights = zip(*batches, strict=True)
    together = None if weights[0] is None else torch.cat(weights)
    return Batch(torch.cat(features), torch.cat(labels), together)


# With so many row groups mixed, each makes about a tenth of a batch's rows.
_MIXED_GROUPS = 8


class Shard(Protocol):
    """The rows of one rank, in memory or streamed."""

    @property
    def rows(self) -> int:
        """Rows of the shard."""

    @property
    def no_rows(self) -> Batch:
        """A batch of no rows."""

    def epoch(self, batch_size: int, seed: int, epoch: int, rank: int, skip: int = 0) -> Iterator[Batch]:
        """Yield the shard in this epoch's order, without its first ``skip`` batches."""

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield the shard in the order of the Parquet files."""


@dataclass(frozen=True)
class MemoryShard:
    """The rows of one rank in memory: decoded once, shuffled in each epoch."""

    features: Tensor
    labels: Tensor
    weights: Tensor | None = None

    @property
    def rows(self) -> int:
        """Rows of the shard."""
        return len(self.labels)

    @property
    def no_rows(self) -> Batch:
        """A batch of no rows."""
        return self._all.at(slice(0))

    @property
    def _all(self) -> Batch:
        return Batch(self.features, self.labels, self.weights)

    def epoch(self, batch_size: int, seed: int, epoch: int, rank: int, skip: int = 0) -> Iterator[Batch]:
        """Yield the shard in this epoch's order, without its first ``skip`` batches."""
        order = epoch_order(self.rows, seed, epoch, rank)
        for start in range(skip * batch_size, self.rows, batch_size):
            yield self._all.at(order[start : start + batch_size])

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield the shard in the order of the Parquet files."""
        for start in range(0, self.rows, batch_size):
            yield self._all.at(slice(start, start + batch_size))


@dataclass(frozen=True)
class StreamedShard:
    """The rows of one rank, read again in each epoch; only some row groups are in memory at a time."""

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
    def no_rows(self) -> Batch:
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

        def shuffled(blocks: list[Block]) -> Batch:
            order = torch.randperm(sum(len(block.labels) for block in blocks), generator=random)
            return _tensors(self.data, blocks, torch.argsort(order))

        return itertools.islice(_rebatched(_prefetched(mixed()), batch_size), skip, None)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield the shard in the order of the Parquet files."""
        return _rebatched(_prefetched(_tensors(self.data, [block]) for block in self._blocks()), batch_size)

    def _blocks(self, seed: int | None = None) -> Iterator[Block]:
        return read_row_groups(self.folder, self.data, self.split, self.rank, self.num_proc, seed)


def _generator(seed: int, epoch: int, rank: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0]))


def _even_chunks(items: int, least: int) -> list[int]:
    """Cut ``items`` into chunks of about the same length, none shorter than ``least`` if there are so many."""
    chunks = max(1, items // least)
    return [items // chunks + (i < items % chunks) for i in range(chunks)]


def _prefetched(items: Iterator[Batch]) -> Iterator[Batch]:
    """Make each item in a thread while the one before it is used."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item
            del item  # frees its memory while this waits for the next


def _rebatched(blocks: Iterator[Batch], batch_size: int) -> Iterator[Batch]:
    """Cut blocks of any length into batches of the same length, of which only the last may be shorter."""
    left: Batch | None = None
    for block in blocks:
        rows, begin = len(block.labels), 0 if left is None else batch_size - len(left.labels)
        if left is not None:
            left = joined([left, block.at(slice(begin))])
            if len(left.labels) < batch_size:
                continue
            yield left
        end = rows - (rows - begin) % batch_size
        for start in range(begin, end, batch_size):
            yield block.at(slice(start, start + batch_size))
        # Copies: a slice would keep the whole block in memory while the next one is made.
        left = block.at(slice(end, None)).copy() if end < rows else None
        del block
    if left is not None:
        yield left


def epoch_order(rows: int, seed: int, epoch: int, rank: int) -> Tensor:
    """Return the permutation, int64 (rows,), in which ``rank`` takes its rows in ``epoch`` if they are in memory."""
    return torch.randperm(rows, generator=_generator(seed, epoch, rank))


def open_shard(folder: Folder, data: Manifest, split: SplitName, rank: int, num_proc: int, cache: Cache) -> Shard:
    """Return every ``num_proc``-th row group of ``split`` from the ``rank``-th on.

    Raises:
        RowAccountingError: a file is not as it was written, or the shard does not hold the rows that the manifest says.
    """
    if cache == "memory":
        return read_shard(folder, data, split, rank, num_proc)
    shard = StreamedShard(folder, data, split, rank, num_proc)
    check_files(folder, data, split, rank, num_proc)
    return shard


def read_shard(folder: Folder, data: Manifest, split: SplitName, rank: int, num_proc: int) -> MemoryShard:
    """Read a shard into memory. Raises what :func:`open_shard` does."""
    check_files(folder, data, split, rank, num_proc)
    shard = MemoryShard(*_tensors(data, list(read_row_groups(folder, data, split, rank, num_proc))))
    expected = data.splits[split].shard_rows(num_proc)[rank]
    if shard.rows != expected:
        problem = f"rank {rank} read {shard.rows} {split} rows, but the manifest holds {expected}"
        raise RowAccountingError(f"{problem}; {advice(folder)}")
    return shard


def _tensors(data: Manifest, blocks: list[Block], place: Tensor | None = None) -> Batch:
    """Return row groups as one batch: row i at ``place[i]``, else in the row groups' order.

    This empties ``blocks``: each is freed when it has been copied, so that memory never holds all of them twice.
    """
    rows = sum(len(block.labels) for block in blocks)
    features = torch.empty(rows, len(data.numeric) + len(data.vocabularies))
    labels = torch.empty(rows, dtype=torch.int64 if data.label.classes else torch.float32)
    weights = None if data.weight is None else torch.empty(rows)
    place = torch.arange(rows) if place is None else place
    end = rows
    while blocks:
        block = blocks.pop()
        start = end - len(block.labels)
        features[place[start:end]] = torch.from_numpy(block.features)
        labels[place[start:end]] = torch.from_numpy(block.labels)
        if weights is not None:
            weights[place[start:end]] = torch.from_numpy(block.weights)
        end = start
    return Batch(features, labels, weights)


def check_rows(data: Manifest, folder: Folder, split: SplitName, when: str, rows: int) -> None:
    """Raise RowAccountingError unless ``rows``, the sum over the ranks, is what the manifest says."""
    expected = data.splits[split].rows
    if rows != expected:
        problem = f"{when}: the ranks read {rows} {split} rows, but the manifest holds {expected}"
        raise RowAccountingError(f"{problem}; {advice(folder)}")


def steps_and_rows(shard_rows: list[int], batch_size: int) -> list[int]:
    """Return the rows of the global batch of every step of an epoch; the list's length is the number of steps.

    All ranks take as many steps as the fullest one; a rank without rows left takes part with an empty batch. The ranks
    need no message for this: each computes it from the manifest.
    """
    steps = -(-max(shard_rows) // batch_size)
    return [sum(min(batch_size, max(0, rows - step * batch_size)) for rows in shard_rows) for step in range(steps)]
