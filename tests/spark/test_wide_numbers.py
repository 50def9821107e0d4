"""Timestamps, dates and meter readings: numbers that float32 would merge reach the network, and its answers come back.

The rows are made so that float32 alone merges most values of every wide column.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pyspark.sql import SparkSession

from conftest import UseCase, read_split, to_pandas
from pipeline import gate, predict
from pipeline.config import Config
from pipeline.data import shards
from pipeline.data.manifest import SPLITS, NumericStats
from pipeline.data.parity import check_parity
from pipeline.data.shards import Prepared
from pipeline.data.specs import Trained, net_spec
from pipeline.data.wide_numbers import wide_stats
from pipeline.evaluation.sums import MetricSums
from pipeline.model.network import TabularNet, weight_bytes
from pipeline.tracking import package, registry, runs, store
from pipeline.training.components import make_loss
from pipeline.training.loader import read_shard

ROWS = 400
SCHEMA = "at BIGINT, day INT, meter DOUBLE, small DOUBLE, short INT, due DOUBLE"
SQL = "SELECT at, day, meter, small, CAST(short AS SMALLINT) AS short, due FROM raw"
WIDE = ["at", "day", "meter"]
NUMERIC = [*WIDE, "small", "short"]
LABEL = {"column": "due", "task": "regression", "classes": None}


def table(rows: int = ROWS) -> pd.DataFrame:
    """Return rows of an hour's seconds, the days of two months, and a meter; `due` is 300 s and more after `at`."""
    i = np.arange(rows)
    at = 1_700_000_000 + 9 * i
    return pd.DataFrame(
        {
            "at": at,
            "day": np.where(i % 2, 20240101, 20240201) + i % 29,
            "meter": 999_999_900 + 0.25 * (i % 90),
            "small": 18.1 + 0.1 * (i % 40),
            "short": i % 7,
            "due": at + 300 + 60.0 * (i % 7),
        }
    )


@pytest.fixture
def wide_case(use_case: UseCase) -> UseCase:
    def make(csv: str | None = None, sql: str = SQL, **sections: Any) -> Config:
        settings: dict[str, Any] = {
            "source": {"path": "data.csv", "schema": SCHEMA},
            "features": {"numeric": [{"column": n, "missing": "drop"} for n in NUMERIC], "categorical": []},
            "label": LABEL,
            "model": {"hidden_sizes": [16]},
        }
        return use_case(table().to_csv(index=False) if csv is None else csv, sql=sql, **{**settings, **sections})

    return make


def shard_values(config: Config, prepared: Prepared) -> pd.DataFrame:
    """Return the rows that one rank holds in memory, both splits, with the offsets added in float64."""
    data, parts = prepared.manifest, []
    assert data.label.stats
    for split in SPLITS:
        shard = read_shard(prepared.folder, data, split, 0, 1)
        assert (shard.features.dtype, shard.labels.dtype) == (torch.float32, torch.float32)
        numbers = {name: shard.features[:, i].double().numpy() for i, name in enumerate(data.numeric)}
        numbers[data.label.column] = shard.labels.double().numpy()
        parts.append(pd.DataFrame({name: x + data.offsets.get(name, 0.0) for name, x in numbers.items()}))
    return pd.concat(parts)


def trained(config: Config, prepared: Prepared, epochs: int = 80) -> TabularNet:
    """Train in this process as one rank would, without Horovod."""
    torch.manual_seed(0)
    net = TabularNet(net_spec(config, prepared.manifest))
    loss, optimizer = make_loss("regression", net.spec), torch.optim.Adam(net.parameters(), lr=0.01)
    shard = read_shard(prepared.folder, prepared.manifest, "train", 0, 1)
    for epoch in range(epochs):
        for features, labels, _ in shard.epoch(50, 0, epoch, 0):
            optimizer.zero_grad()
            loss(net(features), labels).mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return net.eval()


def measured(net: TabularNet, prepared: Prepared) -> dict[str, float]:
    """Return the metrics of the test rows as a rank measures them."""
    sums = MetricSums(prepared.manifest.label, with_detail=True)
    shard = read_shard(prepared.folder, prepared.manifest, "test", 0, 1)
    with torch.no_grad():
        sums.add(net(shard.features).double(), shard.labels)
    return sums.evaluate().metrics


