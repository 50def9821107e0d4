"""One model, random rows over all types: training, files, HTTP and `--row` give the same or refuse the same."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from pyspark.sql import SparkSession

from conftest import OLD_MLFLOW, ROOT, to_pandas
from dialect.texts import SCHEMA, as_csv, rows_of
from pipeline import predict, train
from pipeline.config import load_config
from pipeline.data import prepare, source_csv
from pipeline.data.packaged import load_scorer
from pipeline.data.split import Sides
from pipeline.model.scorer import Scorer
from pipeline.tracking.registry import fetched_model
from submitting import free_port, model_server

SQL = """
SELECT coalesce(t % 7, 0) + coalesce(h, 1) AS small, coalesce(CAST(i AS DOUBLE), -1) AS whole,
       coalesce(pmod(l, 1000), 3) AS rest, coalesce(f, 0) AS f, coalesce(round(d, 2), 0) AS d,
       coalesce(m, 0) + coalesce(abs(n), 0) AS money, coalesce(month(a), 13) AS month,
       coalesce(hour(w) * 60 + minute(w), -5) AS minutes, coalesce(length(trim(s)), 0) AS letters,
       CASE WHEN b THEN 'yes' WHEN NOT b THEN 'no' ELSE 'none' END AS answer,
       coalesce(upper(substring(s, 1, 1)), '-') AS initial, y
FROM raw -- and nothing else
"""
NUMERIC = ["small", "whole", "rest", "f", "d", "money", "month", "minutes", "letters"]


@dataclass(frozen=True)
class Trained:
    """A model that was trained on such rows."""

    config_file: Path
    uri: str
    model_uri: str
    scorer: Scorer


@pytest.fixture(scope="module")
def trained(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("everywhere")
    (folder / "data.csv").write_text(as_csv(rows_of(600, seed=1)))
    (folder / "features.sql").write_text(SQL)
    settings = {
        "source": {"path": "data.csv", "schema": SCHEMA, "max_quarantined": 1},
        "features": {
            "numeric": NUMERIC,
            "categorical": ["answer", {"column": "initial", "unknown": "refuse"}],
        },
        "label": {"column": "y"},
        "model": {"preset": "none"},
        "training": {"epochs": 2},
        "run": {"work_dir": str(folder / "work"), "num_proc": 1},
    }
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(settings))
    summary = train.train(str(folder / "pipeline.yaml"))
    uri = f"sqlite:///{folder / 'work' / 'mlflow.db'}"
    with fetched_model(summary["model_uri"], uri) as (model, _):
        scorer = load_scorer(model)
    return Trained(folder / "pipeline.yaml", uri, summary["model_uri"], scorer)


@pytest.fixture(scope="module")
def address(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [sys.executable, str(ROOT / "jobs" / "serve.py"), "--model", trained.model_uri, "--port", str(port)]
    with model_server([*command, "--tracking-uri", trained.uri], port, log) as server:
        yield f"http://{server}/invocations"


@pytest.mark.parametrize("number", [3_000, pytest.param(50_000, marks=[pytest.mark.more, pytest.mark.timeout(1_500)])])
def test_every_way_gives_the_same_answer_or_the_same_refusal(
    spark: SparkSession, trained: Trained, address: str, tmp_path: Path, number: int
) -> None:
    rows = rows_of(number, seed=2)
    file = tmp_path / "rows.csv"
    file.write_text(as_csv(rows))
    row_by_row = trained.scorer.predict(pd.DataFrame(rows, dtype=object))
    misfit = row_by_row["reason"].str.contains(" is not ", na=False)
    refused = row_by_row["reason"].notna() & ~misfit

    # files: the same rows in the same order, and the misfits in quarantine
    summary = predict.predict_files(trained.model_uri, [str(file)], str(tmp_path / "out"), "parquet", trained.uri)
    assert summary["rows"] == {
        "read": number, "quarantined": int(misfit.sum()), "predicted": int((~misfit & ~refused).sum()),
        "refused": int(refused.sum()),
    }  # fmt: skip
    columns = ("prediction", "probability_0", "probability_1", "reason")
    scored = to_pandas(spark.read.parquet(str(tmp_path / "out")).select(*columns).coalesce(1))
    assert_same(scored, row_by_row[~misfit])

    # training: the features that Spark writes for the ranks
    config = load_config(trained.config_file, [f"source.path={file}"])
    typed = prepare.typed_rows(spark, config, source_csv.read_records(spark, config).good(), Sides(config.split))
    theirs = to_pandas(typed.frame.coalesce(1))
    ours, _ = trained.scorer.features(pd.DataFrame(rows, dtype=object)[~misfit])
    for name in NUMERIC:
        assert np.array_equal(_as_float32(theirs[name]), _as_float32(ours[name]), equal_nan=True), name
    for name in ("answer", "initial"):
        assert theirs[name].tolist() == ours[name].tolist()

    if not OLD_MLFLOW:  # its signatures know no `any`: a bad value refuses the whole batch
        answers = [a for start in range(0, number, 1000) for a in post(address, rows[start : start + 1000])]
        assert_same(pd.DataFrame(answers), row_by_row)
    print(f"{number} rows: {(~misfit & ~refused).sum()} predicted, {refused.sum()} refused, {misfit.sum()} misfits")


@pytest.mark.parametrize("number", [2, pytest.param(50, marks=[pytest.mark.more, pytest.mark.timeout(1_500)])])
def test_the_command_line_gives_the_same_answer(trained: Trained, number: int) -> None:
    rows = rows_of(number, seed=3)
    expected = trained.scorer.predict(pd.DataFrame(rows, dtype=object)).to_dict("records")
    command = [sys.executable, str(ROOT / "jobs" / "predict.py"), "--model", trained.model_uri]
    for row, right in zip(rows, expected, strict=True):
        options = ["--row", json.dumps(as_numbers(row)), "--tracking-uri", trained.uri]
        ran = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120, check=True)
        assert_same(pd.DataFrame([json.loads(ran.stdout.splitlines()[-1])]), pd.DataFrame([right]))


def as_numbers(row: dict[str, str]) -> dict[str, Any]:
    """Return a row as JSON would hold it: whole numbers as numbers."""
    return {name: int(text) if text.isascii() and text.isdigit() and text == str(int(text)) else text
            for name, text in row.items()}  # fmt: skip


def post(address: str, rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    body = json.dumps({"dataframe_records": [as_numbers(row) for row in rows]}).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        predictions: list[dict[str, Any]] = json.loads(answer.read())["predictions"]
        return predictions


def assert_same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Compare answers; a matrix of one row is multiplied in another order than one of a thousand."""
    assert len(one) == len(other)
    for name in ("prediction", "reason"):
        assert [_plain(v) for v in one[name]] == [_plain(v) for v in other[name]]
    for name in ("probability_0", "probability_1"):
        assert one[name].to_numpy(float) == pytest.approx(other[name].to_numpy(float), abs=1e-5, nan_ok=True)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _as_float32(values: pd.Series) -> Any:
    with np.errstate(over="ignore"):
        small = values.to_numpy(np.float64).astype(np.float32)
    return np.where(np.isfinite(small), small, np.nan)
