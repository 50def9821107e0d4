"""A field's text has one value: in the preparation, in a packaged model, and it is refused in both or in neither."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conftest import UseCase
from dialect.texts import SCHEMA, SQL, TYPES, as_csv, rows_of
from pipeline.config import Config
from pipeline.data import catalyst, features_sql, source_csv
from pipeline.data.quarantine import write_quarantine
from pipeline.data.specs import missing_texts
from pipeline.model.features import RawFeatures
from pipeline.runtime.errors import UserError


def in_spark(spark: SparkSession, config: Config) -> tuple[list[dict[str, Any]], list[bool]]:
    """Return what Spark makes of each record by features.sql, and whether the record fits."""
    records = source_csv.read_records(spark, config)
    sql = features_sql.select_more(config.features_sql, f"{source_csv.CORRUPT} IS NULL AS fits")
    made = catalyst.select(spark, records.frame, sql)
    rows = [row.asDict() for row in made.coalesce(1).collect()]
    return rows, [row["fits"] for row in rows]


def in_process(spark: SparkSession, config: Config, rows: list[dict[str, Any]]) -> tuple[pd.DataFrame, list[Any]]:
    resolved = features_sql.resolve(spark, config)
    features, reasons = RawFeatures(resolved.raw, missing_texts(config), resolved.features).run(pd.DataFrame(rows))
    return features, reasons.tolist()


@pytest.mark.parametrize("options", [{}, {"nullValue": "NA"}, {"nullValue": "0"}], ids=["", "NA", "0"])
def test_a_text_is_read_alike_in_files_and_in_process(
    spark: SparkSession, use_case: UseCase, options: dict[str, str]
) -> None:
    rows = rows_of(4_000, seed=len(options))
    source = {"path": "data.csv", "schema": SCHEMA, "options": options}
    config = use_case(as_csv(rows), SQL, source=source, features={"numeric": [], "categorical": [*TYPES]})
    spark_rows, fits = in_spark(spark, config)
    features, reasons = in_process(spark, config, rows)
    assert [reason is None for reason in reasons] == fits
    assert 0.3 < sum(fits) / len(fits) < 0.9
    for row, (theirs, fit) in enumerate(zip(spark_rows, fits, strict=True)):
        if fit:
            ours = {name: features[name].iloc[row] for name in TYPES}
            assert ours == {name: theirs[name] for name in TYPES}, rows[row]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("DECIMAL(10,2)", "62.5", "62.50"),
        ("DECIMAL(10,2)", "62,5", None),
        ("DECIMAL(10,2)", "62.555", None),
        ("INT", "3.0", "3"),
        ("INT", "3.7", None),
        ("INT", "1e3", None),
        ("INT", "1_000", None),
        ("INT", " 4", "4"),
        ("DOUBLE", " 4", "4.0"),
        ("DOUBLE", "1_000", None),
        ("DOUBLE", "62,5", None),
        ("BOOLEAN", "Yes", "true"),
        ("DATE", "2021-02-30", None),
        ("TIMESTAMP", "10:11:12", None),
        ("TIMESTAMP", "2021-03-05T10:11:12+02:00", "2021-03-05 08:11:12"),
    ],
)
def test_numbers_are_what_they_say_or_are_refused(
    spark: SparkSession, use_case: UseCase, kind: str, text: str, value: str | None
) -> None:
    source = {"path": "data.csv", "schema": f"v {kind}, y INT"}
    features = {"numeric": [], "categorical": ["v"]}
    config = use_case(None, "SELECT CAST(v AS STRING) AS v, y FROM raw", source=source, features=features)
    made, reasons = in_process(spark, config, [{"v": text, "y": 1}])
    assert made["v"].iloc[0] == value
    assert reasons == [None if value else f"v: '{text}' is not {kind}"]


def test_numbers_and_dates_of_other_sources_are_read_as_their_text(spark: SparkSession, use_case: UseCase) -> None:
    config = use_case(
        None, SQL, source={"path": "x", "schema": SCHEMA}, features={"numeric": [], "categorical": [*TYPES]}
    )
    row = {"t": 1, "h": 2.0, "i": 3.0, "l": 2**60, "f": 0.1, "d": 0.1, "m": 3.25, "n": 1, "s": 5.0, "b": True}
    row |= {"a": pd.Timestamp("2021-03-05").date(), "w": pd.Timestamp("2021-03-05T10:11:12.5Z")}
    made, reasons = in_process(spark, config, [row])
    assert reasons == [None]
    assert made.iloc[0].to_dict() == {
        "t": "1", "h": "2", "i": "3", "l": str(2**60), "f": "0.1", "d": "0.1", "m": "3.25",
        "n": "1.000000000000000000", "s": "5", "b": "true", "a": "2021-03-05", "w": "2021-03-05 10:11:12.5",
    }  # fmt: skip


def test_dates_by_a_pattern(spark: SparkSession, use_case: UseCase) -> None:
    texts = ["14/08/2021", "1/3/2021", "31/02/2021", "?", "", "2021-08-14", "14/08/2021 "]
    source = {"path": "data.csv", "schema": "a DATE, y INT", "options": {"dateFormat": "dd/MM/yyyy"}}
    features = {"numeric": [], "categorical": ["a"]}
    rows = [{"a": text, "y": "1"} for text in texts]
    config = use_case(as_csv(rows), "SELECT CAST(a AS STRING) AS a, y FROM raw", source=source, features=features)
    spark_rows, fits = in_spark(spark, config)
    made, reasons = in_process(spark, config, rows)
    assert [row["a"] for row in spark_rows] == made["a"].tolist() == ["2021-08-14", *[None] * 6]
    assert fits == [reason is None for reason in reasons] == [True, False, False, False, True, False, False]


def test_a_date_that_is_no_text_needs_no_pattern(spark: SparkSession, use_case: UseCase) -> None:
    options = {"dateFormat": "dd/MM/yyyy", "timestampFormat": "dd/MM/yyyy HH:mm"}
    source = {"path": "x", "schema": "a DATE, w TIMESTAMP, y INT", "options": options}
    sql = "SELECT CAST(a AS STRING) AS a, CAST(w AS STRING) AS w, y FROM raw"
    config = use_case(None, sql, source=source, features={"numeric": [], "categorical": ["a", "w"]})
    day, moment = pd.Timestamp("2021-03-05"), pd.Timestamp("2021-03-05T10:11:00+02:00")
    rows = [{"a": day.date(), "w": moment}, {"a": "05/03/2021", "w": "05/03/2021 08:11"}, {"a": day, "w": "2021"}]
    made, reasons = in_process(spark, config, rows)
    assert made["a"].tolist() == ["2021-03-05"] * 3
    assert made["w"].tolist() == ["2021-03-05 08:11:00"] * 2 + [None]
    assert reasons == [None, None, "w: '2021' is not TIMESTAMP"]


def test_a_column_that_no_feature_needs_must_fit_as_in_a_file(spark: SparkSession, use_case: UseCase) -> None:
    source = {"path": "x", "schema": "v INT, unused INT, y INT"}
    config = use_case(None, "SELECT v, y FROM raw", source=source, features={"numeric": ["v"], "categorical": []})
    _, reasons = in_process(spark, config, [{"v": "1", "unused": "x"}, {"v": "1", "unused": ""}])
    assert reasons == ["unused: 'x' is not INT", None]
    assert in_process(spark, config, [{"v": "1"}])[1] == [None]


def test_misfits_go_to_quarantine_with_their_text(spark: SparkSession, use_case: UseCase, tmp_path: Path) -> None:
    bad = {
        "62,5": '1,"62,5"', "62.555": "2,62.555", "3.7": "3.7,1", "inf": "4,1,inf", "x": "5,1,2,x",
        "fewer": "6,1", "1e": "7,1,1e", "quoted": '"say ""x""",1,1',
    }  # fmt: skip
    rows = "i,m,f\n1,2.5,3\n" + "\n".join(
        [bad["62,5"] + ",1", bad["62.555"] + ",1", bad["3.7"] + ",1", bad["inf"], bad["x"], bad["fewer"], bad["1e"],
         bad["quoted"], "8,1,1d", ""]
    )  # fmt: skip
    config = use_case(
        rows, "SELECT i, m, f FROM raw", source={"path": "data.csv", "schema": "i INT, m DECIMAL(10,2), f FLOAT"}
    )
    assert write_quarantine(spark, config, str(tmp_path / "bad")) == 8
    lines = [line for part in (tmp_path / "bad").glob("*.json") for line in part.read_text().splitlines()]
    assert {(line["record"], line["reason"]) for line in map(json.loads, lines)} == {
        ('1,"62,5",1', "m: '62,5' is not DECIMAL(10,2)"),
        ("2,62.555,1", "m: '62.555' is not DECIMAL(10,2)"),
        ("3.7,1,1", "i: '3.7' is not INT"),
        ("4,1,inf", "f: 'inf' is not FLOAT"),
        ("5,1,2,x", "more than the 3 declared fields"),
        ("6,1", "fewer than the 3 declared fields"),
        ("7,1,1e", "f: '1e' is not FLOAT"),
        ('"say ""x""",1,1', "i: 'say \"x\"' is not INT"),
    }
    records = source_csv.read_records(spark, config)
    assert records.frame.where(F.col(source_csv.CORRUPT).isNotNull()).count() == 8


