"""The baselines beside the network: scikit-learn's own numbers on the same rows, and never in the way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pyspark.sql import SparkSession
from sklearn import metrics as sk
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from conftest import UseCase, read_split, to_pandas
from datasets import an_epoch
from pipeline.config import Config
from pipeline.data.shards import Prepared, prepare_data
from pipeline.data.specs import Trained, net_spec
from pipeline.evaluation import baselines, figures, report
from pipeline.evaluation.baselines import MODEL, Beside
from pipeline.evaluation.metrics import Evaluation
from pipeline.model.network import TabularNet, weight_bytes

ROWS = 1200


def table(rows: int = ROWS) -> str:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, rows)).round(3)
    chance = 1 / (1 + np.exp(-(3 * a * b + a)))  # a product, which no line can follow
    y = rng.random(rows) < chance
    kinds = rng.integers(0, 3, rows)
    lines = (f"{a[i]},{b[i]},{'xyz'[kinds[i]]},{'yes' if y[i] else 'no'}\n" for i in range(rows))
    return "a,b,k,y\n" + "".join(lines)


def case(use_case: UseCase, **sections: Any) -> Config:
    settings: dict[str, Any] = {
        "csv": table(),
        "sql": "SELECT a, b, k, y FROM raw",
        "source": {"path": "data.csv", "schema": "a DOUBLE, b DOUBLE, k STRING, y STRING"},
        "features": {"numeric": ["a", "b"], "categorical": ["k"]},
        "label": {"column": "y"},
    }
    return use_case(**(settings | sections))


def beside(spark: SparkSession, config: Config, prepared: Prepared) -> Beside:
    torch.manual_seed(0)
    net = TabularNet(net_spec(config, prepared.manifest))
    trained = Trained(weight_bytes(net), 2.0)
    measured = baselines.measure(spark, config, prepared.manifest, prepared.folder, trained)
    assert measured is not None
    return measured


def arrays(spark: SparkSession, prepared: Prepared, split: Any) -> tuple[Any, Any]:
    frame: pd.DataFrame = to_pandas(read_split(spark, prepared, split))
    return frame.iloc[:, :-1].to_numpy(np.float64), frame.iloc[:, -1].to_numpy()


def test_the_numbers_are_those_of_scikit_learn(spark: SparkSession, use_case: UseCase) -> None:
    config = case(use_case)
    prepared = prepare_data(spark, config, 2)
    found = beside(spark, config, prepared)
    assert list(found.metrics) == [MODEL, "constant", "linear", "trees"]
    assert (found.train_rows, found.rows) == (prepared.manifest.rows.train, prepared.manifest.rows.test)

    (x, y), (x_test, y_test) = (arrays(spark, prepared, split) for split in ("train", "test"))
    onehot = [
        np.c_[StandardScaler().fit(x[:, :2]).transform(m[:, :2]), np.eye(3)[m[:, 2].astype(int)]] for m in (x, x_test)
    ]
    probabilities = {
        "constant": DummyClassifier(strategy="prior").fit(x, y).predict_proba(x_test),
        "linear": LogisticRegression(max_iter=200).fit(onehot[0], y).predict_proba(onehot[1]),
    }
    for name, p in probabilities.items():
        assert found.metrics[name]["log_loss"] == pytest.approx(sk.log_loss(y_test, p), rel=1e-4), name
        assert found.metrics[name]["accuracy"] == sk.accuracy_score(y_test, p.argmax(axis=1)), name
        assert found.metrics[name]["roc_auc"] == pytest.approx(sk.roc_auc_score(y_test, p[:, 1]), abs=2e-3), name
        f1 = sk.f1_score(y_test, p.argmax(axis=1), average="macro")
        assert found.metrics[name]["f1"] == pytest.approx(f1), name
    # trees depend on the order of the rows a little
    trees = HistGradientBoostingClassifier(categorical_features=[2], random_state=0).fit(x, y).predict_proba(x_test)
    assert found.metrics["trees"]["log_loss"] == pytest.approx(sk.log_loss(y_test, trees), rel=0.02)
    assert found.better("log_loss")[0] == "trees"
    assert found.metrics["trees"]["log_loss"] < 0.9 * found.metrics["linear"]["log_loss"]
    assert beside(spark, config, prepared).metrics == found.metrics
    assert found.as_metrics()["baseline_trees_log_loss"] == found.metrics["trees"]["log_loss"]
    assert not any("model" in name for name in found.as_metrics())


def test_the_numbers_of_a_regression(spark: SparkSession, use_case: UseCase) -> None:
    label = {"column": "y", "task": "regression"}
    sql = "SELECT a, b, k, 1000000000 + 3 * a * b + a AS y FROM raw"  # a label that is counted from an offset
    config = case(use_case, sql=sql, label=label)
    prepared = prepare_data(spark, config, 2)
    found = beside(spark, config, prepared)
    (x, y), (x_test, y_test) = (arrays(spark, prepared, split) for split in ("train", "test"))
    onehot = [
        np.c_[StandardScaler().fit(x[:, :2]).transform(m[:, :2]), np.eye(3)[m[:, 2].astype(int)]] for m in (x, x_test)
    ]
    ridge = Ridge().fit(onehot[0], y - 1e9).predict(onehot[1])
    trees = HistGradientBoostingRegressor(categorical_features=[2], random_state=0).fit(x, y - 1e9).predict(x_test)
    for name, answers in {"constant": np.full(len(y_test), (y - 1e9).mean()), "linear": ridge}.items():
        expected = np.sqrt(np.square(answers - (y_test - 1e9)).mean())
        assert found.metrics[name]["rmse"] == pytest.approx(expected, rel=1e-4), name
    assert found.metrics["trees"]["rmse"] == pytest.approx(np.sqrt(np.square(trees - (y_test - 1e9)).mean()), rel=0.02)
    assert abs(found.metrics["constant"]["r2"]) < 0.1


def test_of_a_large_split_the_same_rows_are_chosen_for_all(
    spark: SparkSession, use_case: UseCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = case(use_case)
    monkeypatch.setattr(baselines, "MOST_CELLS", 400)
    found = [beside(spark, config, prepare_data(spark, config, ranks)) for ranks in (2, 3)]
    # 100 of some 700, and of some 180: four deviations of a binomial
    assert 60 < found[0].train_rows < 140
    assert 70 < found[0].rows < 130
    assert (found[0].train_rows, found[0].rows) == (found[1].train_rows, found[1].rows)
    assert found[0].metrics == found[1].metrics


def test_what_cannot_be_fitted_is_left_out(
    spark: SparkSession, use_case: UseCase, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = case(use_case)
    prepared = prepare_data(spark, config, 2)
    monkeypatch.setattr(baselines, "_MOST_CLASSES", 1)
    assert list(beside(spark, config, prepared).metrics) == [MODEL, "constant"]
    for name in ("linear", "trees"):
        assert f"the baseline {name} is left out: 2 classes take too long; at most 1 are tried" in caplog.text

    (trained := prepared.manifest).splits["train"].row_groups.clear()
    assert baselines.measure(spark, config, trained, prepared.folder, Trained(b"")) is None
    assert "there are no baselines: " in caplog.text
    without = case(use_case, evaluation={"baselines": []})
    assert baselines.measure(spark, without, prepared.manifest, prepared.folder, Trained(b"")) is None


def test_the_report_says_first_what_is_better(spark: SparkSession, use_case: UseCase) -> None:
    config = case(use_case, tracking={"gate": {"metric": "log_loss"}})
    data = prepare_data(spark, config, 2).manifest
    evaluation = Evaluation(180, 0, {"accuracy": 0.8, "log_loss": 0.5})
    run = report.TrainedRun(
        name="case",
        run_id="0",
        data=data,
        config=config,
        history=[an_epoch(1)],
        best_epoch=1,
        evaluation=evaluation,
        validation=evaluation,
        uncalibrated=None,
        temperature=1.0,
        threshold=0.5,
        importance=[],
    )
    svg = {"loss_curves": figures.as_svg(figures.draw_curves(run.history, "accuracy", 1))}
    of_model, of_trees = {"accuracy": 0.8, "log_loss": 0.5}, {"accuracy": 0.7, "log_loss": 0.4}
    page = report.render(run, None, Beside({MODEL: of_model, "trees": of_trees}, 700, 180, 1.0), {}, svg)
    sentence = "Boosted trees are better than the network on the same 180 rows:"
    assert page.index(sentence) < page.index('tiles">') < page.index("Other models on the same rows")
    assert "log_loss 0.4, the network's 0.5" in " ".join(page.split())
    of_trees["log_loss"] = 0.6
    page = report.render(run, None, Beside({MODEL: of_model, "trees": of_trees}, 700, 180, 1.0), {}, svg)
    assert "better than the network" not in page
