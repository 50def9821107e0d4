"""The champion gate, branch by branch: real packaged models, a real registry in SQLite, real Spark."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from mlflow import MlflowClient
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conftest import OLD_MLFLOW, ROOT, UseCase
from pipeline import gate, predict
from pipeline.config import Config
from pipeline.data import prepare, shards, source_csv
from pipeline.data.manifest import NumericStats
from pipeline.data.shards import Prepared
from pipeline.data.specs import Trained, net_spec
from pipeline.data.split import Sides
from pipeline.evaluation import decision, holdout
from pipeline.evaluation.comparison import Paired
from pipeline.evaluation.metrics import Evaluation
from pipeline.evaluation.sums import MetricSums
from pipeline.model.dialect.entry import ENTRIES, Function
from pipeline.model.dialect.tree import Node
from pipeline.model.network import TabularNet, weight_bytes
from pipeline.tracking import package, registry, runs, store

ROWS = 2000
SQL = "SELECT CAST(a AS FLOAT) AS a, y FROM raw"


def csv(rows: int = ROWS) -> str:
    """Return rows in which y is 'high' from a = 100 on; a rises by 0.1."""
    lines = (f"{i / 10},{'xyz'[i % 3]},{'high' if i >= 1000 else 'low'}\n" for i in range(rows))
    return "a,k,y\n" + "".join(lines)


def read(spark: SparkSession, config: Config) -> DataFrame:
    return source_csv.read_records(spark, config).good()


def linear(config: Config, prepared: Prepared, weights: list[list[float]], biases: list[float]) -> TabularNet:
    net = TabularNet(net_spec(config, prepared.manifest))
    net.load_state_dict(
        net.state_dict() | {"layers.0.weight": torch.tensor(weights), "layers.0.bias": torch.tensor(biases)}
    )
    return net


def measured(net: TabularNet, prepared: Prepared) -> Evaluation:
    """Measure a network on the test rows as they lie in Parquet, as the ranks do."""
    data = prepared.manifest
    groups = {(prepared.folder / group.path).path for group in data.splits["test"].row_groups}
    sums = MetricSums(data.label, with_detail=True)
    for file in sorted(groups):
        table = pq.read_table(file).to_pandas()
        with torch.no_grad():
            outputs = net(torch.from_numpy(table[[*data.numeric, *data.vocabularies]].to_numpy(np.float32))).double()
        answers = torch.softmax(outputs, dim=1) if data.label.classes else outputs.squeeze(1)
        sums.add(answers, torch.from_numpy(table[data.label.column].to_numpy()))
    return sums.evaluate()


KIND = {"column": "k", "encoding": "onehot", "unknown": "refuse", "missing": "drop"}


class Project:
    """One use case whose models are made by hand instead of trained."""

    def __init__(self, spark: SparkSession, use_case: UseCase, **sections: Any) -> None:
        self.spark, self._use_case = spark, use_case
        self._sections: dict[str, Any] = {
            "csv": csv(),
            "sql": SQL,
            "features": {"numeric": [{"column": "a", "scaling": "none", "missing": "drop"}], "categorical": []},
            "source": {"path": "data.csv", "schema": "a DOUBLE, k STRING, y STRING"},
            "model": {"hidden_sizes": []},
            "tracking": {"registered_model": "m"},
        }
        self.change(**sections)

    def change(self, **sections: Any) -> None:
        self._sections |= sections
        self.config = self._use_case(**self._sections)
        self.uri = store.tracking_uri(self.config)
        store.open_store(self.config, self.uri)()
        self.client = MlflowClient(self.uri)
        self.prepared = shards.prepare_data(self.spark, self.config, 2)

    def judge(self, weights: list[list[float]], biases: list[float], **fields: Any) -> decision.Decision:
        """Package a linear model and let the gate decide; ``fields`` replace what the ranks would have measured."""
        config, data = self.config, self.prepared.manifest
        net = linear(config, self.prepared, weights, biases)
        self.run_id = runs.start_run(config, self.uri)
        model_uri = package.log_model(
            config, data, self.prepared.resolved, Trained(weight_bytes(net)), self.uri, self.run_id
        )
        self.client.set_tag(self.run_id, "model_uri", model_uri)
        trained = dataclasses.replace(measured(net, self.prepared), **fields)
        run = runs.LoggedRun(self.run_id, model_uri, trained.metrics, data)
        return gate.judge_candidate(self.spark, config, self.uri, run)

    def answers_high_from(self, threshold: float, **fields: Any) -> decision.Decision:
        """Judge the model that answers 'high' from this value of a on; 100 is right."""
        # classes in the order of their codes: high, low
        return self.judge([[1.0], [0.0]], [0.05 - threshold, 0.0], **fields)

    @property
    def label_stats(self) -> NumericStats:
        stats = self.prepared.manifest.label.stats
        assert stats is not None
        return stats

    @property
    def champion(self) -> str | None:
        return registry.champion_version(self.uri, "m")


def number(metric: float | None) -> float:
    assert metric is not None
    return metric


@pytest.fixture
def project(spark: SparkSession, use_case: UseCase) -> Project:
    return Project(spark, use_case)


@pytest.fixture(params=["driver", "executors"])
def whoever_scores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "executors":
        monkeypatch.setattr(holdout, "_DRIVER_CELLS", 0)


@pytest.mark.usefixtures("whoever_scores")
def test_the_first_is_promoted_an_equal_one_is_not_a_better_one_is(project: Project) -> None:
    first = project.answers_high_from(150)
    assert (first.decision, first.version, first.champion, first.champion_version) == ("promoted", "1", None, None)
    assert first.reason.startswith("there was no champion; accuracy is 0.")
    assert project.champion == "1"

    equal = project.answers_high_from(150)
    assert (equal.decision, equal.candidate, equal.champion_version) == ("rejected", equal.champion, "1")
    assert "better by 0, but that must be more than 0" in equal.reason
    worse = project.answers_high_from(190)
    assert (worse.decision, project.champion) == ("rejected", "1")
    assert number(worse.candidate) < number(worse.champion) == first.candidate

    better = project.answers_high_from(100)
    assert (better.decision, better.candidate, better.champion) == ("promoted", 1.0, first.candidate)
    assert (better.rows, better.attempt) == (project.prepared.manifest.rows.test, 3)
    assert better.method == "McNemar's exact test"
    assert project.champion == better.version == "4"
    # the decision and both numbers: on the version, and on the run
    version, run = project.client.get_model_version("m", "4"), project.client.get_run(project.run_id)
    for tags, gate_ in ((version.tags, "gate_"), (run.data.tags, "gate.")):
        assert tags[gate_ + "decision"] == "promoted"
        assert (float(tags[gate_ + "candidate"]), float(tags[gate_ + "champion"])) == (1.0, first.candidate)
        assert (tags[gate_ + "metric"], tags[gate_ + "champion_version"]) == ("accuracy", "1")
        assert "better by" in tags[gate_ + "reason"]
    assert not any(set(".,-=/:") & set(key) for key in version.tags)  # Unity Catalog refuses these characters
    assert version.run_id == project.run_id

    row = predict.predict_row("models:/m@champion", '{"a": 120}', project.uri)
    assert row["prediction"] == "high"
    with registry.fetched_model("models:/m@champion", project.uri) as (_, number_of_version):
        assert number_of_version == "4"


def test_a_candidate_that_makes_other_features_without_spark_is_blocked(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.change(sql="SELECT floor(a) AS a, y FROM raw")
    assert project.answers_high_from(150).decision == "promoted"
    right = ENTRIES["Floor"]

    def make(node: Node) -> Function:
        return lambda value: right.make(node)(value) + (value > 150)

    monkeypatch.setitem(ENTRIES, "Floor", dataclasses.replace(right, make=make))
    blocked = project.answers_high_from(100)
    assert (blocked.decision, project.champion) == ("blocked", "1")
    rows = "the packaged candidate and Spark make other features of the held-out rows: 'a', made with cast, floor, in "
    assert rows in blocked.reason


def test_a_candidate_must_be_better_by_enough_and_pass_the_thresholds(project: Project) -> None:
    project.change(tracking={"registered_model": "m", "gate": {"thresholds": {"accuracy": 0.9}}})
    bad = project.answers_high_from(190)
    assert (bad.decision, project.champion) == ("rejected", None)
    assert "but must be at least 0.9" in bad.reason

    assert project.answers_high_from(104).decision == "promoted"
    project.change(tracking={"registered_model": "m", "gate": {"min_improvement": 0.5}})
    little = project.answers_high_from(100)
    assert (little.decision, project.champion) == ("rejected", "2")
    assert "but that must be more than 0.5 (interval of Agresti and Min, " in little.reason


def test_a_lower_log_loss_is_better(project: Project) -> None:
    settings = {"metric": "log_loss", "thresholds": {"calibration_error": 0.9}}
    project.change(tracking={"registered_model": "m", "gate": settings})
    # not as steep as the others: the constant answer's log loss is 0.69
    assert project.judge([[0.05], [0.0]], [-0.05 * 130, 0.0]).decision == "promoted"
    better = project.judge([[0.05], [0.0]], [-0.05 * 100, 0.0])
    assert better.decision == "promoted"
    assert better.method.startswith("jackknife over 1")  # of 200 buckets, those that hold a row
    assert number(better.candidate) < number(better.champion)
    settings["thresholds"] = {"calibration_error": 0.0}
    project.change(tracking={"registered_model": "m", "gate": settings})
    assert "calibration_error is" in (rejected := project.judge([[0.05], [0.0]], [-0.05 * 100, 0.0])).reason
    assert "must be at most 0" in rejected.reason


@pytest.mark.usefixtures("whoever_scores")
def test_a_regression_is_judged_by_its_rmse(spark: SparkSession, use_case: UseCase) -> None:
    label = {"column": "y", "task": "regression"}
    project = Project(spark, use_case, sql="SELECT CAST(a AS FLOAT) AS a, 3 * a AS y FROM raw", label=label)
    stats = project.label_stats
    # the network's answer is out * std + mean
    weights, biases = [[3 / stats.std]], [-stats.mean / stats.std]
    assert project.judge(weights, [biases[0] + 0.1]).decision == "promoted"
    better = project.judge(weights, biases)
    assert (better.decision, better.metric) == ("promoted", "rmse")
    assert better.candidate == pytest.approx(0, abs=1e-3)
    assert better.champion == pytest.approx(0.1 * stats.std, rel=1e-3)


def test_a_champion_is_measured_by_its_own_sql(project: Project) -> None:
    first = project.answers_high_from(150)
    # other features, of another scale, made by other SQL from the same CSV
    project.change(
        sql="SELECT a / 100 AS hundreds, k, y FROM raw",
        features={"numeric": [{"column": "hundreds", "scaling": "none", "missing": "drop"}], "categorical": [KIND]},
        tracking={"registered_model": "m", "gate": {"min_rows": 20}},
    )
    second = project.judge([[100.0, 0, 0, 0], [0.0, 0, 0, 0]], [-99.95, 0.0])
    assert second.decision == "promoted"
    assert second.candidate == 1.0
    # most test rows of today are training rows of the champion
    assert 20 < second.rows < 0.3 * project.prepared.manifest.rows.test
    assert second.champion == pytest.approx(first.candidate, abs=0.25)
    assert number(second.champion) < 0.9


@pytest.mark.usefixtures("whoever_scores")
def test_rows_that_a_champion_refuses_count_against_it(project: Project) -> None:
    project.change(
        csv=csv().replace(",z,", ",x,"),
        sql="SELECT CAST(a AS FLOAT) AS a, k, y FROM raw",
        features={"numeric": [{"column": "a", "scaling": "none", "missing": "drop"}], "categorical": [KIND]},
        split={"group": "a"},  # a row stays on its side when its category changes
    )
    assert project.judge([[1.0, 0, 0], [0.0, 0, 0]], [-99.95, 0.0]).candidate == 1.0
    project.change(csv=csv())  # a third of the rows now has a category that the champion does not know
    decision = project.judge([[1.0, 0, 0, 0], [0.0, 0, 0, 0]], [-99.95, 0.0])
    assert decision.decision == "promoted"
    rows = project.prepared.manifest.rows.test
    assert decision.rows == rows
    assert decision.champion == pytest.approx(1 - 1 / 3, abs=20 / rows)


def test_versions_that_somebody_deletes_do_not_stop_the_gate(project: Project) -> None:
    project.answers_high_from(150)
    rejected = project.answers_high_from(190)
    assert (rejected.decision, rejected.version) == ("rejected", "2")
    project.client.delete_model_version("m", "2")
    # judged again, as by jobs/gate.py
    run = project.client.get_run(project.run_id)
    assert registry.register(project.uri, project.run_id, run.data.tags["model_uri"], "m") == "3"

    project.client.delete_model_version("m", "1")
    project.client.set_registered_model_alias("m", "champion", "3")
    project.client.delete_model_version("m", "3")
    assert project.champion is None
    first = project.answers_high_from(190)
    assert (first.decision, first.champion_version) == ("promoted", None)
    assert project.champion == first.version


def test_a_fetched_model_leaves_no_trace(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project.answers_high_from(150)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    (tmp_path / "temp").mkdir()
    predict.predict_row("models:/m@champion", '{"a": 120}', project.uri)
    with registry.fetched_model("models:/m@champion", project.uri) as (folder, _):
        assert (folder / "model.json").exists()
        assert tmp_path in folder.parents
    assert list((tmp_path / "temp").iterdir()) == []


def damage(project: Project, how: Callable[[Path], None]) -> None:
    with store.active(project.uri):  # where the store itself keeps it
        folder = Path(mlflow.artifacts.download_artifacts("models:/m@champion"))
    how(folder / "artifacts" / "model")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            lambda model: shutil.rmtree(model.parents[1]),
            # MLflow 2 fails itself when it finds nothing to download
            "cannot be loaded from" if OLD_MLFLOW else "it holds no artifacts/model/model.json",
        ),
        (lambda model: (model / "model.json").unlink(), "is not a model of this pipeline"),
        (lambda model: (model / "weights.safetensors").write_bytes(b"\0" * 100), "it cannot be loaded: "),
        (lambda model: (model / "model.json").write_text("{}"), "it cannot be loaded: "),
        (lambda model: (model / "pipeline.yaml").write_text("source: 1"), "source"),
    ],
)
def test_a_champion_that_cannot_be_loaded_blocks(project: Project, how: Callable[[Path], None], message: str) -> None:
    assert project.answers_high_from(150).decision == "promoted"
    damage(project, how)
    blocked = project.answers_high_from(100)
    assert (blocked.decision, blocked.champion, blocked.candidate) == ("blocked", None, 1.0)
    assert blocked.reason.startswith("the candidate cannot be compared with the champion, version 1: ")
    assert message in blocked.reason
    assert project.champion == "1"
    assert project.client.get_model_version("m", blocked.version).tags["gate_decision"] == "blocked"


def test_a_champion_that_no_longer_fits_blocks(project: Project) -> None:
    assert project.answers_high_from(150).decision == "promoted"
    project.change(
        csv=csv().replace("a,k,y", "b,k,y"),
        source={"path": "data.csv", "schema": "b DOUBLE, k STRING, y STRING"},
        sql="SELECT CAST(b AS FLOAT) AS a, y FROM raw",
    )
    missing = project.answers_high_from(100)
    assert missing.decision == "blocked"
    assert "it needs the column 'a' as DOUBLE, but source.schema has no such column" in missing.reason
    project.change(csv=csv(), source={"path": "data.csv", "schema": "a FLOAT, k STRING, y STRING"}, sql=SQL)
    assert "but source.schema has it as FLOAT" in project.answers_high_from(100).reason

    project.change(
        csv=csv().replace(",y,high", ",y,top", 100),
        source={"path": "data.csv", "schema": "a DOUBLE, k STRING, y STRING"},
    )
    classes = project.judge([[1.0], [0.0], [0.0]], [-99.95, 0.0, -9.0])
    assert classes.decision == "blocked"
    assert "it predicts high, low, but the data have high, low, top" in classes.reason
    assert project.champion == "1"


def test_a_source_that_has_changed_meanwhile_blocks(project: Project) -> None:
    source = project.config.folder / "data.csv"
    source.write_text(csv(ROWS + 50))
    decision = project.answers_high_from(100)
    assert (decision.decision, project.champion) == ("blocked", None)
    held = project.prepared.manifest.rows.test
    problem = f"has changed since it was prepared: it held {held} test rows, now at least {held + 1}"
    assert problem in decision.reason


def test_a_package_that_differs_from_the_training_blocks(project: Project) -> None:
    decision = project.answers_high_from(150, metrics={"accuracy": 0.99})
    assert (decision.decision, project.champion) == ("blocked", None)
    assert "as packaged, but was 0.99 when it was trained" in decision.reason


def test_a_regression_package_that_differs_from_the_training_blocks_for_every_metric(
    spark: SparkSession, use_case: UseCase
) -> None:
    label = {"column": "y", "task": "regression"}
    sql = "SELECT CAST(a AS FLOAT) AS a, 1000000 * a AS y FROM raw"  # a label whose deviation is large
    project = Project(spark, use_case, sql=sql, label=label)
    stats = project.label_stats
    weights, biases = [[1e6 / stats.std]], [-stats.mean / stats.std]
    assert project.judge(weights, biases).decision == "promoted"
    for metric, trained_value in (("r2", 0.9), ("mae", 5e5), ("rmse", 5e5)):
        project.change(tracking={"registered_model": "m", "gate": {"metric": metric}})
        trained = {"rmse": 0.0, "mae": 0.0, "r2": 1.0, metric: trained_value}
        assert "when it was trained" in project.judge(weights, biases, metrics=trained).reason


def test_a_candidate_is_as_good_as_trained_though_it_refuses_unseen_values(
    spark: SparkSession, use_case: UseCase
) -> None:
    rows = csv().replace(",z,", ",x,").splitlines()
    rare = [f"{a},only{i},{y}" for i, (a, _, y) in enumerate(row.split(",") for row in rows[1:201])]
    project = Project(
        spark,
        use_case,
        csv="\n".join([rows[0], *rare, *rows[201:], ""]),
        sql="SELECT CAST(a AS FLOAT) AS a, k, y FROM raw",
        features={"numeric": [{"column": "a", "scaling": "none", "missing": "drop"}], "categorical": [KIND]},
    )
    width = len(project.prepared.manifest.vocabularies["k"])
    known = set(project.prepared.manifest.vocabularies["k"])
    sides = prepare.typed_rows(spark, project.config, read(spark, project.config), Sides(project.config.split)).frame
    refused = sides.where("split = 'test'").where(~F.col("k").isin(known)).count()
    assert refused > 10
    test = project.prepared.manifest.rows.test
    weights = [[1.0] + [0.0] * width, [0.0] * (width + 1)]
    # the ranks count them as refused: tests/horovod/test_ranks.py
    decision = project.judge(weights, [-99.95, 0.0], metrics={"accuracy": 1 - refused / test})
    assert decision.decision == "promoted"
    assert decision.candidate == pytest.approx(1 - refused / test)


def test_an_integer_label_with_names_is_judged_by_its_codes(spark: SparkSession, use_case: UseCase) -> None:
    project = Project(
        spark,
        use_case,
        csv=csv().replace("high", "1").replace("low", "0"),
        source={"path": "data.csv", "schema": "a DOUBLE, k STRING, y INT"},
        label={"column": "y", "classes": ["under", "over"]},
    )
    assert project.judge([[0.0], [1.0]], [0.0, -149.95]).decision == "promoted"
    better = project.judge([[0.0], [1.0]], [0.0, -99.95])
    assert (better.decision, better.candidate) == ("promoted", 1.0)


def test_a_champion_whose_label_the_source_lacks_blocks(project: Project) -> None:
    """Nothing tells which rows such a champion knows."""
    assert project.answers_high_from(150).decision == "promoted"
    project.change(
        csv=csv().replace("a,k,y", "a,k,target"),
        source={"path": "data.csv", "schema": "a DOUBLE, k STRING, target STRING"},
        sql="SELECT CAST(a AS FLOAT) AS a, target AS y FROM raw",
    )
    blocked = project.answers_high_from(100)
    assert (blocked.decision, blocked.champion_version) == ("blocked", "1")
    rows = project.prepared.manifest.rows.test
    assert (
        f"its features.sql makes another value, or none, of {rows} test row(s); jobs/gate.py --promote"
        in blocked.reason
    )


def test_a_champion_promoted_meanwhile_blocks(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert project.answers_high_from(150).decision == "promoted"
    assert project.answers_high_from(190).decision == "rejected"
    decide = decision.decide

    def while_another_job_promotes(*arguments: Any) -> decision.Verdict:
        registry.promote(project.uri, "m", "2")
        return decide(*arguments)

    monkeypatch.setattr(gate, "decide", while_another_job_promotes)
    blocked = project.answers_high_from(100)
    assert (blocked.decision, project.champion) == ("blocked", "2")
    assert "version 2 has become the champion meanwhile" in blocked.reason


def test_a_new_class_since_preparation_blocks_with_a_sentence(project: Project) -> None:
    (project.config.folder / "data.csv").write_text(csv().replace("low", "middle"))
    blocked = project.answers_high_from(100)
    assert blocked.decision == "blocked"
    assert "has changed since it was prepared" in blocked.reason
    (project.config.folder / "data.csv").write_text(csv().replace("a,k,y", "a,k,z"))
    assert "has the header 'z' where source.schema has 'y'" in (again := project.answers_high_from(100)).reason
    assert "\n" not in again.reason + blocked.reason


def test_they_are_compared_on_rows_that_the_champion_has_not_trained_on(project: Project) -> None:
    """Another feature, another seed and other fractions: the compared rows are those that both leave for the test."""
    project.change(split={"seed": 5, "validation_fraction": 0.3, "test_fraction": 0.4})
    assert project.answers_high_from(150).decision == "promoted"
    champion = project.config
    project.change(
        sql="SELECT CAST(a AS FLOAT) AS a, k, y FROM raw",
        features={"numeric": [{"column": "a", "scaling": "none", "missing": "drop"}], "categorical": [KIND]},
        split={"seed": 6, "validation_fraction": 0.1, "test_fraction": 0.5},
    )
    decision = project.judge([[1.0, 0, 0, 0], [0.0, 0, 0, 0]], [-99.95, 0.0])

    def rows(config: Config, split: str) -> set[float]:
        good = read(project.spark, config)
        typed = prepare.typed_rows(project.spark, config, good, Sides(config.split), F.col("a")).frame
        return {row[prepare.CARRIED] for row in typed.where(F.col("split") == split).collect()}

    of_champion, of_candidate = rows(champion, "test"), rows(project.config, "test")
    compared = of_champion & of_candidate
    assert 300 < len(compared) < min(len(of_champion), len(of_candidate))
    assert decision.rows == len(compared)
    assert decision.champion == 1 - len([a for a in compared if 100 <= a < 150]) / len(compared)
    assert (decision.decision, decision.candidate) == ("promoted", 1.0)
    for config in (champion, project.config):
        assert not compared & (rows(config, "train") | rows(config, "validation"))


def test_too_few_rows_that_the_champion_does_not_know_block(project: Project) -> None:
    assert project.answers_high_from(150).decision == "promoted"
    project.change(split={"seed": 1})
    blocked = project.answers_high_from(100)
    assert (blocked.decision, project.champion) == ("blocked", "1")
    test = project.prepared.manifest.rows.test
    assert 0 < blocked.rows < 100
    assert f"the champion, version 1, does not know {blocked.rows} of {test} test rows" in blocked.reason
    assert "but tracking.gate.min_rows is 200: train with its features, seed and fractions" in blocked.reason


def test_without_test_rows_the_gate_blocks(project: Project) -> None:
    project.change(split={"test_fraction": 0.0})
    config, data = project.config, project.prepared.manifest
    net = linear(config, project.prepared, [[1.0], [0.0]], [-99.95, 0.0])
    run_id = runs.start_run(config, project.uri)
    model = package.log_model(config, data, project.prepared.resolved, Trained(weight_bytes(net)), project.uri, run_id)
    run = runs.LoggedRun(run_id, model, {"accuracy": 1.0}, data)
    blocked = gate.judge_candidate(project.spark, config, project.uri, run)
    assert (blocked.decision, blocked.candidate, project.champion) == ("blocked", None, None)
    assert blocked.reason.startswith("there is no test row, so nothing measures the model: set split.test_fraction")


def test_a_first_champion_must_beat_the_constant_answer(project: Project) -> None:
    always_high = project.judge([[0.0], [0.0]], [1.0, 0.0])
    assert (always_high.decision, project.champion) == ("rejected", None)
    assert always_high.reason.startswith("there was no champion, but accuracy is 0.")
    assert always_high.reason.endswith(": not better")
    assert project.answers_high_from(150).decision == "promoted"


def test_the_second_try_on_the_same_rows_must_be_surer(project: Project) -> None:
    assert project.answers_high_from(103).decision == "promoted"
    first, second = project.answers_high_from(103), project.answers_high_from(103)
    assert (first.attempt, second.attempt) == (1, 2)
    # six rows better are enough for a first try, not for a third
    data = project.prepared.manifest
    run = project.client.get_run(project.run_id)
    again = gate.judge_candidate(
        project.spark,
        project.config,
        project.uri,
        runs.LoggedRun(project.run_id, run.data.tags["model_uri"], {"accuracy": number(second.candidate)}, data),
    )
    assert again.attempt == 2  # judged again, counted once
    third = project.answers_high_from(100)
    assert (third.attempt, third.champion_version) == (3, "1")
    assert "for model 3 on these rows" in third.reason
    paired = Paired(300, 1.0, 0.98, 6, 0, [])
    whole = Evaluation(300, 0, {"accuracy": 1.0})
    outcomes = [decision.decide(project.config, whole, paired, "1", attempt).decision for attempt in (1, 2, 3)]
    assert outcomes == ["promoted", "rejected", "rejected"]


def test_a_source_that_grows_keeps_the_count_and_another_one_does_not(project: Project) -> None:
    assert project.answers_high_from(120).decision == "promoted"
    assert project.answers_high_from(120).attempt == 1
    more = "".join(f"{300 + i / 10},x,high\n" for i in range(400))
    project.change(csv=csv() + more)
    assert project.answers_high_from(120).attempt == 2
    half = "".join(f"{5000 + i / 10},x,{'high' if i % 2 else 'low'}\n" for i in range(4000))
    project.change(csv=csv() + half)
    assert project.answers_high_from(120).attempt == 1


def test_rows_that_are_alike_are_no_evidence_by_themselves(project: Project) -> None:
    """Each row is there four times: McNemar's test would take them for four times as many."""
    lines = "".join(f"{i / 10},x,{'high' if i >= 1000 else 'low'}\n" * 4 for i in range(ROWS))
    project.change(csv="a,k,y\n" + lines)
    assert project.answers_high_from(150).decision == "promoted"
    better = project.answers_high_from(100)
    assert better.method.startswith("jackknife over ")
    assert better.decision == "promoted"


