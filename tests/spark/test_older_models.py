"""Models of older formats stay usable: through MLflow, in the job predict, as champion in the gate.

Whoever changes the format adds one folder to tests/models, with the answers of the code that packaged it.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from pyspark.sql import SparkSession

from conftest import OLD_MLFLOW, PACKAGED_MODELS, PENGUINS, UNLISTED_FUNCTION
from pipeline import gate, predict
from pipeline.config import Config, load_config
from pipeline.data import shards
from pipeline.data.manifest import Manifest
from pipeline.data.specs import Trained
from pipeline.evaluation import holdout
from pipeline.evaluation.decision import Decision
from pipeline.runtime.errors import UserError
from pipeline.tracking import package, registry, runs, store

pytestmark = pytest.mark.skipif(OLD_MLFLOW, reason="MLflow 2 cannot read the type `any` of the older signatures")
WITHOUT_TEST_ROWS = [model for model in PACKAGED_MODELS if model.name < "format-5"]
WITH_TEST_ROWS = [model for model in PACKAGED_MODELS if model not in WITHOUT_TEST_ROWS]
of_each_format = pytest.mark.parametrize("model", PACKAGED_MODELS, ids=lambda folder: folder.name)


def expected(model: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return some raw rows, and what the code that packaged the model has answered."""
    recorded = json.loads((model / "expected.json").read_text())
    return recorded["rows"], recorded["answers"]