@pytest.mark.parametrize("num_proc", [1, 2])
def test_every_value_reaches_the_shard(spark: SparkSession, wide_case: UseCase, num_proc: int) -> None:
    config = wide_case()
    prepared = shards.prepare_data(spark, config, num_proc)
    data = prepared.manifest
    assert set(data.offsets) == {*WIDE, "due"}
    assert data.columns == {name: "double" if name in data.offsets else "float" for name in [*NUMERIC, "due"]}
    for split in SPLITS:
        types = dict(read_split(spark, prepared, split).dtypes)
        assert {types[name] for name in data.offsets} == {"double"}
        assert types["short"] == "float"

    expected = table()
    given = shard_values(config, prepared).sort_values("at")
    for name in expected.columns:
        deviation = expected[name].std()
        np.testing.assert_allclose(given[name], expected[name], rtol=1e-6, atol=1e-6 * deviation)
        if name in data.offsets:  # float32 alone would merge values
            assert expected[name].astype(np.float32).nunique() < 0.7 * expected[name].nunique()
            assert given[name].nunique() == expected[name].nunique()
    # what float32 holds is as it was
    assert set(given["small"].astype(np.float32)) == set(expected["small"].astype(np.float32))


def test_statistics_of_wide_columns_do_not_cancel(spark: SparkSession, wide_case: UseCase) -> None:
    prepared = shards.prepare_data(spark, wide_case(), 1)
    train = to_pandas(read_split(spark, prepared, "train"))
    for name in WIDE:
        stats = prepared.manifest.numeric[name]
        assert stats.std == pytest.approx(np.std(train[name].to_numpy()), rel=1e-6)
        assert stats.mean == pytest.approx(train[name].mean(), abs=1e-6 * stats.std)
        assert (stats.min, stats.max) == (train[name].min(), train[name].max())
        assert abs(stats.mean - stats.offset) <= 2 * stats.std


def test_a_label_near_1_7e9_is_learned_and_judged(spark: SparkSession, wide_case: UseCase) -> None:
    """float32 moves the label by up to 64 s: a model of labels in float32 has an rmse of 37 s at best."""
    config = wide_case(tracking={"registered_model": "m"}, model={"hidden_sizes": []})
    prepared = shards.prepare_data(spark, config, 2)
    net = trained(config, prepared)
    metrics = measured(net, prepared)
    assert metrics["rmse"] < 5  # the label is a linear function

    uri = store.tracking_uri(config)
    store.open_store(config, uri)()
    run_id = runs.start_run(config, uri)
    model_uri = package.log_model(config, prepared.manifest, prepared.resolved, Trained(weight_bytes(net)), uri, run_id)
    run = runs.LoggedRun(run_id, model_uri, metrics, prepared.manifest)
    decision = gate.judge_candidate(spark, config, uri, run)
    assert decision.decision == "promoted", decision.reason
    assert decision.candidate == pytest.approx(metrics["rmse"], rel=1e-5)
    assert registry.champion_version(uri, "m") == "1"


def test_spark_and_the_scorer_give_the_network_s_answers(
    spark: SparkSession, wide_case: UseCase, tmp_path: Path
) -> None:
    config = wide_case()
    prepared = shards.prepare_data(spark, config, 2)
    assert check_parity(config, prepared.resolved, prepared.folder, prepared.manifest.offsets) >= ROWS
    net = trained(config, prepared, epochs=10)
    package.save_model(config, prepared.manifest, prepared.resolved, Trained(weight_bytes(net)), tmp_path / "model")

    raw = table()
    inputs = np.stack([raw[n.column].to_numpy(np.float64) - n.offset for n in net.spec.numeric], axis=1)
    with torch.no_grad():
        outputs = net(torch.from_numpy(inputs.astype(np.float32))).squeeze(1)
    expected = outputs.double().numpy() + net.spec.label_offset

    from pipeline.data.packaged import load_scorer

    scorer = load_scorer(tmp_path / "model" / "artifacts" / "model")
    in_process = scorer.predict(raw)
    assert in_process["reason"].isna().all()
    np.testing.assert_allclose(in_process["prediction"], expected, rtol=0, atol=1e-3)
    missing = scorer.predict(raw.head(2).assign(meter=[float("nan"), 1e300]))
    assert missing["reason"].tolist() == ["meter is missing"] * 2

    csv = tmp_path / "rows.csv"
    raw.to_csv(csv, index=False)
    predict.predict_files(str(tmp_path / "model"), [str(csv)], str(tmp_path / "out"), "parquet")
    by_spark = to_pandas(spark.read.parquet(str(tmp_path / "out"))).sort_values("at")
    np.testing.assert_allclose(by_spark["prediction"], expected, rtol=0, atol=1e-3)


