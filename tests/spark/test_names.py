"""A column may be called as it likes: from the CSV through features.sql, the files, a rank and a model to an output."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from markupsafe import escape
from pyspark.sql import SparkSession

from conftest import UseCase, read_split, to_pandas
from datasets import an_epoch
from handmade import untrained_model
from pipeline import predict
from pipeline.config import Config
from pipeline.data import parity
from pipeline.data.manifest import Manifest
from pipeline.data.names import free, stored_names
from pipeline.data.packaged import load_scorer
from pipeline.data.source_csv import quoted
from pipeline.evaluation import figures, holdout, report
from pipeline.evaluation.metrics import Evaluation
from pipeline.training.loader import read_shard

NUMBERS = ["class", "a b", "x.y", "größe", "_x", "count", "f(x) = {y};,", "_corrupt_record", "tick`s", "user"]
CATEGORIES = ["type", "items", "split", "reason", "code", "Prediction", "probability_No"]
OTHERS = ["copies", "select", "_raw", "_metadata", "_source_file", "model_version", "_carried", "_feature_0", " blank "]
LABEL = "order by"
ROWS = 60


def cell(name: str, row: int) -> object:
    """Return a value; the rows of a category take three values, the label's two."""
    if name == LABEL:
        return ["No", "yes"][row % 2]
    if name in NUMBERS:
        return row + NUMBERS.index(name) / 8
    return ["x", "y", "z"][(row + len(name)) % 3]


def table(rows: int, *more: list[object]) -> str:
    names = [*NUMBERS, *CATEGORIES, *OTHERS, LABEL]
    text = io.StringIO()
    csv.writer(text).writerows([names, *([cell(name, row) for name in names] for row in range(rows)), *more])
    return text.getvalue()


def schema() -> str:
    return ", ".join(
        f"{quoted(n)} {'DOUBLE' if n in NUMBERS else 'STRING'}" for n in [*NUMBERS, *CATEGORIES, *OTHERS, LABEL]
    )


SETTINGS: dict[str, Any] = {
    "sql": f"SELECT {', '.join(map(quoted, [*NUMBERS, *CATEGORIES, LABEL]))} FROM raw",
    "features": {
        "numeric": NUMBERS,
        "categorical": [{"column": name, "encoding": "embedding"} for name in CATEGORIES],
    },
    "label": {"column": LABEL},
    "tracking": {"registered_model": "m"},
}


@pytest.mark.parametrize("sql", [SETTINGS["sql"], "SELECT * FROM raw"])
def test_any_name_goes_from_the_csv_to_an_output(
    spark: SparkSession, use_case: UseCase, tmp_path: Path, sql: str
) -> None:
    bad = ["not a number", *(cell(name, 0) for name in [*NUMBERS[1:], *CATEGORIES, *OTHERS, LABEL])]
    settings = SETTINGS | {"sql": sql, "source": {"path": "data.csv", "schema": schema()}}
    config = use_case(table(ROWS, bad), **settings)
    prepared = untrained_model(spark, config, tmp_path / "model")
    data = prepared.manifest
    assert (data.rows.read, data.rows.quarantined, data.rows.dropped) == (ROWS + 1, 1, 0)
    assert [*data.numeric] == NUMBERS
    assert [*data.vocabularies] == CATEGORIES
    assert parity.check_parity(config, prepared.resolved, prepared.folder) >= ROWS

    # a rank reads the values of every column
    shard = read_shard(prepared.folder, data, "train", 0, 1)
    rows = to_pandas(read_split(spark, prepared, "train"))
    assert list(rows.columns) == [*data.columns] == [*data.stored.values()]
    assert np.array_equal(
        np.sort(shard.features.numpy(), axis=0), np.sort(rows.iloc[:, :-1].to_numpy(np.float32), axis=0)
    )
    first = rows["column_0"].to_numpy()  # of `class`
    for position, name in enumerate(NUMBERS):
        assert np.allclose(rows.iloc[:, position], first + position / 8), name

    # the gate scores the raw rows with the packaged model
    packaged = tmp_path / "model" / "artifacts" / "model"
    measured = holdout.evaluate(spark, config, data, packaged, packaged)
    assert (measured.differences, measured.other_labels) == (None, 0)
    assert measured.candidate.refused == 0
    assert measured.paired.rows == data.rows.test
    assert measured.paired.candidate == measured.paired.reference == measured.candidate.metrics["accuracy"]

    source, output = tmp_path / "case" / "data.csv", tmp_path / "out"
    summary = predict.predict_files(str(tmp_path / "model"), [str(source)], str(output), "parquet", "sqlite:///none.db")
    assert summary["rows"] == {"read": ROWS + 1, "quarantined": 1, "predicted": ROWS, "refused": 0}
    names = {
        "reason": "input_reason",
        "Prediction": "input_Prediction",
        "probability_No": "input_probability_No",
        "model_version": "input_model_version",
    }
    assert summary["renamed"] == names
    scored = to_pandas(spark.read.parquet(str(output)))
    columns = [*NUMBERS, *CATEGORIES, *OTHERS, LABEL]
    outputs = ["prediction", "probability_No", "probability_yes", "reason", "model_version"]
    assert list(scored.columns) == [*(names.get(name, name) for name in columns), *outputs]
    scored = scored.sort_values("class", ignore_index=True)
    for name in columns:
        assert scored[names.get(name, name)].tolist() == [cell(name, row) for row in range(ROWS)], name
    (quarantined,) = spark.read.json(str(output / "_quarantine")).collect()
    assert quarantined.reason == "class: 'not a number' is not DOUBLE"
    assert quarantined.file.endswith("/data.csv")

    # without Spark
    from pipeline.model.scorer import Scorer

    frame = pd.DataFrame([{name: cell(name, row) for name in columns} for row in range(ROWS)])
    answers = Scorer(packaged).predict(frame)
    assert answers["prediction"].tolist() == scored["prediction"].tolist()
    assert answers["probability_yes"].tolist() == pytest.approx(scored["probability_yes"].tolist(), abs=1e-6)


