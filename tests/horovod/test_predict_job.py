"""Batch scoring with Spark and one row without it, with the model of the main job."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from conftest import PENGUINS, ROOT, to_pandas
from pipeline import predict
from pipeline.model.scorer import Scorer
from pipeline.runtime.errors import UserError
from submitting import LAB_PENGUIN, Penguins

Model = tuple[str, str]


@pytest.fixture(scope="module")
def model(penguins: Penguins) -> Model:
    """Return the model's URI and its store's."""
    return penguins.ran.summary["model_uri"], f"sqlite:///{penguins.work_dir / 'mlflow.db'}"


def test_files_are_scored_as_the_model_scores_rows(
    spark: SparkSession, model: Model, model_folder: Path, tmp_path: Path
) -> None:
    uri, store = model
    lines = (PENGUINS.parent / "penguins.csv").read_text().splitlines()
    unlabelled = [line.rpartition(",")[0] for line in lines]  # new penguins have no species yet
    new = tmp_path / "new.csv.gz"
    new.write_bytes(gzip.compress("\n".join([*unlabelled, "Mars,50.4,15.3,200,5000", "Dream,abc,1,2,3"]).encode()))
    out = tmp_path / "out"
    summary = predict.predict_files(uri, [str(new)], str(out), "parquet", store)
    assert summary["rows"] == {"read": 346, "quarantined": 1, "predicted": 342, "refused": 3}
    assert summary["model_version"]

    scored = to_pandas(spark.read.parquet(str(out)))
    raw = list(pd.read_csv(PENGUINS.parent / "penguins.csv").columns[:-1])
    probabilities = ["probability_Adelie", "probability_Gentoo", "probability_Chinstrap"]
    assert list(scored.columns) == [*raw, "prediction", *probabilities, "reason", "model_version"]
    expected = Scorer(model_folder / "artifacts" / "model").predict(scored[raw])
    assert scored["prediction"].tolist() == expected["prediction"].tolist()
    assert scored["reason"].tolist() == expected["reason"].tolist()
    assert scored[probabilities].to_numpy() == pytest.approx(expected[probabilities].to_numpy(), abs=1e-6, nan_ok=True)
    assert scored["reason"].dropna().tolist()[-1] == "Island: 'Mars' was never seen in training"
    (bad,) = spark.read.json(str(out / "_quarantine")).collect()
    assert (bad.record, bad.reason) == ("Dream,abc,1,2,3", "CulmenLength: 'abc' is not DOUBLE")

    # again, to CSV, into the same folder: the earlier output is replaced, not mixed with
    summary = predict.predict_files(uri, [str(PENGUINS.parent / "penguins.csv")], str(out), "csv", store)
    assert summary["rows"] == {"read": 344, "quarantined": 0, "predicted": 342, "refused": 2}
    assert not list(out.glob("*.parquet"))
    assert not (out / "_quarantine").exists()
    assert spark.read.option("header", True).csv(str(out)).count() == 344


def test_mistakes_are_reported(spark: SparkSession, model: Model, tmp_path: Path) -> None:
    uri, store = model
    csv = str(PENGUINS.parent / "penguins.csv")
    lacking = tmp_path / "lacking.csv"
    lacking.write_text("Island,CulmenLength\nDream,1\n")
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.doc").write_text("years of work")
    for arguments, message in (
        (("models:/unknown/1", [csv], str(tmp_path / "o")), "model models:/unknown/1: cannot be loaded from"),
        ((uri, [str(tmp_path / "no.csv")], str(tmp_path / "o")), "Path does not exist"),
        ((uri, [str(lacking)], str(tmp_path / "o")), "has a header of 2 columns, but the schema declares 5"),
        ((uri, [str(lacking)], str(tmp_path)), "holds the input"),
        ((uri, [csv], str(other)), "holds files that are not an earlier output"),
        ((uri, [csv], str(other / "thesis.doc")), "is a file; name a folder"),
    ):
        with pytest.raises(UserError) as raised:
            predict.predict_files(*arguments, "parquet", store)
        assert message in str(raised.value)
    assert (other / "thesis.doc").exists()


def test_one_row_without_spark(model: Model, tmp_path: Path) -> None:
    uri, store = model
    environment = {name: value for name, value in os.environ.items() if name != "JAVA_HOME"}
    command = [
        sys.executable,
        "-W",
        "ignore",
        str(ROOT / "jobs" / "predict.py"),
        "--model",
        uri,
        "--tracking-uri",
        store,
    ]
    command += ["--row", json.dumps(LAB_PENGUIN)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["prediction"] == "Gentoo"
    assert "Spark" not in ran.stderr


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"Island": "Biscoe"}', "lacks CulmenLength, CulmenDepth, FlipperLength, BodyMass, which the model needs"),
        ("Biscoe, 50.4", "must be a JSON object"),
        ("[1]", "must be a JSON object"),
    ],
)
def test_an_invalid_row_is_reported(model: Model, row: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        predict.predict_row(model[0], row, model[1])
