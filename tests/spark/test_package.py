"""Spark and DuckDB make the same features of the same rows, or the job names the difference."""

from __future__ import annotations

import pytest
from pyspark.sql import SparkSession

from conftest import PENGUINS, UseCase, csv_rows
from pipeline.config import load_config
from pipeline.data.parity import check_parity
from pipeline.runtime.errors import UserError


def test_the_penguins_are_the_same_in_both(spark: SparkSession) -> None:
    assert check_parity(spark, load_config(PENGUINS)) == 344


def test_nulls_bad_casts_and_divisions_by_zero_are_the_same_in_both(spark: SparkSession, use_case: UseCase) -> None:
    config = use_case(
        csv_rows(50) + ",x,0\n0,,1\n",
        sql="SELECT 1 / a AS a, CAST(k AS INT) AS n, coalesce(k, 'none') AS k, CAST(a / 0 AS FLOAT) AS z, y FROM raw",
        features={"numeric": ["a", "n", "z"], "categorical": ["k"]},
    )
    assert check_parity(spark, config) == 52


def test_large_sources_are_sampled(spark: SparkSession, use_case: UseCase) -> None:
    assert check_parity(spark, use_case(csv_rows(5_000))) == 2_000


def test_a_difference_names_column_row_and_both_values(spark: SparkSession, use_case: UseCase) -> None:
    # Spark cuts the fraction off, DuckDB rounds
    config = use_case(csv_rows(20), sql="SELECT CAST(a AS INT) AS a, k, y FROM raw")
    with pytest.raises(UserError) as raised:
        check_parity(spark, config)
    message = str(raised.value)
    assert "features.sql: 'a' is 1.0 in Spark but 2.0 in DuckDB" in message
    assert "for the raw row {'a': 1.5, 'k': 'y', 'y': 1}" in message
    assert "\n" not in message
