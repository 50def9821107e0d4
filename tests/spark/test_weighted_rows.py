"""Rows with a weight, and a positive class with a threshold, from the CSV to baselines, gate and packaged model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pyspark.sql import SparkSession
from sklearn import metrics as sk
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier

from conftest import UseCase, read_split, to_pandas
from pipeline.config import Config
from pipeline.data.packaged import load_scorer
from pipeline.data.shards import check_prepared_from, prepare_data
from pipeline.data.specs import Trained, net_spec
from pipeline.evaluation import baselines, holdout
from pipeline.evaluation.baselines import MODEL
from pipeline.model.network import TabularNet, weight_bytes
from pipeline.runtime.errors import UserError
from pipeline.tracking import package
from pipeline.training.loader import read_shard

ROWS = 2_000


def table(rows: int = ROWS, spoil: dict[int, str] | None = None) -> str:
    """Return rows of which about 8 % are `yes`; ``spoil`` replaces the weight of some rows."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, rows)).round(3)
    y = rng.random(rows) < 1 / (1 + np.exp(3.5 - 1.5 * a))
    weights = {i: f"{w:g}" for i, w in enumerate(rng.integers(0, 5, rows) / 2)} | (spoil or {})
    return "a,b,w,y\n" + "".join(f"{a[i]},{b[i]},{weights[i]},{'yes' if y[i] else 'no'}\n" for i in range(rows))


def case(use_case: UseCase, csv: str | None = None, **sections: Any) -> Config:
    settings: dict[str, Any] = {
        "csv": table() if csv is None else csv,
        "sql": "SELECT a, b, w AS `the weight`, y FROM raw",
        "source": {"path": "data.csv", "schema": "a DOUBLE, b DOUBLE, w DOUBLE, y STRING"},
        "features": {"numeric": ["a", "b"], "categorical": []},
        "label": {"column": "y", "weight": "the weight"},
    }
    return use_case(**(settings | sections))


def test_a_weight_is_read_beside_the_row_and_does_not_move_it(spark: SparkSession, use_case: UseCase) -> None:
    config = case(use_case, table(spoil={5: ""}))
    prepared = prepare_data(spark, config, 2)
    data = prepared.manifest
    assert (data.weight, data.weight_stored) == ("the weight", "column_3")
    assert [*data.columns] == ["a", "b", "y", "column_3"]
    assert [*data.numeric] == ["a", "b"]
    assert (data.rows.dropped, data.dropped_by_column) == (1, {"the weight": 1})
    plain = prepare_data(spark, case(use_case, table(spoil={5: "0"}), label={"column": "y"}), 2)
    rows = pd.read_csv(config.folder / "data.csv")
    weight_of = {(row.a, row.b): row.w for row in rows.itertuples()}
    for split in ("train", "validation", "test"):
        shards = [read_shard(prepared.folder, data, split, rank, 2) for rank in range(2)]
        for shard in shards:
            assert shard.weights is not None
            assert shard.features.shape[1] == 2
            pairs = [tuple(round(x, 3) for x in row) for row in shard.features.tolist()]
            assert shard.weights.tolist() == [weight_of[pair] for pair in pairs]
        others = {tuple(row) for row in to_pandas(read_split(spark, plain, split))[["a", "b"]].to_numpy().tolist()}
        here = {tuple(row) for row in to_pandas(read_split(spark, prepared, split))[["a", "b"]].to_numpy().tolist()}
        assert here <= others
        assert len(others - here) <= 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({7: "-0.5"}, "label.weight: 'the weight' is -0.5 in a "),
        (dict.fromkeys(range(ROWS), "0"), "label.weight: 'the weight' is 0 in every train row"),
    ],
)
def test_weights_that_mean_nothing_are_one_sentence(
    spark: SparkSession, use_case: UseCase, spoil: dict[int, str], message: str
) -> None:
    with pytest.raises(UserError) as mistake:
        prepare_data(spark, case(use_case, table(spoil=spoil)), 2)
    assert message in str(mistake.value)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"label": {"column": "y", "weight": "c"}}, "label.weight: features.sql does not produce a column 'c'"),
        ({"label": {"column": "y", "weight": "word"}}, "label.weight: 'word' is a STRING, not a number"),
        ({"label": {"column": "y", "positive": "ja"}}, "label.positive: 'ja' is not a class of 'y': no, yes"),
        ({"training": {"class_weights": {"yse": 2}}}, "'yse' is not a class of 'y': no, yes; did you mean 'yes'?"),
        ({"label": {"column": "b3", "positive": "0"}}, "label.positive: is for two classes, but 'b3' has 3"),
    ],
)
def test_names_that_the_data_do_not_have_are_one_sentence(
    spark: SparkSession, use_case: UseCase, sections: dict[str, Any], message: str
) -> None:
    sql = "SELECT a, b, w AS `the weight`, y, 'x' AS word, CAST(abs(round(a)) AS INT) % 3 AS b3 FROM raw"
    with pytest.raises(UserError) as mistake:
        prepare_data(spark, case(use_case, sql=sql, **sections), 2)
    assert message in str(mistake.value)


