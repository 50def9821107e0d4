"""`make serve` answers raw rows over HTTP as batch scoring does, and names what is wrong with other input."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from conftest import OLD_MLFLOW, PENGUINS, ROOT, to_pandas
from pipeline import predict
from submitting import LAB_PENGUIN, Penguins, free_port, model_server

Post = Callable[[Any], tuple[int, Any]]


@pytest.fixture(scope="module")
def store(penguins: Penguins) -> str:
    return f"sqlite:///{penguins.work_dir / 'mlflow.db'}"


@pytest.fixture(scope="module")
def address(store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of the server that `make serve` starts."""
    port = free_port()
    log = tmp_path_factory.mktemp("serve") / "log"
    with model_server(["make", "-s", "serve", f"PORT={port}", f"STORE={store}"], port, log) as server:
        yield server


@pytest.fixture(scope="module")
def post(address: str) -> Post:
    """Return a function that posts a body and returns the server's status and answer."""

    def send(body: Any) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        url, headers = f"http://{address}/invocations", {"Content-Type": "application/json"}
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as answer:
                return answer.status, json.loads(answer.read(), parse_constant=pytest.fail)  # NaN is not JSON
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return send


def test_the_command_of_the_page_is_answered(address: str) -> None:
    page = (ROOT / "pipeline" / "tracking" / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^curl [^`]*", page, flags=re.MULTILINE)
    words = ["bash", "-ec", command.replace("127.0.0.1:5000", address)]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(ran.stdout)["predictions"][0]["prediction"] == "Gentoo"


def test_both_formats_of_rows_get_the_answers_of_batch_scoring(
    spark: SparkSession, store: str, post: Post, tmp_path: Path
) -> None:
    raw = pd.read_csv(PENGUINS.parent / "penguins.csv").drop(columns="Species")
    rows = json.loads(raw.to_json(orient="split"))
    assert post({"dataframe_records": [LAB_PENGUIN]})[1]["predictions"][0]["prediction"] == "Gentoo"
    _, split = post({"dataframe_split": {"columns": rows["columns"], "data": rows["data"]}})
    _, records = post({"dataframe_records": json.loads(raw.to_json(orient="records"))})

    csv = str(PENGUINS.parent / "penguins.csv")
    summary = predict.predict_files("models:/penguins@champion", [csv], str(tmp_path / "out"), "parquet", store)
    assert summary["model_version"] == "1"
    batch = to_pandas(spark.read.parquet(str(tmp_path / "out"))).drop(columns=["Species", "model_version"])
    for answer in (split, records):
        online = pd.DataFrame(answer["predictions"])
        assert list(online.columns) == [name for name in batch.columns if name not in raw.columns]
        for name in ("prediction", "reason"):
            assert online[name].tolist() == batch[name].tolist()
        for name in online.columns[1:-1]:
            assert online[name].to_numpy(float) == pytest.approx(batch[name].to_numpy(float), abs=1e-6, nan_ok=True)
    assert batch["reason"].notna().sum() == 2


@pytest.mark.skipif(OLD_MLFLOW, reason="MLflow 2 has no type `any`: a bad value refuses the whole batch")
def test_a_bad_value_is_refused_with_a_reason_and_valid_json(post: Post) -> None:
    rows = [{**LAB_PENGUIN, "BodyMass": "heavy"}, LAB_PENGUIN, {**LAB_PENGUIN, "Island": 7}]
    status, answer = post({"dataframe_records": [*rows, {**LAB_PENGUIN, "Island": None}]})
    assert status == 200
    bad, good, *others = answer["predictions"]
    assert [other["reason"] for other in others] == ["Island: '7' was never seen in training", "Island is missing"]
    assert bad["prediction"] is bad["probability_Gentoo"] is None
    assert bad["reason"] == "BodyMass: 'heavy' is not DOUBLE"
    assert good["prediction"] == "Gentoo"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"dataframe_records": [{"Island": "Biscoe"}]}, "missing inputs ['CulmenLength', 'CulmenDepth'"),
        ({"dataframe_split": {"columns": ["Island"], "data": [["a", "b"]]}}, "1 columns passed, passed data had 2"),
        ({"rows": [LAB_PENGUIN]}, "exactly one of the input fields"),
        (b"Biscoe, 50.4", "valid JSON"),
    ],
)
def test_malformed_input_is_a_client_error_with_a_message(post: Post, body: Any, sentence: str) -> None:
    status, answer = post(body)
    assert 400 <= status < 500
    assert sentence in answer


def test_a_model_that_is_not_there_is_one_sentence(store: str) -> None:
    from conftest import ROOT

    ran = subprocess.run(
        ["make", "-s", "serve", "MODEL=models:/unknown@champion", f"STORE={store}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "error: model models:/unknown@champion: cannot be loaded from" in ran.stderr
    assert "Traceback" not in ran.stderr
