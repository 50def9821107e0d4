"""Records that do not fit the schema go to quarantine with a reason; none is lost, none is read wrongly."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from conftest import PENGUINS, UseCase, csv_rows
from pipeline.config import load_config
from pipeline.data.shards import prepare_data
from pipeline.data.source_files import list_source
from pipeline.runtime.errors import UserError


def quarantined(folder: Path) -> list[dict[str, str]]:
    lines = [line for part in (folder / "quarantine").glob("*.json") for line in part.read_text().splitlines()]
    return [json.loads(line) for line in lines]


BAD = {
    "1,x,0,9": "more than the 3 declared fields",
    "1,x": "fewer than the 3 declared fields",
    "abc,x,0": "a: 'abc' is not DOUBLE",
    "1,x,1.5": "y: '1.5' is not INT",
    "1.5,x\0z,0": "holds a NUL character",
    "1,x,0\0": "holds a NUL character",
}


def test_bad_records_go_to_quarantine_with_file_record_and_reason(spark: SparkSession, use_case: UseCase) -> None:
    config = use_case(csv_rows(60) + "\n".join([*BAD, ""]), source={"max_quarantined": 0.1})
    prepared = prepare_data(spark, config, 2)
    rows = prepared.manifest.rows
    assert (rows.read, rows.quarantined, rows.dropped) == (60 + len(BAD), len(BAD), 0)
    assert rows.train + rows.validation + rows.test == 60
    bad_records = quarantined(Path(prepared.folder.path))
    assert {bad["record"]: bad["reason"] for bad in bad_records} == BAD
    assert {bad["file"] for bad in bad_records} == {f"file:{config.folder / 'data.csv'}"}


def test_a_bad_value_in_a_column_that_no_feature_uses_is_bad_too(spark: SparkSession, use_case: UseCase) -> None:
    config = use_case(csv_rows(40).replace("5.5,z", "oops,z"), features={"numeric": [], "categorical": ["k"]})
    assert prepare_data(spark, config, 1).manifest.rows.quarantined > 0


def test_bad_records_fail_names_the_first_and_leaves_no_data_set(spark: SparkSession, use_case: UseCase) -> None:
    config = use_case(
        csv_rows(60) + "abc,x,0\n",
        source={"path": "data.csv", "schema": "a DOUBLE, k STRING, y INT", "bad_records": "fail"},
    )
    message = r"1 of 61 records do not fit.*data\.csv: a: 'abc' is not DOUBLE; all are in"
    for _ in range(2):  # the second run does not take what the first has left for a data set
        with pytest.raises(UserError, match=message):
            prepare_data(spark, config, 2)


def test_rows_with_a_null_in_a_used_column_are_dropped_and_counted(spark: SparkSession, use_case: UseCase) -> None:
    missing = ["NaN,x,0", ",x,0", "1e300,x,0", "1,,0", "1,x,"]  # not a number, null, too large for float32
    features = {name: [{"column": c, "missing": "drop"}] for name, c in (("numeric", "a"), ("categorical", "k"))}
    config = use_case(csv_rows(60) + "\n".join(missing), features=features, source={"max_dropped": 0.1})
    manifest = prepare_data(spark, config, 2).manifest
    assert (manifest.rows.read, manifest.rows.quarantined, manifest.rows.dropped) == (65, 0, 5)
    assert manifest.dropped_by_column == {"a": 3, "k": 1, "y": 1}


@pytest.mark.parametrize(
    "csv",
    [
        csv_rows(60).replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + csv_rows(60).encode(),
        csv_rows(60).replace(",x,", ',"x, ""quoted""",').encode(),
    ],
    ids=["crlf", "bom", "quotes"],
)
def test_common_flavours_of_csv_are_read(spark: SparkSession, use_case: UseCase, csv: bytes) -> None:
    rows = prepare_data(spark, use_case(csv), 2).manifest.rows
    assert (rows.read, rows.quarantined, rows.dropped) == (60, 0, 0)