def test_a_table_that_float32_holds_stays_as_it_was(spark: SparkSession, wide_case: UseCase) -> None:
    """Doubles with decimals and whole numbers up to 2^24 are float32 in files, in the manifest and in memory."""
    config = wide_case(
        sql="SELECT at, small, short, CAST(day - 20240000 AS INT) AS day, small * 2 AS due FROM raw",
        features={"numeric": ["small", "short", "day"], "categorical": []},
    )
    prepared = shards.prepare_data(spark, config, 2)
    data = prepared.manifest
    assert not data.offsets
    assert set(data.columns.values()) == {"float"}
    assert dict(read_split(spark, prepared, "train").dtypes) == data.columns
    rows = to_pandas(read_split(spark, prepared, "train"))
    exact = rows["small"].to_numpy().astype(np.float64)
    stats = data.numeric["small"]
    assert [stats.mean, stats.std] == [float(np.float32(f(exact))) for f in (np.mean, np.std)]
    (number, *_) = net_spec(config, data).numeric
    assert (number.shift, number.scale, number.offset) == (stats.mean, 1 / stats.std, 0.0)


def test_rows_that_float32_holds_keep_their_split_and_merged_ones_have_their_own(
    spark: SparkSession, wide_case: UseCase
) -> None:
    def validation(cast: str, column: str) -> set[float]:
        sql = f"SELECT CAST({column} AS {cast}) AS {column}, IF(meter > 999999911, 'high', 'low') AS y FROM raw"
        label = {"column": "y", "task": "classification"}
        config = wide_case(sql=sql, features={"numeric": [column], "categorical": []}, label=label)
        prepared = shards.prepare_data(spark, config, 1)
        return set(to_pandas(read_split(spark, prepared, "validation"))[column].astype(np.float64))

    for held in ("small", "short"):
        as_float, as_double = validation("FLOAT", held), validation("DOUBLE", held)
        assert {np.float32(value) for value in as_double} == {np.float32(value) for value in as_float}
    # one in three of 400 seconds is on the validation side, not all of those that one float32 stands for
    chosen = validation("DOUBLE", "at")
    merged = {float(np.float32(value)) for value in table()["at"]}
    assert 0.2 * ROWS < len(chosen) < 0.4 * ROWS
    assert len({float(np.float32(value)) for value in chosen}) > 0.9 * len(merged)


def test_values_that_stay_merged_are_counted(
    spark: SparkSession, wide_case: UseCase, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pipeline")
    config = wide_case()
    shards.prepare_data(spark, config, 2)
    assert "fall together" not in caplog.text
    # every other row has an amount near 5e13: no offset is near both
    sql = SQL.replace("SELECT", "SELECT IF(short % 2 = 0, at, 50000000000000 + at) AS amount,")
    config = wide_case(sql=sql, features={"numeric": ["amount"], "categorical": []}, split={"validation_fraction": 0.1})
    prepared = shards.prepare_data(spark, config, 2)
    train = to_pandas(read_split(spark, prepared, "train"))
    (line,) = [record.getMessage() for record in caplog.records if "fall together" in record.getMessage()]
    offset = prepared.manifest.offsets.get("amount", 0.0)
    cells = pd.Series(train["amount"].to_numpy(np.float64) - offset).astype(np.float32).value_counts()
    assert line.startswith(
        f"amount: {cells[cells > 1].sum()} of {len(train)} distinct values fall together in float32, "
        f"which keeps {len(cells)}"
    )


@pytest.mark.parametrize(
    ("mean", "std", "rounding", "is_wide"),
    [
        (1.7e9, 1e3, 64, True),
        (1.7e9, 9e7, 64, True),  # ten years of seconds
        (20240131, 3e3, 1, True),
        (2.46e6, 100.0, 0.125, True),  # days of astronomers, with a fraction
        (20.0, 1.4, 1e-6, False),  # decimals like 18.1
        (45.0, 0.0, 1e-6, False),  # constant
        (5e6, 1e8, 4, False),  # spread around 0, where float32 is finest
    ],
)
def test_a_column_is_wide_when_an_offset_gains_something(
    mean: float, std: float, rounding: float, is_wide: bool
) -> None:
    exact = NumericStats(mean=mean, std=std, min=mean - std, max=mean + 2 * std)
    stats = wide_stats(exact, rounding)
    assert (stats is not None) == is_wide
    if stats:
        assert 0 < abs(stats.offset - mean) <= 2 * std
        assert stats.mean == pytest.approx(mean, rel=1e-15)


def test_a_constant_wide_column_is_its_own_offset() -> None:
    exact = NumericStats(mean=20240131.0000001, std=1e-7, min=20240131, max=20240131)
    stats = wide_stats(exact, 1)
    assert stats
    assert (stats.offset, stats.std) == (20240131, 0)