def test_wide_encodings_are_read_and_a_wrong_one_is_named(spark: SparkSession, use_case: UseCase) -> None:
    text = "a,k,y\n" + "".join(f"{i},é{i % 3},{i % 2}\n" for i in range(30))
    for encoding in ("utf-16", "utf-16-le", "latin-1"):
        options = {"encoding": {"latin-1": "ISO-8859-1", "utf-16-le": "UTF-16LE"}.get(encoding, encoding)}
        config = use_case(
            text.encode(encoding),
            source={"path": "data.csv", "schema": "a DOUBLE, k STRING, y INT", "options": options},
        )
        records = source_csv.read_records(spark, config)
        rows = records.good().collect()
        assert (len(rows), rows[1].k) == (30, "é1"), encoding
    wrong = use_case(text.encode("utf-16"))
    from pipeline.data.shards import prepare_data

    with pytest.raises(UserError, match=r"is not in the encoding that source.options.encoding says"):
        prepare_data(spark, wrong, 1)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"locale": "de-DE"}, "options.locale cannot be set: numbers and dates are written as in English"),
        ({"nanValue": "-"}, "options.nanValue cannot be set: one rule reads every text"),
        ({"nulValue": "-"}, "options.nulValue is not an option that is honoured; did you mean 'nullValue'?"),
        ({"mode": "FAILFAST"}, "options.mode cannot be set: source.bad_records decides that"),
    ],
)
def test_options_that_a_model_cannot_honour_are_refused(
    use_case: UseCase, options: dict[str, str], problem: str
) -> None:
    with pytest.raises(UserError, match=problem.replace("?", r"\?")):
        use_case("", source={"path": "data.csv", "schema": SCHEMA, "options": options})


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ("a ARRAY<INT>, k STRING, y INT", "declares 'a' as ARRAY<INT>; a field of a CSV can be STRING"),
        ("a BINARY, k STRING, y INT", "declares 'a' as BINARY"),
    ],
)
def test_types_that_a_field_cannot_have_are_refused(
    spark: SparkSession, use_case: UseCase, schema: str, problem: str
) -> None:
    config = use_case("", source={"path": "data.csv", "schema": schema})
    with pytest.raises(UserError, match=problem):
        features_sql.resolve(spark, config)
