"""What the job predict writes can be read again as it was, and it replaces only what it has written itself."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from conftest import UseCase
from handmade import untrained_model
from pipeline import predict
from pipeline.data import quarantine, scored_files
from pipeline.data.scored_files import MARKER, output_names
from pipeline.runtime.errors import UserError

SCHEMA = "id INT, text STRING, amount DOUBLE, day DATE, moment TIMESTAMP, flag BOOLEAN, y STRING"
SQL = "SELECT amount, trim(text) AS k, y FROM raw"
TEXTS = [
    'say "no"', '"', '""', " both ends ", "\t", "a,b", "two\nlines", "dos\r\nlines", "\\", '\\"', "\\,", "#5", "'",
    "Zoë", "\u2028", "NULL", "-", "null", "7", "1e3",
]  # fmt: skip
"""What other people's tables hold; the reader's `multiLine` is on for the line breaks."""


def as_csv(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def source_rows() -> list[list[object]]:
    return [
        [i, text, i + 0.1, f"2024-02-{i % 28 + 1:02}", f"2024-02-03T04:05:06.{i:06}Z", i % 2 == 0, "AB"[i % 2]]
        for i, text in enumerate(TEXTS * 3)
    ]


HEADER = ["id", "text", "amount", "day", "moment", "flag", "y"]


@pytest.fixture
def model(spark: SparkSession, use_case: UseCase, tmp_path: Path) -> str:
    """Return an untrained model of these rows; their CSV is ``case/data.csv``."""
    config = use_case(
        as_csv([HEADER, *source_rows()]),
        sql=SQL,
        source={"path": "data.csv", "schema": SCHEMA, "options": {"multiLine": True}},
        features={"numeric": ["amount"], "categorical": [{"column": "k", "unknown": "other"}]},
    )
    untrained_model(spark, config, tmp_path / "model")
    return str(tmp_path / "model")


def score(model: str, inputs: str | Path, output: str | Path, kind: str = "csv") -> dict[str, Any]:
    return predict.predict_files(model, [str(inputs)], str(output), kind, "sqlite:///none.db")


def test_csv_reads_back_as_it_was(spark: SparkSession, model: str, tmp_path: Path) -> None:
    source, output = tmp_path / "case" / "data.csv", tmp_path / "out"
    summary = score(model, source, output)
    assert summary["rows"]["predicted"] == len(source_rows())
    assert summary["renamed"] == {}

    # this project's reader
    types = (
        f"{SCHEMA}, prediction STRING, probability_A DOUBLE, probability_B DOUBLE, reason STRING, model_version STRING"
    )
    options: dict[str, str | bool] = {"header": True, "escape": '"', "multiLine": True}
    expected = spark.read.schema(SCHEMA).options(**options).csv(str(source)).orderBy("id").collect()
    scored = spark.read.schema(types).options(**options).csv(str(output)).orderBy("id").collect()
    assert [row[:7] for row in scored] == [tuple(row) for row in expected]
    assert {row["prediction"] for row in scored} <= {"A", "B"}
    assert all(row["probability_A"] + row["probability_B"] == pytest.approx(1) for row in scored)

    # Python's
    read: list[list[str]] = []
    for part in output.glob("part-*.csv"):
        with part.open(newline="", encoding="utf-8") as file:
            header, *lines = csv.reader(file)
        assert header == [*HEADER, "prediction", "probability_A", "probability_B", "reason", "model_version"]
        read += lines
    assert {len(line) for line in read} == {12}
    assert {int(line[0]): line[1] for line in read} == {int(str(row[0])): row[1] for row in source_rows()}


def test_success_comes_after_the_quarantine_whose_records_are_counted(
    spark: SparkSession, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = tmp_path / "new.csv", tmp_path / "out"
    source.write_text(as_csv([HEADER, *source_rows()[:10], ["x", *source_rows()[0][1:]]]))
    write = quarantine.write_quarantine

    def checked(*arguments: Any) -> int:
        assert not (output / "_SUCCESS").exists()
        return write(*arguments)

    monkeypatch.setattr(quarantine, "write_quarantine", checked)
    assert score(model, source, output)["rows"]["quarantined"] == 1
    assert (output / "_SUCCESS").exists()
    assert spark.read.json(str(output / "_quarantine")).count() == 1

    monkeypatch.setattr(quarantine, "write_quarantine", lambda *arguments: write(*arguments) + 1)
    with pytest.raises(UserError, match=r"changed while it was read \(1 records that do not fit, then 2\)"):
        score(model, source, output)
    assert not (output / "_SUCCESS").exists()
    # the next run replaces what the failed one has left
    monkeypatch.setattr(quarantine, "write_quarantine", write)
    assert score(model, source, f"file://{output}/", "parquet")["rows"]["read"] == 11
    assert json.loads((output / MARKER).read_text())["format"] == "parquet"
    assert not list(output.glob("*.csv"))
    assert spark.read.parquet(str(output)).count() == 10


def check(spark: SparkSession, output: str | Path, *inputs: str | Path) -> None:
    scored_files.check_output(spark, scored_files.spark_path(str(output)), [str(path) for path in inputs])


def test_an_output_that_holds_an_input_is_refused_however_both_are_spelled(spark: SparkSession, tmp_path: Path) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    for folder in (data / "in", other):
        folder.mkdir(parents=True)
    (data / "in" / "a.csv").write_text("a\n1\n")
    (tmp_path / "link").symlink_to(data)
    (other / "b.csv").symlink_to(data / "in" / "a.csv")
    for output, given in (
        (data / "in", data / "in"),
        (f"file:{data}/in", data / "in"),
        (f"file://{data}/in/", f"{data}/in"),
        (data, f"file://{data}/in/a.csv"),
        (f"{data}//in/../", data / "in" / "a.csv"),
        (tmp_path / "link" / "in", f"{data}/in/*.csv"),
        (data, f"{tmp_path}/l*/in"),
        (data / "in", f"{tmp_path}/link/*/a.csv"),
        (data / "in", other),  # through a link to a file
        (data / "in" / "below", data / "in"),
        (f"file:{data}/in/below/", f"{tmp_path}/*/in"),
        (data / "in" / "a.csv", data / "in" / "a.csv"),
    ):
        with pytest.raises(UserError, match=r"(holds|lies in) the input .*; name another folder"):
            check(spark, output, given)
    check(spark, data / "in" / "below", data / "in" / "*.csv")  # no such file is below
    check(spark, tmp_path / "data2", data)  # a name that only begins alike
    assert (data / "in" / "a.csv").exists()


@pytest.mark.parametrize(
    ("uri", "other"),
    [
        ("s3a://bucket/a/b", "s3://Bucket//a/x/../b/"),
        ("abfss://c@store.dfs.core.windows.net/a", "abfs://c@store.dfs.core.windows.net/a/."),
        ("dbfs:/a/b", "file:///dbfs/a/b"),
        ("dbfs:/Volumes/c/s/v", "file:/Volumes/c/s/v/"),
        ("hdfs://name:8020/a", "HDFS://NAME:8020//a"),
    ],
)
def test_one_place_of_a_store_is_known_by_all_spellings(uri: str, other: str) -> None:
    assert scored_files.place_of(uri) == scored_files.place_of(other)
    assert scored_files.place_of(uri) != scored_files.place_of(f"{other.rstrip('./')}2")


def test_only_what_this_job_has_written_is_replaced(spark: SparkSession, tmp_path: Path) -> None:
    source, output = tmp_path / "a.csv", tmp_path / "out"
    source.write_text("a\n1\n")
    output.mkdir()
    check(spark, output, source)  # an empty folder is nobody's
    for names, problem in (
        (["thesis.doc"], "holds files that are not an earlier output"),
        (["_SUCCESS", "part-0.csv"], f"older version of this job.* but no {MARKER}; delete it if nobody needs it"),
        ([MARKER, "_SUCCESS", "part-0.csv", "thesis.doc"], "holds 'thesis.doc', which this job has not written"),
    ):
        for name in names:
            (output / name).touch()
        for spelled in (output, f"file:{output}", f"file://{output}/", os.path.relpath(output)):
            with pytest.raises(UserError, match=problem):
                check(spark, spelled, source)
        for name in names:
            (output / name).unlink()
    (output / MARKER).touch()
    (output / "part-0.csv").touch()
    check(spark, output, source)
    (output / MARKER).unlink()
    with pytest.raises(UserError, match="is a file; name a folder"):
        check(spark, output / "part-0.csv", source)
    with pytest.raises(UserError, match=r"cannot be used: .*No FileSystem for scheme"):
        check(spark, "nowhere://x/y", source)


@pytest.mark.parametrize(
    ("raw", "classes", "expected_raw", "expected_probabilities"),
    [
        (["a", "Reason"], ["x"], ["a", "input_Reason"], ["x"]),
        (["prediction", "input_prediction"], [], ["input_input_prediction", "input_prediction"], []),
        (["probability_X"], ["x", "y"], ["input_probability_X"], ["x", "y"]),
        (["a"], ["Yes", "yes", "YES", "yes_2"], ["a"], ["Yes", "yes_3", "YES_4", "yes_2"]),
    ],
)
def test_names_of_outputs(
    raw: list[str], classes: list[str], expected_raw: list[str], expected_probabilities: list[str]
) -> None:
    added = ["prediction", *(f"probability_{name}" for name in classes), "reason", "model_version"]
    names = output_names(raw, added)
    assert names.raw == expected_raw
    assert names.added == ["prediction", *(f"probability_{n}" for n in expected_probabilities), *added[-2:]]
    assert {old: new for old, new in names.renamed.items() if old in raw} == {
        old: new for old, new in zip(raw, expected_raw, strict=True) if old != new
    }
