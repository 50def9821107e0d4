"""Summaries of Parquet files, made in the driver or in Spark, and even shares of their row groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from conftest import UseCase, csv_rows
from pipeline.data import dealing, parquet_summary, shards
from pipeline.data.manifest import RowGroup
from pipeline.data.parquet_summary import Aggregates
from pipeline.runtime.errors import StorageError
from pipeline.runtime.storage import Folder


def test_driver_and_executors_make_the_same_summary(spark: SparkSession, tmp_path: Path) -> None:
    place = tmp_path / "a data set" / "of=one side"  # a path that Spark spells in its own way
    place.mkdir(parents=True)
    random = np.random.default_rng(0)
    # far from 0 with a small spread: what sums of squares lose
    values = (30_000 + random.normal(size=(7, 1_000))).astype(np.float32)
    for i, part in enumerate(values):
        label = pa.array([None if row % 10 == 9 else row % 4 for row in range(1_000)], pa.int64())
        pq.write_table(pa.table({"x": part, "y": label}), place / f"part-{i}.parquet", row_group_size=600)
    aggregates, folder = Aggregates(label="y", classes=3, numeric=("x",)), Folder(str(place.parent))
    paths = [f"{place.name}/part-{i}.parquet" for i in range(7)]
    in_driver = parquet_summary._summarize_in_driver(folder, paths, aggregates)
    assert parquet_summary._summarize_in_spark(spark, folder, paths, aggregates) == in_driver

    assert parquet_summary.summarize(spark, folder, "nowhere", aggregates).files == []
    summary = parquet_summary.summarize(spark, folder, place.name, aggregates)
    assert summary.files == in_driver
    assert (summary.rows, summary.nulls, summary.class_rows) == (7_000, {"y": 700}, [1_750, 1_400, 1_750, 1_400])
    assert [group.rows for group in summary.row_groups] == [600, 400] * 7
    stats = summary.statistics()["x"]
    exact = values.astype(np.float64)
    assert [stats.mean, stats.std, stats.min, stats.max] == [
        float(np.float32(f(exact))) for f in (np.mean, np.std, np.min, np.max)
    ]


def test_a_large_data_set_is_counted_by_the_executors(
    spark: SparkSession, use_case: UseCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = csv_rows(120).replace("1.5,", ",")  # a row without its `a` is dropped
    features = {"numeric": [{"column": "a", "missing": "drop"}], "categorical": ["k"]}
    dropping = use_case(source, split={"oversample": 2}, features=features)
    here = shards.prepare_data(spark, dropping, 2).manifest
    monkeypatch.setattr(parquet_summary, "_DRIVER_FILES", 0)
    dropping = use_case(source, split={"oversample": 2}, features=features)
    by_spark = shards.prepare_data(spark, dropping, 2).manifest
    assert by_spark.rows == here.rows
    assert here.rows.dropped == here.dropped_by_column["a"] > 0
    assert (by_spark.numeric, by_spark.dropped_by_column) == (here.numeric, here.dropped_by_column)
    assert {path.split("-")[0]: sha256 for path, sha256 in by_spark.sha256.items()} == {
        path.split("-")[0]: sha256 for path, sha256 in here.sha256.items()
    }


@given(st.lists(st.integers(1, 1_000), min_size=1, max_size=60), st.integers(1, 9))
def test_row_groups_are_dealt_out_evenly(lengths: list[int], num_proc: int) -> None:
    groups = [RowGroup(path=f"p{i}", index=0, rows=rows) for i, rows in enumerate(lengths)]
    dealt = dealing.deal(groups, num_proc)
    assert sorted(dealt, key=str) == sorted(groups, key=str)
    shares = [sum(group.rows for group in dealt[rank::num_proc]) for rank in range(num_proc)]
    assert max(shares) - min(shares) <= max(lengths)


@pytest.mark.parametrize(("lengths", "shares"), [([70] * 11 + [58, 58, 15], [435, 466]), ([9, 8, 7, 6], [15, 15])])
def test_the_last_row_groups_go_to_the_rank_with_fewest_rows(lengths: list[int], shares: list[int]) -> None:
    dealt = dealing.deal([RowGroup(path=f"p{i}", index=0, rows=rows) for i, rows in enumerate(lengths)], 2)
    assert sorted(sum(group.rows for group in dealt[rank::2]) for rank in range(2)) == shares


@pytest.mark.parametrize(
    ("folder", "uri"),
    [
        ("/data/0a1b", "file:/data/0a1b/parts/split%3Dtrain/part-0.parquet"),
        ("/data/0a1b", "file:///data/0a1b/parts/split=train/part-0.parquet"),
        ("/dbfs/data/0a1b", "dbfs:/data/0a1b/parts/split=train/part-0.parquet"),
        ("/Volumes/c/s/v/0a1b", "dbfs:/Volumes/c/s/v/0a1b/parts/split=train/part-0.parquet"),
        ("s3a://bucket/data/0a1b", "s3a://bucket/data/0a1b/parts/split=train/part-0.parquet"),
        (
            "abfss://c@a.dfs.core.windows.net/0a1b",
            "abfss://c@a.dfs.core.windows.net/0a1b/parts/split=train/part-0.parquet",
        ),
    ],
)
def test_a_file_has_the_same_path_below_the_folder_on_every_store(folder: str, uri: str) -> None:
    assert parquet_summary.path_below(Folder(folder), uri) == "parts/split=train/part-0.parquet"


def test_a_surplus_file_fails_the_preparation(
    spark: SparkSession, use_case: UseCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = shards._write

    def with_a_leftover(*args: Any) -> None:  # as of a task that failed, on a store without renames
        write(*args)
        (file, *_) = (Path(args[-1].path) / "parts" / "split=train").glob("*.parquet")
        file.with_name("part-99999.parquet").write_bytes(file.read_bytes())

    monkeypatch.setattr(shards, "_write", with_a_leftover)
    with pytest.raises(StorageError, match=r"60 rows were written in .*, but [0-9]+ are there"):
        shards.prepare_data(spark, use_case(csv_rows(60)), 2)


def test_few_values_have_a_dictionary_and_many_do_not(spark: SparkSession, use_case: UseCase) -> None:
    lines = [f"{i / 7},{'xyz'[i % 3]},{i % 2}" for i in range(6_000)]
    sql = "SELECT CAST(a AS FLOAT) AS a, CAST(CAST(a AS INT) % 9 AS FLOAT) AS few, k, y FROM raw"
    config = use_case(
        "\n".join(["a,k,y", *lines, ""]), sql=sql, features={"numeric": ["a", "few"], "categorical": ["k"]}
    )
    prepared = shards.prepare_data(spark, config, 1)
    group = prepared.manifest.splits["train"].row_groups[0]
    footer = pq.read_metadata((prepared.folder / group.path).path).row_group(0)
    bytes_of = {footer.column(i).path_in_schema: footer.column(i).total_uncompressed_size for i in range(4)}
    assert bytes_of["few"] < group.rows < 4 * group.rows < bytes_of["a"] < 6 * group.rows
    assert bytes_of["k"] < group.rows
