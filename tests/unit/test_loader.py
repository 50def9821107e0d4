"""A rank's shard: which rows it holds, in which order they come, and what the manifest makes of it."""

from __future__ import annotations

import gc
import threading
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datasets import checksums, write_dataset
from pipeline.data.manifest import FILE_NAME, Manifest
from pipeline.runtime.errors import RowAccountingError
from pipeline.runtime.storage import Folder
from pipeline.training.loader import StreamedShard, check_rows, open_shard, read_shard, steps_and_rows
from pipeline.training.task import Cache


@given(st.lists(st.integers(0, 200), min_size=1, max_size=5).filter(any), st.integers(1, 50))
def test_steps_cover_every_row_once(shard_rows: list[int], batch_size: int) -> None:
    batch_rows = steps_and_rows(shard_rows, batch_size)
    assert sum(batch_rows) == sum(shard_rows)
    assert len(batch_rows) * batch_size >= max(shard_rows) > (len(batch_rows) - 1) * batch_size
    assert min(batch_rows) > 0


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 101])
@pytest.mark.parametrize("num_proc", [1, 2, 3])
def test_shards_hold_every_row_once(tmp_path: Path, rows: int, num_proc: int) -> None:
    data = write_dataset(tmp_path, rows, 4, num_proc)
    shards = [read_shard(Folder(str(tmp_path)), data, "train", rank, num_proc) for rank in range(num_proc)]
    assert [shard.rows for shard in shards] == data.splits["train"].shard_rows(num_proc)
    ids = torch.cat([shard.features[:, 0] for shard in shards])
    assert sorted(ids.tolist()) == list(range(rows))


@pytest.mark.parametrize("cache", ["memory", "stream"])
@pytest.mark.parametrize("files", [1, 3, 40])
def test_an_epoch_yields_every_row_once_in_an_order_of_its_own(tmp_path: Path, cache: Cache, files: int) -> None:
    shard = open_shard(Folder(str(tmp_path)), write_dataset(tmp_path, 101, 4, files), "train", 0, 1, cache)
    assert shard.rows == 101
    epochs = []
    for epoch in (1, 2, 1):
        batches = list(shard.epoch(20, 0, epoch, 0))
        assert [len(batch.labels) for batch in batches] == [20] * 5 + [1]
        rest = list(shard.epoch(20, 0, epoch, 0, skip=4))
        assert [batch.labels.tolist() for batch in rest] == [batch.labels.tolist() for batch in batches[4:]]
        epochs.append(torch.cat([batch.features[:, 0] for batch in batches]).tolist())
    assert epochs[0] == epochs[2] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(101))
    assert torch.cat([batch.features[:, 0] for batch in shard.batches(20)]).tolist() == list(range(101))
    assert [len(part) for part in shard.no_rows[:2]] == [0, 0]


@pytest.mark.parametrize("cache", ["memory", "stream"])
def test_features_and_labels_stay_together(tmp_path: Path, cache: Cache) -> None:
    shard = open_shard(Folder(str(tmp_path)), write_dataset(tmp_path, 50, 4, 8), "train", 1, 2, cache)
    for features, labels, _ in [*shard.epoch(7, 3, 5, 1), *shard.batches(7)]:
        assert labels.tolist() == [int(row) % 2 for row in features[:, 0]]


@pytest.mark.parametrize("groups", [24, 31])
def test_streamed_batches_are_mixed_from_many_row_groups(tmp_path: Path, groups: int) -> None:
    rows = 500
    shard = open_shard(
        Folder(str(tmp_path)), write_dataset(tmp_path, groups * rows, 4, groups), "train", 0, 1, "stream"
    )
    assert isinstance(shard, StreamedShard)
    largest = []
    for features, *_ in shard.epoch(1000, 0, 1, 0):
        of_group = torch.bincount((features[:, 0] // rows).long())
        largest.append(float(of_group.max() / len(features)))
    assert max(largest) < 0.2


def test_a_streamed_epoch_that_is_left_early_leaves_no_thread_behind(tmp_path: Path) -> None:
    shard = open_shard(Folder(str(tmp_path)), write_dataset(tmp_path, 500, 4, 50), "train", 0, 1, "stream")
    before = threading.active_count()
    next(iter(shard.epoch(20, 0, 1, 0)))
    gc.collect()
    give_up_at = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < give_up_at:
        time.sleep(0.05)
    assert threading.active_count() <= before, threading.enumerate()


def test_a_removed_row_group_is_an_error(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, 100, 4, 2)
    gone = tmp_path / data.splits["train"].row_groups[0].path
    gone.unlink()
    with pytest.raises(RowAccountingError, match=r"cannot be read.*delete .* and run again"):
        read_shard(Folder(str(tmp_path)), data, "train", 0, 2)


def test_an_exchanged_row_group_is_an_error_with_both_numbers(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, 100, 4, 2)
    other = write_dataset(tmp_path / "other", 60, 4, 2)
    target, source = (d.splits["train"].row_groups[0].path for d in (data, other))
    (tmp_path / target).write_bytes((tmp_path / "other" / source).read_bytes())
    with pytest.raises(RowAccountingError, match=r"part-00000.parquet is not as it was written"):
        read_shard(Folder(str(tmp_path)), data, "train", 0, 2)
    data = data.model_copy(update={"sha256": checksums(tmp_path, data.splits)})
    with pytest.raises(RowAccountingError, match=r"rank 0 read 30 train rows, but the manifest holds 50"):
        read_shard(Folder(str(tmp_path)), data, "train", 0, 2)


def test_the_epoch_s_total_is_checked(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, 10, 4, 2)
    check_rows(data, Folder(str(tmp_path)), "train", "epoch 1", 10)
    with pytest.raises(RowAccountingError, match=r"epoch 3: the ranks read 9 train rows, but the manifest holds 10"):
        check_rows(data, Folder(str(tmp_path)), "train", "epoch 3", 9)


def test_a_manifest_that_is_cut_off_counts_as_missing(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, 10, 4, 2)
    assert Manifest.read(Folder(str(tmp_path))) is None
    data.write(Folder(str(tmp_path)))
    assert Manifest.read(Folder(str(tmp_path))) == data
    text = (tmp_path / FILE_NAME).read_text()
    (tmp_path / FILE_NAME).write_text(text[: len(text) // 2])
    assert Manifest.read(Folder(str(tmp_path))) is None
