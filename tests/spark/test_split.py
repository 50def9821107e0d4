"""The split: no group, no moment and no duplicate is on two sides, however the rows are partitioned."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conftest import PENGUINS, UseCase, read_split
from pipeline.config import Config, load_config
from pipeline.data import prepare, source_csv
from pipeline.data.manifest import SPLITS, SplitName
from pipeline.data.shards import prepare_data
from pipeline.data.split import SPLIT, Sides
from pipeline.runtime.errors import UserError

FRACTIONS = st.tuples(st.floats(0.05, 0.6), st.floats(0.0, 0.35))
ANY = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ROWS = 600
SCHEMA = "id INT, patient STRING, ward INT, day DATE, fold STRING, a DOUBLE, y STRING"


def table(rows: Iterable[int] = range(ROWS)) -> str:
    """Return visits: 90 patients in 5 wards, 40 days, and the values a."""
    lines = []
    for i in rows:
        day = date(2024, 1, 1) + timedelta(days=i * 7 % 40)
        fold = ("train", "train", "train", "validation", "test")[i % 5]
        lines.append(f"{i},p{i * 7 % 90},{i % 5},{day},{fold},{i * 31 % 200 / 4},{'yes' if i % 3 else 'no'}\n")
    return "id,patient,ward,day,fold,a,y\n" + "".join(lines)


@pytest.fixture
def visits(use_case: UseCase) -> Config:
    return use_case(
        table(),
        sql="SELECT a, y FROM raw",
        source={"path": "data.csv", "schema": SCHEMA},
        features={"numeric": ["a"], "categorical": []},
        label={"column": "y"},
        split={"validation_fraction": 0.15},
    )


def with_split(config: Config, **changes: Any) -> Config:
    return config.model_copy(update={"split": config.split.model_copy(update=changes)})


def sides_of(spark: SparkSession, config: Config, partitions: int = 3) -> DataFrame:
    """Return each raw row as `raw`, with its split."""
    records = source_csv.read_records(spark, config, config.split.needed_columns)
    records = dataclasses.replace(records, frame=records.frame.repartition(partitions))
    good, sides = records.good(), Sides.of(config.split, prepare.find_cuts(spark, config, 1))
    carried = F.struct(*[source_csv.column(name) for name in good.columns])
    typed = prepare.typed_rows(spark, config, good, sides, carried).frame
    return typed.select(F.col(prepare.CARRIED).alias("raw"), SPLIT)


def sides_per(spark: SparkSession, config: Config, key: str, partitions: int) -> int:
    """Return on how many sides at most the rows with one value of ``key`` are."""
    rows = sides_of(spark, config, partitions).where("split IS NOT NULL")
    (most,) = rows.groupBy(F.expr(key)).agg(F.countDistinct(SPLIT).alias("n")).agg(F.max("n")).first() or (0,)
    return int(most)


@ANY
@given(partitions=st.integers(1, 9), seed=st.integers(0, 2**31 - 1), fractions=FRACTIONS)
def test_no_duplicate_is_on_two_sides(
    spark: SparkSession, visits: Config, partitions: int, seed: int, fractions: tuple[float, float]
) -> None:
    """There are 200 different values of `a`, each with up to two labels, in 600 rows."""
    validation, test = fractions
    config = with_split(visits, seed=seed, validation_fraction=validation, test_fraction=test)
    assert sides_per(spark, config, "struct(raw.a, raw.y)", partitions) == 1


@ANY
@given(
    partitions=st.integers(1, 9),
    seed=st.integers(0, 2**31 - 1),
    fractions=FRACTIONS,
    group=st.sampled_from([["patient"], ["patient", "ward"], ["ward", "patient"], ["ward"]]),
)
def test_no_group_is_on_two_sides(
    spark: SparkSession, visits: Config, partitions: int, seed: int, fractions: tuple[float, float], group: list[str]
) -> None:
    validation, test = fractions
    config = with_split(visits, seed=seed, validation_fraction=validation, test_fraction=test, group=group)
    key = f"struct({', '.join('raw.' + name for name in group)})"
    assert sides_per(spark, config, key, partitions) == 1
    in_order = with_split(config, group=sorted(group))
    assert as_lists(sides_of(spark, config, partitions)) == as_lists(sides_of(spark, in_order, 2))


@ANY
@given(
    partitions=st.integers(1, 9),
    fractions=st.tuples(st.floats(0.02, 0.5), st.floats(0.02, 0.45)),
    time=st.sampled_from(["day", "id", "ward", "a"]),
)
@example(partitions=1, fractions=(0.5, 0.45), time="ward")
def test_no_moment_is_on_two_sides_and_the_latest_are_tested(
    spark: SparkSession, visits: Config, partitions: int, fractions: tuple[float, float], time: str
) -> None:
    validation, test = fractions
    config = with_split(visits, time=time, validation_fraction=validation, test_fraction=test)
    rows = sides_of(spark, config, partitions)
    blocks = rows.groupBy(SPLIT).agg(F.min(f"raw.{time}").alias("first"), F.max(f"raw.{time}").alias("last"))
    found = {row[SPLIT]: (row["first"], row["last"]) for row in blocks.collect()}
    assert found.keys() == {"train", "validation", "test"}
    assert found["train"][1] < found["validation"][0] <= found["validation"][1] < found["test"][0]


def rows_per_side(rows: DataFrame) -> dict[str, int]:
    return {row[SPLIT]: row["count"] for row in rows.groupBy(SPLIT).count().collect()}


def as_lists(rows: DataFrame) -> list[tuple[Any, ...]]:
    return sorted((row["raw"]["id"], row[SPLIT]) for row in rows.collect())


def test_order_and_scaling_of_features_do_not_matter(spark: SparkSession) -> None:
    config = load_config(PENGUINS)
    turned = config.features.model_copy(
        update={
            "numeric": [f.model_copy(update={"scaling": "minmax"}) for f in reversed(config.features.numeric)],
        }
    )
    other = config.model_copy(update={"features": turned})

    def sides(config: Config) -> list[tuple[Any, ...]]:
        rows = sides_of(spark, config).select("raw.*", SPLIT)
        return sorted(tuple(map(str, row)) for row in rows.collect())

    assert sides(config) == sides(other) != sides(with_split(config, seed=1))


def test_the_shares_are_the_fractions(spark: SparkSession, visits: Config) -> None:
    config = with_split(visits, validation_fraction=0.2, test_fraction=0.3)
    for changes in ({}, {"group": ["id"]}, {"time": "id"}):
        counts = rows_per_side(sides_of(spark, with_split(config, **changes)))
        # four deviations of a binomial; equal rows are on one side, so there are only about 400 different ones
        assert counts["validation"] / ROWS == pytest.approx(0.2, abs=0.08)
        assert counts["test"] / ROWS == pytest.approx(0.3, abs=0.09)
    assert counts == {"train": 300, "validation": 120, "test": 180}


@pytest.mark.parametrize("changes", [{}, {"group": ["patient"]}, {"time": "day"}, {"column": "fold"}])
def test_the_manifest_and_the_files_have_these_sides(
    spark: SparkSession, visits: Config, changes: dict[str, Any]
) -> None:
    config = with_split(visits, **changes)
    prepared = prepare_data(spark, config, 2)
    data = prepared.manifest
    counts = rows_per_side(sides_of(spark, config))
    assert counts == {split: getattr(data.rows, split) for split in ("train", "validation", "test")}
    for split in SPLITS:
        assert read_split(spark, prepared, split).count() == data.splits[split].rows == counts[split]
    assert data.rows.read == ROWS == sum(counts.values())
    cuts = data.time_cuts
    assert (cuts is not None) == (changes == {"time": "day"})
    if cuts is not None:
        assert cuts.texts == ["2024-01-29", "2024-02-04"]  # each from 15 % of the rows, as near as days allow
        first = sides_of(spark, config).where("split = 'test'").agg(F.min("raw.day")).first()
        assert str(first and first[0]) == cuts.texts[1]


@pytest.mark.parametrize(("changes", "column"), [({"group": ["patient"]}, 1), ({"time": "day"}, 3), ({"time": "a"}, 5)])
def test_a_row_without_its_group_or_time_goes_to_quarantine_with_the_reason(
    spark: SparkSession, visits: Config, changes: dict[str, Any], column: int
) -> None:
    lines = [line.split(",") for line in table().splitlines()]
    name, (setting,) = lines[0][column], changes
    lines[5][column] = ""
    if name == "a":
        lines[6][column] = "NaN"
    (visits.folder / "data.csv").write_text("".join(",".join(line) + "\n" for line in lines))
    prepared = prepare_data(spark, with_split(visits, **changes), 2)
    reasons = [row.reason for row in spark.read.json((prepared.folder / "quarantine").spark).collect()]
    missing = 2 if name == "a" else 1
    assert reasons == [f"{name} is missing, but decides about the split (split.{setting})"] * missing
    assert (prepared.manifest.rows.quarantined, prepared.manifest.rows.dropped) == (missing, 0)


def test_the_number_of_ranks_does_not_matter(spark: SparkSession, visits: Config) -> None:
    def rows(num_proc: int, split: SplitName) -> list[tuple[Any, ...]]:
        return sorted(tuple(row) for row in read_split(spark, prepare_data(spark, visits, num_proc), split).collect())

    for split in SPLITS:
        assert rows(1, split) == rows(3, split)


def test_without_a_test_fraction_validation_rows_are_measured(spark: SparkSession, visits: Config) -> None:
    data = prepare_data(spark, with_split(visits, test_fraction=0.0), 2).manifest
    assert (data.rows.test, data.measured_split, [*data.splits]) == (0, "validation", ["train", "validation"])
    assert prepare_data(spark, visits, 2).manifest.measured_split == "test"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"column": "y"}, "split.column: 'y' must hold train, validation, test, but also holds 'no', 'yes'"),
        ({"group": ["pateint"]}, "split.group: source.schema declares no column 'pateint'; did you mean 'patient'?"),
        ({"time": "patient"}, "split.time: 'patient' is a STRING: declare it in source.schema as a number, a DATE"),
        ({"group": ["y"]}, "row of 600 usable rows; take another split.seed, or more groups"),
    ],
)
def test_a_column_that_cannot_decide_is_a_sentence(
    spark: SparkSession, visits: Config, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match="split") as error:
        prepare_data(spark, with_split(visits, **changes), 2)
    assert message in str(error.value)


def test_too_few_moments_are_a_sentence(spark: SparkSession, visits: Config) -> None:
    (visits.folder / "data.csv").write_text(table(range(0, ROWS, 5)))  # one ward only
    with pytest.raises(UserError, match=r"split\.time: 'ward' has 1 different values in the usable rows"):
        prepare_data(spark, with_split(visits, time="ward"), 2)


def test_rare_classes_are_named(spark: SparkSession, visits: Config, caplog: pytest.LogCaptureFixture) -> None:
    text = table().replace(",no\n", ",maybe\n", 3)
    (visits.folder / "data.csv").write_text(text)
    prepare_data(spark, visits, 2)
    assert "row has the class maybe" in caplog.text
    assert "fewer than 10 training rows have these classes: maybe (" in caplog.text


def test_the_old_hash_is_what_it_was(spark: SparkSession) -> None:
    """A champion without a version of the hash has its rows where version 0.3 put them."""
    config = with_split(load_config(PENGUINS), validation_fraction=0.3, test_fraction=0.0)
    good = source_csv.read_records(spark, config).good()
    typed = prepare.typed_rows(spark, config, good, Sides(config.split, version=1)).frame
    rows = sorted(str(tuple(row)) for row in typed.where("split = 'validation'").collect())
    assert (len(rows), hashlib.sha256("\n".join(rows).encode()).hexdigest()) == (121, OLD_VALIDATION_ROWS)


OLD_VALIDATION_ROWS = "2ee9f3680b2f10d015ecf69eb3919ab209ca62f719460e216482217f26876b55"