def test_a_champion_whose_split_column_has_another_type_blocks(project: Project) -> None:
    dated = "a,k,y,d\n" + "".join(
        f"{line},2024-{1 + i % 12:02}-{1 + i % 28:02}\n" for i, line in enumerate(csv().splitlines()[1:])
    )
    schema = "a DOUBLE, k STRING, y STRING, d DATE"
    project.change(csv=dated, source={"path": "data.csv", "schema": schema}, split={"time": "d"})
    assert project.answers_high_from(150).decision == "promoted"
    better = project.answers_high_from(100)
    assert (better.decision, better.rows) == ("promoted", project.prepared.manifest.rows.test)
    project.change(source={"path": "data.csv", "schema": schema.replace("d DATE", "d TIMESTAMP")})
    blocked = project.answers_high_from(100)
    assert blocked.decision == "blocked"
    assert "its training split the rows by 'd' as DATE, but source.schema has no such column" in blocked.reason


def test_another_definition_of_the_label_blocks(spark: SparkSession, use_case: UseCase) -> None:
    label = {"column": "y", "task": "regression"}
    project = Project(spark, use_case, sql="SELECT CAST(a AS FLOAT) AS a, 3 * a AS y FROM raw", label=label)
    stats = project.label_stats
    assert project.judge([[3 / stats.std]], [-stats.mean / stats.std]).decision == "promoted"
    project.change(sql="SELECT CAST(a AS FLOAT) AS a, log(3 * a + 1) AS y FROM raw")
    blocked = project.judge([[0.0]], [0.0])
    assert blocked.decision == "blocked"
    assert "predicts another label: its features.sql makes another value, or none, of " in blocked.reason