def assert_same(answers: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Compare answers; a matrix of one row is multiplied in another order than one of ten."""
    assert len(answers) == len(expected)
    for answer, right in zip(answers, expected, strict=True):
        assert answer.keys() == right.keys()
        for name, value in right.items():
            assert answer[name] == (pytest.approx(value, abs=1e-6) if isinstance(value, float) else value)


def registered(model: Path, folder: Path, uri: str) -> None:
    """Register a copy of the model as version 1 of `penguins`, its champion."""
    shutil.copytree(model, folder / "registered")
    client = MlflowClient(uri)
    client.create_registered_model("penguins")
    version = client.create_model_version("penguins", source=(folder / "registered").as_uri())
    registry.promote(uri, "penguins", version.version)


def measured(spark: SparkSession, config: Config, data: Manifest, model: str, uri: str) -> dict[str, float]:
    """Return the metrics of a packaged model on the test rows, as the ranks would have measured them."""
    with registry.fetched_model(model, uri) as (folder, _):
        return holdout.evaluate(spark, config, data, folder, None).candidate.metrics


def write_csv(file: Path, rows: list[dict[str, Any]]) -> None:
    with file.open("w", newline="") as text:
        writer = csv.DictWriter(text, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("model", [*PACKAGED_MODELS, UNLISTED_FUNCTION], ids=lambda folder: folder.name)
def test_mlflow_loads_it_where_today_s_package_is_imported(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))  # MLflow puts the model's code in front
    rows, answers = expected(model)
    loaded = mlflow.pyfunc.load_model(str(model))
    assert_same(loaded.predict(pd.DataFrame(rows)).to_dict("records"), answers)


@of_each_format
def test_the_job_predict_scores_a_row_and_files(spark: SparkSession, model: Path, tmp_path: Path) -> None:
    rows, answers = expected(model)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    registered(model, tmp_path, uri)
    champion = "models:/penguins@champion"
    assert_same([predict.predict_row(champion, json.dumps(row), uri) for row in rows], answers)

    write_csv(tmp_path / "rows.csv", rows)
    output = str(tmp_path / "out")
    summary = predict.predict_files(champion, [str(tmp_path / "rows.csv")], output, "parquet", uri)
    refused = sum(answer["reason"] is not None for answer in answers)
    assert summary["rows"] == {
        "read": len(rows),
        "quarantined": 0,
        "predicted": len(rows) - refused,
        "refused": refused,
    }
    scored = [row.asDict() for row in spark.read.parquet(output).coalesce(1).collect()]
    assert_same([{name: row[name] for name in answers[0]} for row in scored], answers)


def judged(spark: SparkSession, model: Path, folder: Path) -> tuple[Decision, Manifest]:
    """Let the model be a candidate against itself as the champion; return the decision and today's data."""
    config = load_config(PENGUINS, [f"run.work_dir={folder}"])
    uri = store.tracking_uri(config)
    store.open_store(config, uri)()
    registered(model, folder, uri)
    prepared = shards.prepare_data(spark, config, 2)
    data = prepared.manifest
    weights = (model / "artifacts" / "model" / "weights.safetensors").read_bytes()
    run_id = runs.start_run(config, uri)
    model_uri = package.log_model(config, data, prepared.resolved, Trained(weights), uri, run_id)
    run = runs.LoggedRun(run_id, model_uri, measured(spark, config, data, model_uri, uri), data)
    decision = gate.judge_candidate(spark, config, uri, run)
    assert registry.champion_version(uri, "penguins") == "1"
    return decision, data


@pytest.mark.parametrize("model", WITHOUT_TEST_ROWS, ids=lambda folder: folder.name)
def test_the_gate_knows_that_it_as_champion_knows_all_rows(spark: SparkSession, model: Path, tmp_path: Path) -> None:
    """Formats 1 to 4 had no test rows: each row was in training, or chose the epoch."""
    decision, data = judged(spark, model, tmp_path)
    assert (decision.decision, decision.rows, decision.champion) == ("blocked", 0, None)
    assert f"the champion, version 1, does not know 0 of {data.rows.test} test rows" in decision.reason


@pytest.mark.parametrize("model", WITH_TEST_ROWS, ids=lambda folder: folder.name)
def test_the_gate_compares_it_as_champion_on_its_own_test_rows(
    spark: SparkSession, model: Path, tmp_path: Path
) -> None:
    decision, data = judged(spark, model, tmp_path)
    assert decision.rows == data.rows.test
    assert (decision.decision, decision.candidate) == ("rejected", decision.champion)


def test_a_model_with_a_function_outside_the_list_scores_files_on_request_only(
    spark: SparkSession, tmp_path: Path
) -> None:
    rows, answers = expected(UNLISTED_FUNCTION)
    file, output, uri = tmp_path / "rows.csv", str(tmp_path / "out"), f"sqlite:///{tmp_path / 'mlflow.db'}"
    write_csv(file, rows)
    registered(UNLISTED_FUNCTION, tmp_path, uri)
    champion = "models:/penguins@champion"
    arguments = champion, [str(file)], output, "parquet", uri
    with pytest.raises(UserError, match=r"the function 'array_position' is not allowed.*add --trust-model to score"):
        predict.predict_files(*arguments)
    assert predict.predict_files(*arguments, trust_model=True)["rows"]["read"] == len(rows)
    scored = [row.asDict() for row in spark.read.parquet(output).coalesce(1).collect()]
    in_files = [{name: row[name] for name in answers[0]} for row in scored]
    assert_same(in_files[:-1], answers[:-1])
    # of the unknown island: for Spark its place is 0, for the model's own code it is missing
    assert (in_files[-1]["reason"], answers[-1]["reason"]) == (
        "Island: 'Atlantis' was never seen in training",
        "IslandPlace is missing",
    )
    assert_same([predict.predict_row(champion, json.dumps(row), uri) for row in rows], answers)


def test_a_champion_with_a_function_outside_the_list_blocks_the_gate_until_it_is_trusted(
    spark: SparkSession, tmp_path: Path
) -> None:
    config = load_config(PENGUINS, [f"run.work_dir={tmp_path}"])
    uri = store.tracking_uri(config)
    store.open_store(config, uri)()
    registered(UNLISTED_FUNCTION, tmp_path, uri)
    prepared = shards.prepare_data(spark, config, 2)
    model = PACKAGED_MODELS[-1]
    weights = (model / "artifacts" / "model" / "weights.safetensors").read_bytes()
    run_id = runs.start_run(config, uri)
    model_uri = package.log_model(config, prepared.manifest, prepared.resolved, Trained(weights), uri, run_id)
    data = prepared.manifest
    run = runs.LoggedRun(run_id, model_uri, measured(spark, config, data, model_uri, uri), data)

    blocked = gate.judge_candidate(spark, config, uri, run)
    assert blocked.decision == "blocked"
    assert "'array_position' is not allowed" in blocked.reason
    assert "run jobs/gate.py with --trust-model to compare with it all the same" in blocked.reason
    judged = gate.judge_candidate(spark, config, uri, run, trust_model=True)
    assert judged.reason.startswith(f"the champion, version 1, does not know 0 of {data.rows.test} test rows")
