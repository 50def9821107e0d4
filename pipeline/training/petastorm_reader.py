"""The row groups of one rank's shard, read from Parquet through Petastorm and checked against the manifest."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from pipeline.data.manifest import Manifest, SplitName
from pipeline.model.offsets import relative
from pipeline.runtime.errors import RowAccountingError
from pipeline.runtime.storage import Folder

with warnings.catch_warnings():  # Petastorm 0.12 uses names that pyarrow 14 has deprecated
    warnings.simplefilter("ignore")
    from petastorm import make_batch_reader
    from pyarrow.filesystem import DaskFileSystem


class Block(NamedTuple):
    """One row group.

    Features and labels that are numbers are counted from their column's offset.
    """

    features: np.ndarray[Any, Any]
    """float32 (rows, features): one matrix, so that gathering a batch is one operation instead of one per column."""
    labels: np.ndarray[Any, Any]
    """(rows,): int64 codes or float32 numbers."""
    weights: np.ndarray[Any, Any] | None
    """float32 (rows,); None without `label.weight`."""


def read_row_groups(
    folder: Folder, data: Manifest, split: SplitName, rank: int, num_proc: int, seed: int | None = None
) -> Iterator[Block]:
    """Yield every ``num_proc``-th row group of ``split`` from the ``rank``-th on, each once.

    The order is the manifest's, or the one that ``seed`` makes. Raises RowAccountingError if a file cannot be read.
    """
    offsets = data.offsets
    *features_stored, (label_name, label) = data.stored.items()
    weight = data.weight_stored
    groups = data.splits[split].row_groups
    if not groups[rank::num_proc]:
        return
    # The files are named in the manifest's order: Petastorm deals row groups out in the order of the files.
    urls = list(dict.fromkeys((folder / group.path).url for group in groups))
    with _unreadable_is_explained(folder, split), warnings.catch_warnings():
        warnings.simplefilter("ignore", category=FutureWarning)
        reader = make_batch_reader(
            urls,
            schema_fields=[*data.columns],
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
            filesystem=None if folder.is_local else _FsspecFileSystem(folder.filesystem()),
        )
    with _unreadable_is_explained(folder, split), reader:
        for batch in reader:
            labels = getattr(batch, label)
            # Column by column into its place: column_stack would take three times as long.
            features = np.empty((len(labels), len(features_stored)), np.float32)
            for place, (name, file_name) in enumerate(features_stored):
                features[:, place] = relative(getattr(batch, file_name), offsets.get(name, 0.0))
            label_offset = offsets.get(label_name, 0.0)
            yield Block(
                features,
                labels.astype(np.int64) if data.label.classes else relative(labels, label_offset),
                None if weight is None else getattr(batch, weight).astype(np.float32),
            )


def check_files(folder: Folder, data: Manifest, split: SplitName, rank: int, num_proc: int) -> None:
    """Raise RowAccountingError unless a shard's files are as they were written.

    This also keeps Petastorm away from metadata of others, which it would unpickle.
    """
    with _unreadable_is_explained(folder, split):
        for path in dict.fromkeys(group.path for group in data.splits[split].row_groups[rank::num_proc]):
            with folder.open(path) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
            if digest != data.sha256[path]:
                problem = f"{folder}/{path} is not as it was written: its checksum differs"
                raise RowAccountingError(f"{problem}; {advice(folder)}")


def advice(folder: Folder) -> str:
    """Return what to do when the files of a data set differ from its manifest."""
    return f"the prepared data have changed since they were written: delete {folder} and run again"


class _FsspecFileSystem(DaskFileSystem):  # type: ignore[misc]
    """A file system of fsspec behind pyarrow's old interface, the only one that Petastorm 0.12 can use for a store."""

    def isdir(self, path: str) -> bool:
        return bool(self.fs.isdir(path))

    def isfile(self, path: str) -> bool:
        return bool(self.fs.isfile(path))


@contextmanager
def _unreadable_is_explained(folder: Folder, split: SplitName) -> Iterator[None]:
    """Turn an OSError into a RowAccountingError that says whether to delete the data."""
    try:
        yield
    except OSError as error:
        # "non-file path" is pyarrow's message for a missing file. No other error is a reason to delete good data.
        is_gone = isinstance(error, FileNotFoundError) or "non-file path" in str(error)
        what = advice(folder) if is_gone else "make sure that this rank can reach them"
        raise RowAccountingError(f"the {split} data in {folder} cannot be read: {error}; {what}") from None