CLASSES = ["", "$5 to $10", "A b", "a.b/c", "class", "tick`s", 'x,"y"=', "Yes", "yes", "ÄÖ", "äö"]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_classes_may_have_any_names(
    spark: SparkSession, use_case: UseCase, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([["a", "y"], *([row, CLASSES[row % len(CLASSES)]] for row in range(20 * len(CLASSES)))])
    config = use_case(
        text.getvalue(),
        sql="SELECT a, coalesce(y, '') AS y FROM raw",
        source={"path": "data.csv", "schema": "a DOUBLE, y STRING"},
        features={"numeric": ["a"], "categorical": []},
    )
    data = untrained_model(spark, config, tmp_path / "model").manifest
    assert data.label.classes == sorted(CLASSES)
    assert "differ in case only: ['Yes', 'yes', 'ÄÖ', 'äö']; map them in features.sql" in caplog.text
    packaged = tmp_path / "model" / "artifacts" / "model"
    evaluation = holdout.evaluate(spark, config, data, packaged, None).candidate
    assert [scores.name for scores in evaluation.classes] == sorted(CLASSES)
    assert all(scores.support for scores in evaluation.classes)
    for figure in figures_of(config, data, evaluation):
        assert "<svg" in figure

    source, output = str(tmp_path / "case" / "data.csv"), str(tmp_path / "out")
    summary = predict.predict_files(str(tmp_path / "model"), [source], output, kind, "sqlite:///none.db")
    assert summary["renamed"] == {"probability_yes": "probability_yes_2", "probability_äö": "probability_äö_2"}
    reader = spark.read.options(header=True, escape='"', inferSchema=True)
    scored = to_pandas(reader.csv(output) if kind == "csv" else spark.read.parquet(output)).sort_values("a")
    own = [f"probability_{name}" for name in data.label.classes]
    assert [*scored.columns[3:-2]] == [summary["renamed"].get(name, name) for name in own]
    answers = load_scorer(packaged).predict(scored[["a", "y"]])
    assert np.allclose(scored[scored.columns[3:-2]].to_numpy(float), answers[own].to_numpy(float), atol=1e-6)
    assert scored["prediction"].fillna("").tolist() == answers["prediction"].tolist()


def figures_of(config: Config, data: Manifest, evaluation: Evaluation) -> list[str]:
    """Return the figures that show classes, and the report's page, which needs curves of a training as well."""
    run = report.TrainedRun("names", "0", data, config, [an_epoch(1)], 1, evaluation, evaluation, None, 1.0, 0.5, [])
    svg = {name: figures.as_svg(figure) for name, figure in report.draw(run).items()}
    page = report.render(run, None, None, {}, svg)
    assert all(str(escape(name)) in page for name in data.label.classes)
    return [*svg.values()]


def test_plain_names_are_stored_as_they_are() -> None:
    plain = ["Island", "größe", "count", "x1", "type"]
    assert stored_names(plain) == {name: name for name in plain}
    assert stored_names(["a b", "Column_0", "column_2", "split", "CODE"]) == {
        "a b": "column_0_2",
        "Column_0": "Column_0",
        "column_2": "column_2",
        "split": "column_3",
        "CODE": "column_4",
    }


def test_a_free_name_differs_in_more_than_case_and_is_not_in_the_text() -> None:
    assert free("_raw", ["a", "_RAW", "_raw_2"]) == "_raw_3"
    assert free("_raw", [], "SELECT _Raw FROM raw") == "_raw_2"