def test_not_worse_takes_an_equal_model_and_refuses_a_worse_one(project: Project) -> None:
    fresh = {"rule": "not_worse", "margin": 0.05}
    project.change(tracking={"registered_model": "m", "gate": fresh})
    assert project.answers_high_from(120).decision == "promoted"
    equal = project.answers_high_from(120)
    assert (equal.decision, equal.method, project.champion) == ("promoted", "interval of Agresti and Min", "2")
    assert "worse by at most 0.0" in equal.reason
    worse = project.answers_high_from(150)
    assert (worse.decision, project.champion) == ("rejected", "2")
    assert "but the margin is 0.05" in worse.reason


def test_rows_of_a_group_are_judged_together(project: Project) -> None:
    """Ten rows of each value of k are one piece of evidence, so accuracy is no count of rows by themselves."""
    lines = [f"{a / 10},g{a // 10},{'high' if a >= 1000 else 'low'}\n" for a in range(ROWS)]
    project.change(csv="a,k,y\n" + "".join(lines), split={"group": ["k"]})
    assert project.answers_high_from(150).decision == "promoted"
    better = project.answers_high_from(100)
    groups = len({row[0] for row in read(project.spark, project.config).select("k").collect()})
    assert groups == 200
    assert better.decision == "promoted"
    assert better.rows % 10 == 0
    buckets = int(better.method.removeprefix("jackknife over ").removesuffix(" buckets of rows"))
    assert 0.8 * better.rows / 10 <= buckets <= better.rows / 10  # two groups may share a bucket


