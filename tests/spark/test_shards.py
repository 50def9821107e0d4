"""Parquet row groups that ranks can share evenly, a manifest that accounts for them, and reuse."""

from __future__ import annotations

import gzip
import hashlib
import logging
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from conftest import UseCase, csv_rows
from pipeline.data import dealing, shards
from pipeline.data.manifest import FILE_NAME, SPLITS


@pytest.mark.parametrize("num_proc", [1, 2, 3, 7])
def test_every_rank_gets_a_row_group_and_an_equal_share(spark: SparkSession, use_case: UseCase, num_proc: int) -> None:
    prepared = shards.prepare_data(spark, use_case(csv_rows(400)), num_proc)
    for split in SPLITS:
        data = prepared.manifest.splits[split]
        assert len(data.row_groups) >= num_proc
        shares = data.shard_rows(num_proc)
        assert sum(shares) == data.rows
        assert max(shares) - min(shares) <= num_proc
        for group in data.row_groups:
            footer = pq.ParquetFile((prepared.folder / group.path).path).metadata
            assert footer.row_group(group.index).num_rows == group.rows
            content = Path((prepared.folder / group.path).path).read_bytes()
            assert prepared.manifest.sha256[group.path] == hashlib.sha256(content).hexdigest()


def test_row_groups_are_bounded_however_the_source_is_cut(
    spark: SparkSession, use_case: UseCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    # .gz cannot be split: one task reads it all. Small row groups here, so that 20,000 rows are "large".
    monkeypatch.setattr(dealing, "_ROW_GROUP_BYTES", 0)
    source = {"path": "data.csv.gz", "schema": "a DOUBLE, k STRING, y INT"}
    config = use_case(None, source=source, split={"test_fraction": 0.0})  # 14 row groups of training rows
    (config.folder / "data.csv.gz").write_bytes(gzip.compress(csv_rows(20_000).encode()))
    train = shards.prepare_data(spark, config, 2).manifest.splits["train"]
    assert max(group.rows for group in train.row_groups) == dealing._ROW_GROUP_MIN_ROWS
    shares = train.shard_rows(2)
    assert max(shares) <= 1.06 * min(shares)


def test_a_large_lopsided_split_is_written_again_by_several_tasks(
    spark: SparkSession, use_case: UseCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dealing, "_ROW_GROUP_BYTES", 0)
    monkeypatch.setattr(dealing, "_ROW_GROUP_MIN_ROWS", 100)
    monkeypatch.setattr(dealing, "_MAX_IMBALANCE", 0)  # whatever is not quite even is written again
    monkeypatch.setattr(dealing, "_MOST_OF_A_TASK", 20_000)  # bytes: 4,200 rows of 20 bytes take five tasks
    config = use_case(None, source={"path": "data.csv.gz", "schema": "a DOUBLE, k STRING, y INT"})
    (config.folder / "data.csv.gz").write_bytes(gzip.compress(csv_rows(6_000).encode()))
    first = shards.prepare_data(spark, config, 7)
    train = first.manifest.splits["train"]
    assert len({group.path.split("-")[1] for group in train.row_groups if group.path.startswith("train/")}) >= 4
    shares = train.shard_rows(7)
    assert sum(shares) == train.rows
    assert max(shares) <= 1.1 * min(shares)
    first.folder.remove()
    again = shards.prepare_data(spark, config, 7)
    assert sorted(again.manifest.sha256.values()) == sorted(first.manifest.sha256.values())


def test_an_unchanged_source_and_configuration_reuse_the_data_and_report_it(
    spark: SparkSession, use_case: UseCase, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pipeline")
    first = shards.prepare_data(spark, use_case(csv_rows(60)), 2)
    assert not first.reused
    assert "reusing" not in caplog.text
    again = shards.prepare_data(spark, use_case(csv_rows(60), training={"epochs": 3}, model={"hidden_sizes": [5]}), 2)
    # rewriting the same CSV changes its time, so the source is not the same
    assert not again.reused
    again = shards.prepare_data(spark, use_case(None, training={"epochs": 4}), 2)
    assert again.reused
    assert "reusing the data prepared earlier" in caplog.text
    for change in (
        {"split": {"oversample": 2}},
        {"split": {"seed": 1}},
        {"sql": "SELECT a + 1 AS a, k, y FROM raw"},
        {"source": {"path": "data.csv", "schema": "a DOUBLE, k STRING, y INT", "options": {"sep": ","}}},
    ):
        assert not shards.prepare_data(spark, use_case(None, **change), 2).reused, change
    assert not shards.prepare_data(spark, use_case(None), 1).reused


def test_the_same_rows_give_the_same_shards(spark: SparkSession, use_case: UseCase) -> None:
    def content() -> list[dict[str, list[Any]]]:
        prepared = shards.prepare_data(spark, use_case(csv_rows(200)), 2)
        return [
            pq.ParquetFile((prepared.folder / group.path).path).read_row_group(group.index).to_pydict()
            for split in SPLITS
            for group in prepared.manifest.splits[split].row_groups
        ]

    assert content() == content()


def test_an_interrupted_preparation_is_done_again(spark: SparkSession, use_case: UseCase) -> None:
    config = use_case(csv_rows(60))
    first = shards.prepare_data(spark, config, 2)
    Path(first.folder.path, FILE_NAME).unlink()
    (first.folder / "train").write("leftover.parquet", b"half a file")
    again = shards.prepare_data(spark, config, 2)
    assert not again.reused
    assert again.folder == first.folder
    assert "leftover.parquet" not in (again.folder / "train").names()
    assert again.manifest.rows == first.manifest.rows