def test_baselines_weigh_rows_and_choose_thresholds_as_the_network_does(
    spark: SparkSession, use_case: UseCase, tmp_path: Path
) -> None:
    label = {"column": "y", "weight": "the weight", "positive": "yes", "threshold": "f1"}
    config = case(use_case, label=label, training={"class_weights": {"yes": 3}})
    prepared = prepare_data(spark, config, 2)
    data = prepared.manifest
    torch.manual_seed(0)
    net = TabularNet(net_spec(config, data))
    trained = Trained(weight_bytes(net), 2.0, 0.45)
    found = baselines.measure(spark, config, data, prepared.folder, trained)
    assert found is not None
    train, validation, test = (
        to_pandas(read_split(spark, prepared, split)) for split in ("train", "validation", "test")
    )
    weights = train["column_3"] * np.where(train["y"] == 1, 3, 1)
    x, x_test = train[["a", "b"]].to_numpy(np.float64), test[["a", "b"]].to_numpy(np.float64)
    constant = DummyClassifier(strategy="prior").fit(x, train["y"], sample_weight=weights).predict_proba(x_test)
    assert found.metrics["constant"]["log_loss"] == pytest.approx(sk.log_loss(test["y"], constant), rel=1e-6)
    trees = HistGradientBoostingClassifier(random_state=0).fit(x, train["y"], sample_weight=weights)
    p = trees.predict_proba(x_test)[:, 1]
    of_trees = found.metrics["trees"]
    assert of_trees["log_loss"] == pytest.approx(sk.log_loss(test["y"], p), rel=0.02)
    assert of_trees["pr_auc"] == pytest.approx(sk.average_precision_score(test["y"], p), rel=0.05)
    chosen_on = trees.predict_proba(validation[["a", "b"]].to_numpy(np.float64))[:, 1]
    best = max(np.unique(chosen_on), key=lambda t: sk.f1_score(validation["y"], chosen_on >= t))
    assert of_trees["f1"] == pytest.approx(sk.f1_score(test["y"], p >= best), abs=0.05)

    # the network's answers are those of the packaged model and of the gate
    package.save_model(config, data, prepared.resolved, trained, tmp_path / "model")
    packaged = tmp_path / "model" / "artifacts" / "model"
    scored = load_scorer(packaged).predict(test[["a", "b"]].assign(w=0.0, y=""))
    assert scored["prediction"].tolist() == ["yes" if p >= 0.45 else "no" for p in scored["probability_yes"]]
    assert (scored["prediction"] == "yes").any()
    assert (scored["prediction"] == "no").any()
    of_gate = holdout.evaluate(spark, config, data, packaged, None).candidate.metrics
    for name, value in found.metrics[MODEL].items():
        assert of_gate[name] == pytest.approx(value, abs=1e-6), name
    answers = (scored["prediction"] == "yes").astype(int)
    assert of_gate["precision"] == pytest.approx(sk.precision_score(test["y"], answers))
    assert of_gate["recall"] == pytest.approx(sk.recall_score(test["y"], answers))


def test_another_threshold_needs_no_new_preparation(spark: SparkSession, use_case: UseCase) -> None:
    config = case(use_case)
    first = prepare_data(spark, config, 2)
    label = config.label.model_copy(update={"positive": "yes", "threshold": 0.2})
    again = prepare_data(spark, config.model_copy(update={"label": label}), 2)
    assert again.reused
    assert (first.manifest.label.positive, again.manifest.label.positive) == (None, "yes")
    assert again.manifest.label.positive_code == 1
    with pytest.raises(UserError, match=r"label\.positive: is yes, but was not set in the training; give"):
        check_prepared_from(config.model_copy(update={"label": label}), first.manifest)
    check_prepared_from(config, first.manifest)


def test_a_weight_may_have_a_name_that_a_feature_would_get_in_the_files(spark: SparkSession, use_case: UseCase) -> None:
    sql = "SELECT a AS `a b`, w AS column_0, y FROM raw"
    features = {"numeric": ["a b"], "categorical": []}
    prepared = prepare_data(
        spark, case(use_case, sql=sql, features=features, label={"column": "y", "weight": "column_0"}), 2
    )
    data = prepared.manifest
    assert ([*data.columns], data.weight_stored) == (["column_0_2", "y", "column_0"], "column_0")
    shard = read_shard(prepared.folder, data, "validation", 0, 1)
    assert shard.weights is not None
    assert set(shard.weights.tolist()) == {0.0, 0.5, 1.0, 1.5, 2.0}
    assert len(set(shard.features[:, 0].tolist())) > 20


def test_a_champion_s_weight_does_not_make_its_rows_new(spark: SparkSession, use_case: UseCase, tmp_path: Path) -> None:
    config = case(use_case)
    prepared = prepare_data(spark, config, 2)
    torch.manual_seed(0)
    net = TabularNet(net_spec(config, prepared.manifest))
    package.save_model(config, prepared.manifest, prepared.resolved, Trained(weight_bytes(net)), tmp_path / "champion")
    champion = tmp_path / "champion" / "artifacts" / "model"
    # the source no longer has the weight, and another split
    csv = "\n".join(",".join(line.split(",")[i] for i in (0, 1, 3)) for line in table().splitlines()) + "\n"
    source = {"path": "data.csv", "schema": "a DOUBLE, b DOUBLE, y STRING"}
    today = case(use_case, csv, sql="SELECT a, b, y FROM raw", source=source, label={"column": "y"}, split={"seed": 5})
    fresh = prepare_data(spark, today, 2)
    package.save_model(today, fresh.manifest, fresh.resolved, Trained(weight_bytes(net)), tmp_path / "candidate")
    candidate = tmp_path / "candidate" / "artifacts" / "model"
    measured = holdout.evaluate(spark, today, fresh.manifest, candidate, champion)
    tested = fresh.manifest.rows.test
    assert measured.candidate.rows == tested
    assert measured.paired.rows < 0.3 * tested  # about 15 % are in the champion's test rows
