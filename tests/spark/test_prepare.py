"""features.sql, the split, the encodings and the statistics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from conftest import PENGUINS, UseCase, csv_rows, read_split, to_pandas
from pipeline.config import load_config
from pipeline.data import vocabularies
from pipeline.data.shards import prepare_data
from pipeline.runtime.errors import UserError


def test_features_sql_does_what_the_lab_s_cell_does(spark: SparkSession, tmp_path: Path) -> None:
    config = load_config(PENGUINS, [f"run.work_dir={tmp_path}", "split.oversample=1"])
    prepared = prepare_data(spark, config, 2)
    assert prepared.manifest.vocabularies == {"Island": ["Biscoe", "Dream", "Torgersen"]}
    assert prepared.manifest.label.classes == ["Adelie", "Gentoo", "Chinstrap"]
    rows = read_split(spark, prepared, "train").unionByName(read_split(spark, prepared, "validation"))
    assert dict(rows.dtypes) == prepared.manifest.columns
    # the first penguin of the file: Torgersen,39.1,18.7,181,3750,0
    (first,) = rows.where("abs(CulmenLength - 39.1) < 0.01 AND abs(CulmenDepth - 18.7) < 0.01").collect()
    values = [first[name] for name in ("CulmenLength", "CulmenDepth", "FlipperScaled", "MassScaled")]
    assert values == pytest.approx([39.1, 18.7, 18.1, 37.5])
    assert (first["Island"], first["Species"]) == (2, 0)


def test_statistics_come_from_the_training_rows(spark: SparkSession, use_case: UseCase) -> None:
    prepared = prepare_data(spark, use_case(csv_rows(300), split={"oversample": 3}), 2)
    train = to_pandas(read_split(spark, prepared, "train"))["a"]
    assert len(train) == prepared.manifest.rows.train * 3 == prepared.manifest.splits["train"].rows
    stats = prepared.manifest.numeric["a"]
    assert [stats.mean, stats.std, stats.min, stats.max] == pytest.approx(
        [train.mean(), np.std(train), train.min(), train.max()], rel=1e-6
    )
    assert prepared.manifest.splits["train"].class_counts == [
        3 * n for n in prepare_data(spark, use_case(csv_rows(300)), 2).manifest.splits["train"].class_counts
    ]


def test_vocabularies_hold_training_values_and_unknown_ones_get_the_next_code(
    spark: SparkSession, use_case: UseCase
) -> None:
    listed = {"numeric": ["a"], "categorical": [{"column": "k", "values": ["y", "x"]}]}
    prepared = prepare_data(spark, use_case(csv_rows(90), features=listed), 1)
    assert prepared.manifest.vocabularies == {"k": ["x", "y"]}
    rows = to_pandas(read_split(spark, prepared, "train"))
    expected = [{0: 0, 1: 1, 2: 2}[int(a - 0.5) % 3] for a in rows["a"]]  # the third value, z, is not listed
    assert rows["k"].tolist() == expected


def test_labels_may_be_strings_booleans_or_any_integers(spark: SparkSession, use_case: UseCase) -> None:
    for expression, classes in (
        ("CASE WHEN y = 0 THEN 'no' ELSE 'yes' END", ["no", "yes"]),
        ("y = 1", ["0", "1"]),
        ("y * 12 - 2", ["-2", "10"]),
    ):
        config = use_case(csv_rows(60), sql=f"SELECT a, k, {expression} AS y FROM raw")
        assert prepare_data(spark, config, 1).manifest.label.classes == classes


def test_regression_labels_have_statistics_instead_of_classes(spark: SparkSession, use_case: UseCase) -> None:
    config = use_case(csv_rows(60), sql="SELECT a * 2 AS y, a, k FROM raw", label={"column": "y", "task": "regression"})
    manifest = prepare_data(spark, config, 2).manifest
    assert manifest.label.classes == []
    assert manifest.label.stats is not None
    assert manifest.label.stats.mean == pytest.approx(2 * manifest.numeric["a"].mean, rel=1e-6)
    assert manifest.columns["y"] == "float"


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT a AS aa, k, y FROM raw", "features.sql does not produce a column 'a'; did you mean 'aa'?"),
        ("SELECT a, a AS a, k, y FROM raw", "features.sql produces more than once a column 'a'"),
        ("SELECT CAST(a AS STRING) AS a, k, y FROM raw", "'a' is a STRING, not a number: CAST it in features.sql"),
        ("SELECT a, k, a AS y FROM raw", "'y' is a DOUBLE; a class label is an integer or a string"),
        ("SELECT a, a AS A, k, y FROM raw", "features.sql produces more than once a column 'a'"),
        ("SELECT a, k, CAST(a * 1000 AS INT) AS y FROM raw", "set label.task: regression"),
        ("SELECT a, k, 1 AS y FROM raw", "'y' has one value only, 1"),
        ("SELECT a, k, CAST(NULL AS INT) AS y FROM raw", "has no value in any usable row"),
    ],
)
def test_a_mistake_in_the_sql_is_reported(spark: SparkSession, use_case: UseCase, sql: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        prepare_data(spark, use_case(csv_rows(1_200), sql=sql), 1)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["a", "b", "c"], "label.classes: lists 3 classes, but no row has c as its 'y'"),
        (["p", "q"], "label.classes: lists 2 classes, but 20 of 60 rows have another 'y' than p, q"),
    ],
)
def test_classes_that_do_not_match_the_data_are_reported(
    spark: SparkSession, use_case: UseCase, classes: list[str], message: str
) -> None:
    modulo = 2 if len(classes) == 3 else 3
    config = use_case(
        csv_rows(60),
        sql=f"SELECT a, k, CAST(a AS INT) % {modulo} AS y FROM raw",
        label={"column": "y", "classes": classes},
    )
    with pytest.raises(UserError) as raised:
        prepare_data(spark, config, 1)
    assert message in str(raised.value)


def test_an_empty_split_is_reported(spark: SparkSession, use_case: UseCase) -> None:
    config = use_case(
        "a,k,y\n1,x,0\n1,x,0\n", features={"numeric": ["a"], "categorical": []}, label={"classes": ["n", "y"]}
    )
    with pytest.raises(UserError, match=r"split\.\w+_fraction: left no \w+ row of 2 usable rows"):
        prepare_data(spark, config, 1)


def test_values_are_sorted_the_same_however_spark_collects_them() -> None:
    expected = ["007", "7", "10"]
    assert (
        vocabularies._sorted_values(["10", "007", "7"]) == vocabularies._sorted_values(["7", "10", "007"]) == expected
    )
    assert vocabularies._sorted_values({"b", "10", "a"}) == ["10", "a", "b"]