def test_folders_globs_lists_and_gz(spark: SparkSession, use_case: UseCase, tmp_path: Path) -> None:
    many = tmp_path / "case" / "many"
    many.mkdir(parents=True)
    (many / "1.csv").write_text(csv_rows(30))
    (many / "2.csv").write_text(csv_rows(31))
    (many / "3.csv.gz").write_bytes(gzip.compress(csv_rows(32).encode()))
    schema = "a DOUBLE, k STRING, y INT"
    for path, rows in (
        ("many", 93),
        ("many/*.csv", 61),
        (["many/1.csv", "many/3.csv.gz"], 62),
        (f"file://{many}/*.gz", 32),
    ):
        manifest = prepare_data(spark, use_case(None, source={"path": path, "schema": schema}), 2).manifest
        assert (manifest.rows.read, manifest.rows.quarantined) == (rows, 0), path


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("k,a,y", "has the header 'k' where source.schema has 'a'; the columns are in another order"),
        ("a,kk,y", "has the header 'kk' where source.schema has 'k'; did you mean 'k'?"),
        ("a,k,y,z", "has a header of 4 columns, but the schema declares 3"),
    ],
)
def test_a_header_that_differs_from_the_schema_is_reported(
    spark: SparkSession, use_case: UseCase, header: str, message: str
) -> None:
    with pytest.raises(UserError) as raised:
        prepare_data(spark, use_case(csv_rows(60, header)), 2)
    assert message in str(raised.value)
    assert "data.csv" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("a DOUBL, k STRING, y INT", "source.schema: is not valid Spark DDL"),
        ("a DOUBLE, A STRING, y INT", "source.schema: names column 'a' twice"),
    ],
)
def test_an_invalid_schema_is_reported(spark: SparkSession, use_case: UseCase, schema: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        prepare_data(spark, use_case(csv_rows(10), source={"path": "data.csv", "schema": schema}), 1)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoding": "latin-99"}, "source.options.encoding: 'latin-99' is not an encoding that Java knows"),
        ({"sep": ""}, "source.options: "),
    ],
)
def test_an_invalid_reader_option_is_reported(
    spark: SparkSession, use_case: UseCase, options: dict[str, str], message: str
) -> None:
    source = {"path": "data.csv", "schema": "a DOUBLE, k STRING, y INT", "options": options}
    with pytest.raises(UserError) as raised:
        prepare_data(spark, use_case(csv_rows(10), source=source), 1)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("csv", "label", "message"),
    [
        ("", {}, r"source\.path: every file in .*data\.csv is empty"),
        ("a,k,y\n", {}, r"'k' has no value in any usable row|'y' has no value in any usable row"),
        ("a,k,y\n", {"task": "regression"}, r"source\.path: there is no usable row in .*data\.csv \(0 read, 0 quar"),
    ],
    ids=["empty", "header only", "header only, regression"],
)
def test_a_source_without_rows_is_reported(
    spark: SparkSession, use_case: UseCase, csv: str, label: dict[str, str], message: str
) -> None:
    features = {"numeric": ["a"], "categorical": [] if label else ["k"]}
    with pytest.raises(UserError, match=message):
        prepare_data(spark, use_case(csv, features=features, label={"column": "y", **label}), 1)


def test_a_missing_source_is_reported(spark: SparkSession, use_case: UseCase) -> None:
    with pytest.raises(UserError, match=r"source\.path: Path does not exist: file:.*data\.csv"):
        prepare_data(spark, use_case(None), 1)


def test_the_fingerprint_follows_the_files(spark: SparkSession, use_case: UseCase) -> None:
    config = use_case(csv_rows(10))
    first = list_source(spark, config)
    assert list_source(spark, config) == first
    use_case(csv_rows(11))
    assert list_source(spark, config).fingerprint != first.fingerprint


