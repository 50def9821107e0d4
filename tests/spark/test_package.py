"""Spark and the packaged model make the same features of the same records, or the job names the difference."""

from __future__ import annotations

import gzip
import json

import pytest
from pyspark.sql import SparkSession

from conftest import PENGUINS, UseCase, csv_rows
from pipeline.config import load_config
from pipeline.data import parity, shards
from pipeline.data.parity import check_parity
from pipeline.data.shards import Prepared
from pipeline.runtime.errors import UserError


def sample_of(prepared: Prepared) -> list[dict[str, dict[str, object]]]:
    rows: list[dict[str, dict[str, object]]] = json.loads(gzip.decompress(prepared.folder.read(parity.FILE_NAME)))
    return rows


def test_the_penguins_are_the_same_in_both(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> None:
    config = load_config(PENGUINS, [f"run.work_dir={tmp_path_factory.mktemp('work')}"])
    prepared = shards.prepare_data(spark, config, 2)
    # all rows, and two for each of the four columns that are computed with
    assert check_parity(config, prepared.resolved, prepared.folder) == 344 + 8


def test_nulls_bad_casts_and_divisions_by_zero_are_the_same_in_both(spark: SparkSession, use_case: UseCase) -> None:
    config = use_case(
        csv_rows(50) + ",x,0\n0,,1\n5,7,1\n-2,12,0\n",
        sql="SELECT 1 / a AS a, CAST(k AS INT) AS n, coalesce(k, 'none') AS k, CAST(a / 0 AS FLOAT) AS z, y FROM raw",
        features={"numeric": ["a"], "categorical": ["k"]},
    )
    prepared = shards.prepare_data(spark, config, 1)
    assert check_parity(config, prepared.resolved, prepared.folder) == 54 + 4


def test_a_sample_of_a_large_source_holds_the_extremes(spark: SparkSession, use_case: UseCase) -> None:
    rows = "".join(f"{i},{'xyz'[i % 3]},{i % 2}\n" for i in range(30_000))
    config = use_case(f"a,k,y\n{rows}-12345678.25,x,1\n1e300,y,0\n", sql="SELECT a + 1 AS a, k, y FROM raw")
    prepared = shards.prepare_data(spark, config, 1)
    sample = sample_of(prepared)
    assert parity.ENOUGH <= len(sample) < 20_000
    assert {row["texts"]["a"] for row in sample[-2:]} == {-12345678.25, 1e300}
    assert len({row["texts"]["a"] for row in sample}) > 0.9 * len(sample)
    assert check_parity(config, prepared.resolved, prepared.folder) == len(sample)


@pytest.mark.parametrize("kind", ["INT", "DOUBLE"])
def test_a_number_that_is_printed_as_the_null_marker_is_no_difference(
    spark: SparkSession, use_case: UseCase, kind: str
) -> None:
    source = {"path": "data.csv", "schema": f"a {kind}, k STRING, y INT", "options": {"nullValue": "-999"}}
    rows = "".join(f"{a},x,{i % 2}\n" for i, a in enumerate([*range(18), "-999.0", "-999"]))
    config = use_case(f"a,k,y\n{rows}", "SELECT a + 1 AS a, k, y FROM raw", source=source)
    prepared = shards.prepare_data(spark, config, 1)
    features = [row["features"].get("a") for row in sample_of(prepared)]
    assert features.count(-998.0) == 2  # the row, and the least value
    assert features.count(None) == 1  # the marker
    assert check_parity(config, prepared.resolved, prepared.folder) == 22


def test_features_sql_may_use_the_names_of_the_sample(spark: SparkSession, use_case: UseCase) -> None:
    sql = "SELECT a + 1 AS _row_number, _row_number * 2 AS a, k, y, 1 AS _texts, 2 AS _carried FROM raw"
    config = use_case(csv_rows(20), sql)
    prepared = shards.prepare_data(spark, config, 1)
    assert check_parity(config, prepared.resolved, prepared.folder) == 22
    assert {row["features"]["a"] for row in sample_of(prepared)} == {2.0 * (i + 1.5) for i in range(20)}


def test_a_difference_names_column_function_record_and_both_values(spark: SparkSession, use_case: UseCase) -> None:
    config = use_case(csv_rows(20), sql="SELECT floor(a) AS a, k, y FROM raw")
    prepared = shards.prepare_data(spark, config, 1)
    sample = sample_of(prepared)
    sample[3]["features"]["a"] = 77.0
    prepared.folder.write(parity.FILE_NAME, gzip.compress(json.dumps(sample).encode()))
    with pytest.raises(UserError) as raised:
        check_parity(config, prepared.resolved, prepared.folder)
    message = str(raised.value)
    assert "features.sql: 'a', made with " in message
    assert "floor" in message
    assert f"is 77.0 in Spark but 3.0 in a packaged model for the record {json.dumps(sample[3]['texts'])}" in message
    assert "\n" not in message
