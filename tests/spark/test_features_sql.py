"""Spark's own reading of features.sql is what a packaged model runs."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from pyspark.sql import SparkSession

from conftest import UseCase
from pipeline.data.features_sql import resolve
from pipeline.model.dialect.program import Program
from pipeline.model.dialect.tree import Node, column
from pipeline.runtime.errors import UserError

Z: dict[str, Any] = {"features": {"numeric": ["z"], "categorical": ["k"]}}


@pytest.mark.parametrize(
    ("sql", "needed"),
    [
        ("SELECT * FROM raw", {"a", "k"}),
        ("SELECT A AS a, K AS k, y FROM raw", {"a", "k"}),
        ("SELECT r.a, r.k, y FROM RAW AS r;", {"a", "k"}),
        ("SELECT a + y AS a, k, y FROM raw", {"a", "k", "y"}),
        ("SELECT 1 AS a, k, y FROM raw", {"k"}),
        ("SELECT y * 2 AS twice, twice + 1 AS a, k, y FROM raw", {"k", "y"}),
    ],
)
def test_columns_are_followed_to_the_raw_row(
    spark: SparkSession, use_case: UseCase, sql: str, needed: set[str]
) -> None:
    assert resolve(spark, use_case(sql=sql)).needed == needed


def test_jobs_of_one_session_do_not_see_each_other_s_rows(spark: SparkSession, use_case: UseCase) -> None:
    one = use_case()
    (one.folder / "other.sql").write_text("SELECT b + 1 AS a, k, y FROM raw")
    other = use_case(overrides=("features.sql=other.sql", "source.schema=b DOUBLE, k STRING, y INT"))
    with ThreadPoolExecutor(2) as pool:
        needed = [resolved.needed for resolved in pool.map(partial(resolve, spark), [one, other] * 8)]
    assert needed == [{"a", "k"}, {"b", "k"}] * 8


def test_numbers_become_doubles_and_categories_texts(spark: SparkSession, use_case: UseCase) -> None:
    features = resolve(spark, use_case(sql="SELECT y AS a, y > 0 AS k, y FROM raw")).features
    whole = Node("Cast", "double", (column("y", "int"),), settings=(("evalMode", "LEGACY"),))
    assert features["a"] == whole
    assert features["k"].type == "string"


def test_long_sums_and_parts_that_are_used_again_and_again_are_resolved(spark: SparkSession, use_case: UseCase) -> None:
    long = resolve(spark, use_case(sql=f"SELECT {' + '.join(['a'] * 100)} AS a, k, y FROM raw")).features
    assert Program({"a": long["a"]}).run({"a": [1.5]}, 1) == {"a": [150.0]}
    twice = ", ".join(f"x{i} + x{i} AS x{i + 1}" for i in range(18))
    doubled = resolve(spark, use_case(sql=f"SELECT a AS x0, {twice}, x18 AS z, k, y FROM raw", **Z)).features
    assert Program({"z": doubled["z"]}).run({"a": [1.5]}, 1) == {"z": [1.5 * 2**18]}


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("SELECT aa AS a, k, y FROM raw", "A column or function parameter with name `aa` cannot be resolved"),
        ("SELECT floor(exp(a)) AS a, k, y FROM raw", "floor of exp may jump"),
        ("SELECT a, typeof(k) AS k, y FROM raw", "is not in the list"),
        ("SELECT a, k, `rand`() > 0.5 AS y FROM raw", "Rand is not in the list"),
        (f"SELECT {' + '.join(['a'] * 2000)} AS a, k, y FROM raw", "so many nested parts"),
        ("SELECT a, k RLIKE y AS k, y FROM raw", "must be a literal"),
    ],
)
def test_what_a_model_cannot_compute_is_refused_by_name(
    spark: SparkSession, use_case: UseCase, sql: str, problem: str
) -> None:
    config = use_case(sql=sql)
    with pytest.raises(UserError, match=re.escape(problem)) as raised:
        resolve(spark, config)
    assert str(raised.value).startswith(f"{config.file}: ")
    assert "\n" not in str(raised.value)