def test_a_person_overrules_the_gate(project: Project) -> None:
    assert project.answers_high_from(120).decision == "promoted"
    assert project.answers_high_from(190).decision == "rejected"
    config = str(project.config.file)

    def job(*options: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "jobs/gate.py",
            "--config",
            config,
            "--set",
            f"run.work_dir={project.config.work_dir}",
        ]
        return subprocess.run([*command, *options], capture_output=True, text=True, cwd=ROOT, timeout=100)

    silent = job("--promote", "2")
    assert (silent.returncode, project.champion) == (2, "1")
    assert "--promote needs --reason TEXT" in silent.stderr
    assert "m: has no version 9" in job("--promote", "9", "--reason", "x").stderr
    assert "no champion before it is known; name a version with --promote" in job("--rollback").stderr

    promoted = job("--promote", "2", "--reason", "the board wants it")
    summary = json.loads(promoted.stdout.splitlines()[-1])
    assert (summary["version"], summary["champion_version"], project.champion) == ("2", "1", "2")
    tags = project.client.get_model_version("m", "2").tags
    assert tags["gate_overruled"] == "the board wants it"
    assert tags["gate_overruled_at"].endswith("UTC")

    assert json.loads(job("--rollback").stdout.splitlines()[-1])["version"] == "1"
    assert project.champion == "1"
    assert project.client.get_model_version("m", "1").tags["gate_overruled"] == "rolled back"


def test_a_metric_that_cannot_be_measured_blocks(project: Project) -> None:
    config = project.config.model_copy(
        update={"tracking": project.config.tracking.model_copy(update={"gate": gate_settings("roc_auc")})}
    )
    whole = Evaluation(300, 0, {"roc_auc": 0.5})
    unmeasured = Paired(300, math.nan, 0.5, 0, 0, [0.0, 0.0])
    assert decision.decide(config, whole, unmeasured, None).reason == (
        "roc_auc of the candidate cannot be measured on 300 test rows"
    )
    champion = dataclasses.replace(unmeasured, candidate=0.5, reference=math.nan)
    assert decision.decide(config, whole, champion, "1").decision == "blocked"


def gate_settings(metric: str) -> Any:
    from pipeline.config.tracking import Gate

    return Gate(metric=metric)
