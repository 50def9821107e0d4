"""What the written Parquet files hold, as the driver or the executors find it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import csv_rows
from pipeline import contents, shards
from pipeline.config import Config
from pipeline.contents import Question
from pipeline.manifest import RowGroup
from pipeline.storage import Folder

UseCase = Callable[..., Config]


def test_driver_and_executors_find_the_same(spark, tmp_path) -> None:
    place = tmp_path / "a data set" / "of=one side"  # a path that Spark spells in its own way
    place.mkdir(parents=True)
    random = np.random.default_rng(0)
    # far from 0 with a small spread: what sums of squares lose
    values = (30_000 + random.normal(size=(7, 1_000))).astype(np.float32)
    for i, part in enumerate(values):
        label = pa.array([None if row % 10 == 9 else row % 4 for row in range(1_000)], pa.int64())
        pq.write_table(pa.table({"x": part, "y": label}), place / f"part-{i}.parquet", row_group_size=600)
    question, folder = Question(label="y", classes=3, measured=["x"]), Folder(str(place.parent))
    paths = [f"{place.name}/part-{i}.parquet" for i in range(7)]
    here = contents._seen_here(folder, paths, question)
    assert contents._seen_by_spark(spark, folder, paths, question) == here

    found = contents.look_into(spark, folder, {"one": place.name, "none": "nowhere"}, question)
    assert found["none"].files == []
    one = found["one"]
    assert (one.rows, one.nulls, one.codes) == (7_000, [0, 700], [1_750, 1_400, 1_750, 1_400])
    assert [group.rows for group in one.row_groups] == [600, 400] * 7
    stats = contents.statistics(one, question)["x"]
    exact = values.astype(np.float64)
    assert [stats.mean, stats.std, stats.min, stats.max] == [
        float(np.float32(f(exact))) for f in (np.mean, np.std, np.min, np.max)
    ]


def test_a_large_data_set_is_counted_by_the_executors(spark, use_case: UseCase, monkeypatch) -> None:
    source = csv_rows(120).replace("1.5,", ",")  # a row without its `a` is dropped
    here = shards.prepare_data(spark, use_case(source, oversample=2), 2).manifest
    monkeypatch.setattr(contents, "_MOST_HERE", 0)
    by_spark = shards.prepare_data(spark, use_case(source, oversample=2), 2).manifest
    assert by_spark.rows == here.rows
    assert here.rows.dropped == here.dropped_by_column["a"] > 0
    assert (by_spark.numeric, by_spark.dropped_by_column) == (here.numeric, here.dropped_by_column)
    assert {path.split("-")[0]: sha256 for path, sha256 in by_spark.sha256.items()} == {
        path.split("-")[0]: sha256 for path, sha256 in here.sha256.items()
    }


@given(st.lists(st.integers(1, 1_000), min_size=1, max_size=60), st.integers(1, 9))
def test_row_groups_are_dealt_out_evenly(lengths: list[int], num_proc: int) -> None:
    groups = [RowGroup(path=f"p{i}", index=0, rows=rows) for i, rows in enumerate(lengths)]
    dealt = shards._dealt(groups, num_proc)
    assert sorted(dealt, key=str) == sorted(groups, key=str)
    shares = [sum(group.rows for group in dealt[rank::num_proc]) for rank in range(num_proc)]
    assert max(shares) - min(shares) <= max(lengths)


@pytest.mark.parametrize(("lengths", "shares"), [([70] * 11 + [58, 58, 15], [435, 466]), ([9, 8, 7, 6], [15, 15])])
def test_what_is_left_over_goes_to_the_rank_with_fewest_rows(lengths: list[int], shares: list[int]) -> None:
    dealt = shards._dealt([RowGroup(path=f"p{i}", index=0, rows=rows) for i, rows in enumerate(lengths)], 2)
    assert sorted(sum(group.rows for group in dealt[rank::2]) for rank in range(2)) == shares