def test_the_files_that_are_read_are_those_of_the_fingerprint(spark: SparkSession, use_case: UseCase) -> None:
    folder = use_case().folder / "landing" / "2021" / "03"
    folder.mkdir(parents=True)
    (folder / "A.CSV").write_text(csv_rows(30))
    (folder / "b.txt").write_text("something else")
    config = use_case(source={"path": "landing", "options": {"recursiveFileLookup": True, "pathGlobFilter": "*.CSV"}})
    first = prepare_data(spark, config, 1).manifest
    assert (first.source.files, first.rows.read) == (1, 30)
    (folder / "A.CSV").write_text(csv_rows(50))
    assert prepare_data(spark, config, 1).manifest.rows.read == 50
    later = use_case(source={"path": "landing", "options": {
        "recursiveFileLookup": True, "pathGlobFilter": "*.CSV", "modifiedBefore": "2020-06-01T13:00:00"}})  # fmt: skip
    with pytest.raises(UserError, match=r"source"):
        list_source(spark, later)


@pytest.mark.parametrize("name", ["[v2]", "{a,b}", "C#", "50% off", "what?", "données", "a*"])
def test_a_source_in_a_folder_of_any_name_is_read(spark: SparkSession, use_case: UseCase, name: str) -> None:
    folder = use_case().folder / name
    folder.mkdir()
    (folder / "data.csv").write_text(csv_rows(40))
    for path in (name, f"{name}/data.csv"):
        manifest = prepare_data(spark, use_case(source={"path": path}), 1).manifest
        assert (manifest.source.files, manifest.rows.read) == (1, 40)


@pytest.mark.parametrize(
    ("path", "files", "sentence"),
    [
        ("data.zip", ["data.zip"], "is an archive, and Spark reads none: unpack it"),
        ("data.tar.gz", ["data.tar.gz"], "is an archive, and Spark reads none: unpack it"),
        ("data", ["data/a.csv", "data/b.XLSX"], "is a spreadsheet: save it as CSV"),
        ("data.csv.xz", ["data.csv.xz"], "is packed in a way that Spark cannot unpack: pack it as .gz"),
        ("_x.csv", ["_x.csv"], "names begin with _ or a dot, such as .*_x.csv: give _x.csv another name"),
        ("data", ["data/_x.csv", "data/.y.csv"], "names begin with _ or a dot"),
        ("data", ["data/2021/x.csv"], "holds no file but only folders: name them, or set .*recursiveFileLookup"),
        ("https://example.org/x.csv", [], "is a web address, and Spark reads none: load the file down first"),
    ],
)
def test_files_that_spark_does_not_read_as_csv_are_named(
    spark: SparkSession, use_case: UseCase, path: str, files: list[str], sentence: str
) -> None:
    config = use_case(source={"path": path})
    for name in files:
        (config.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (config.folder / name).write_text(csv_rows(10))
    with pytest.raises(UserError, match=rf"source\.path: .*{sentence}"):
        list_source(spark, config)


def test_a_hidden_file_beside_others_is_told(
    spark: SparkSession, use_case: UseCase, caplog: pytest.LogCaptureFixture
) -> None:
    config = use_case(source={"path": "data"})
    (config.folder / "data").mkdir()
    for name in ("a.csv", "_more.csv"):
        (config.folder / "data" / name).write_text(csv_rows(10))
    assert list_source(spark, config).files == 1
    assert "1 file(s) are not read, as their names begin with _ or a dot: _more.csv" in caplog.text


def test_a_column_without_a_name_is_one_sentence_that_says_what_to_do(spark: SparkSession, use_case: UseCase) -> None:
    rows = "".join(f"{i},{row}\n" for i, row in enumerate(csv_rows(20).splitlines()[1:]))
    schema = {"schema": "i INT, a DOUBLE, k STRING, y INT"}
    with pytest.raises(UserError, match=r"without a name where source.schema has 'i' .*index=False"):
        prepare_data(spark, use_case(f",a,k,y\n{rows}", source=schema), 1)
    positions = use_case(f",a,k,y\n{rows}", source={**schema, "options": {"enforceSchema": True}})
    assert prepare_data(spark, positions, 1).manifest.rows.read == 20


def test_all_penguins_are_read(spark: SparkSession, tmp_path: Path) -> None:
    config = load_config(PENGUINS, [f"run.work_dir={tmp_path}"])
    rows = prepare_data(spark, config, 2).manifest.rows
    assert (rows.read, rows.quarantined, rows.dropped) == (344, 0, 2)
    assert rows.train + rows.validation + rows.test == 342
