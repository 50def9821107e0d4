"""Hostile input gives the right result, or one sentence that names what is wrong."""

from __future__ import annotations

import gzip
import hashlib
import json
import pickle
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from conftest import UseCase, csv_rows
from pipeline.config import Config
from pipeline.data import shards
from pipeline.data.manifest import Manifest
from pipeline.runtime import lock
from pipeline.runtime.errors import RowAccountingError, StorageError, UserError
from pipeline.runtime.storage import Folder
from pipeline.training.loader import read_shard

pytestmark = pytest.mark.fault("hostile input")
HEADER = "a,k,y\n"
ROWS = csv_rows(60)
DROPPING = {name: [{"column": c, "missing": "drop"}] for name, c in (("numeric", "a"), ("categorical", "k"))}
PACKED = gzip.compress(csv_rows(5000).encode())


@pytest.mark.parametrize(
    ("csv", "sentence"),
    [
        ("", "every file in .* is empty"),
        (HEADER, "has no value in any usable row"),
        (HEADER + "1.5,x,1\n", "left no validation row of 1 usable rows"),
        (HEADER + "".join(f"{i},x,1\n" for i in range(30)), "'y' has one value only, 1: there is nothing to learn"),
        (HEADER + ",x,1\n,x,0\n" * 9, "has no value in any usable row"),
        ("a,a,k,y\n1,1,x,1\n", "has a header of 4 columns, but the schema declares 3"),
    ],
    ids=["empty", "header only", "one row", "one class", "all null", "column twice"],
)
def test_a_source_without_anything_to_learn_is_one_sentence(
    spark: SparkSession, use_case: UseCase, csv: str, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        shards.prepare_data(spark, use_case(csv, features=DROPPING), 2)


@pytest.mark.parametrize(
    ("csv", "read", "quarantined", "dropped"),
    [
        (ROWS + "1e308,x,1\n-1e308,y,0\n", 62, 0, 2),  # no float32
        (ROWS + "NaN,x,1\nInfinity,y,0\n", 62, 0, 2),
        (ROWS + "5e-324,x,1\n1e-45,y,0\n", 62, 0, 0),
        ("\ufeff" + ROWS, 60, 0, 0),
        (ROWS.replace("\n", "\r\n"), 60, 0, 0),
        (ROWS + "3," + "q" * 1_000_000 + ",1\n", 61, 0, 0),
        (ROWS.encode() + "3,é,1\n".encode("latin-1"), 61, 1, 0),
        (ROWS + "3,x\0y,1\n", 61, 1, 0),
        (ROWS + '3,"x\ny",1\n', 62, 2, 0),  # each half is a record that does not fit, without multiLine
        (ROWS + "3,x,1,4\n3,x\n", 62, 2, 0),
    ],
    ids=["1e308", "nan", "subnormal", "bom", "crlf", "1 MB", "latin-1", "nul", "newline", "fields"],
)
def test_odd_records_are_read_right_or_quarantined(
    spark: SparkSession, use_case: UseCase, csv: str | bytes, read: int, quarantined: int, dropped: int
) -> None:
    rows = shards.prepare_data(spark, use_case(csv, features=DROPPING), 2).manifest.rows
    assert (rows.read, rows.quarantined, rows.dropped) == (read, quarantined, dropped)


def test_records_that_reader_options_make_readable_are_read(spark: SparkSession, use_case: UseCase) -> None:
    features = {"numeric": ["a"], "categorical": [{"column": "k", "min_count": 1}]}
    latin = use_case(
        ROWS.encode() + "3,é,1\n".encode("latin-1"),
        features=features,
        source={"options": {"encoding": "latin1"}},
        split={"validation_fraction": 0.1},
    )
    assert "é" in shards.prepare_data(spark, latin, 2).manifest.vocabularies["k"]
    lines = use_case(ROWS + '3,"x\ny",1\n', source={"options": {"multiLine": True}}, split={"validation_fraction": 0.1})
    assert shards.prepare_data(spark, lines, 2).manifest.rows.quarantined == 0


def test_a_class_of_validation_rows_alone_and_a_constant_column_are_no_errors(
    spark: SparkSession, use_case: UseCase
) -> None:
    rows = "".join(f"{i},x,{int(i == 3)}\n" for i in range(20))
    manifest = shards.prepare_data(spark, use_case(HEADER + rows, split={"seed": 1}), 2).manifest
    assert manifest.label.classes == ["0", "1"]
    constant = use_case(HEADER + "".join(f"7,k{i % 30},{i % 2}\n" for i in range(60)))
    stats = shards.prepare_data(spark, constant, 2).manifest.numeric["a"]
    assert (stats.mean, stats.std) == (7.0, 0.0)


@pytest.mark.parametrize(
    "packed",
    [PACKED[: len(PACKED) // 2], b"a,k,y\n1,x,1\n", PACKED[:3000] + b"xxxx" + PACKED[3004:]],
    ids=["cut in half", "not packed", "altered"],
)
def test_a_damaged_gz_is_named(spark: SparkSession, use_case: UseCase, packed: bytes) -> None:
    config = use_case(source={"path": "data.csv.gz"})
    (config.folder / "data.csv.gz").write_bytes(packed)
    with pytest.raises(UserError, match=r"source.path: file:/.*data.csv.gz is cut off or damaged"):
        shards.prepare_data(spark, config, 2)


def test_sql_in_a_column_name_is_only_a_name(spark: SparkSession, use_case: UseCase) -> None:
    schema = "`a; drop` DOUBLE, k STRING, y INT"
    config = use_case(
        ROWS.replace("a,k,y", "a; drop,k,y"), sql="SELECT `a; drop` AS a, k, y FROM raw", source={"schema": schema}
    )
    assert shards.prepare_data(spark, config, 2).manifest.rows.train > 0
    as_feature = use_case(ROWS, sql="SELECT k, y, 1.0 AS `a; drop` FROM raw", features={"numeric": ["a; drop"]})
    assert shards.prepare_data(spark, as_feature, 2).manifest.rows.train > 0


def test_too_many_columns_are_an_error_before_spark_plans_for_hours(spark: SparkSession, use_case: UseCase) -> None:
    names = [f"c{i}" for i in range(10_000)]
    schema = ", ".join(f"{name} DOUBLE" for name in names)
    config = use_case(",".join(names), source={"schema": schema + ", y INT"})
    with pytest.raises(UserError, match=r"source\.schema: declares 10001 columns"):
        shards.prepare_data(spark, config, 2)


def test_a_source_that_grows_while_it_is_read_is_an_error(spark: SparkSession, use_case: UseCase) -> None:
    config = use_case(csv_rows(20_000))
    done = threading.Event()

    def grow() -> None:
        while not done.wait(0.05):
            with (config.folder / "data.csv").open("a") as file:
                file.write("1.5,x,1\n" * 10)

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        with pytest.raises(UserError, match=r"source.path: changed while it was read"):
            shards.prepare_data(spark, config, 2)
    finally:
        done.set()
        thread.join()
    assert Manifest.read(next(f for f in _datasets(config))) is None


def _datasets(config: Config) -> list[Folder]:
    return [config.data_dir / name for name in config.data_dir.names() if not name.startswith(".")]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=12), max_size=6))
def test_every_record_of_a_random_csv_is_accounted_for(
    spark: SparkSession, use_case: UseCase, lines: list[str]
) -> None:
    config = use_case(ROWS + "".join(f"{line}\n" for line in lines), source={"max_quarantined": 1})
    rows = shards.prepare_data(spark, config, 2).manifest.rows
    assert rows.read == rows.quarantined + rows.dropped + rows.train + rows.validation + rows.test
    assert rows.read >= 60


class _Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def test_no_pickle_is_loaded_wherever_it_is_planted(spark: SparkSession, use_case: UseCase, tmp_path: Path) -> None:
    config = use_case(ROWS)
    prepared = shards.prepare_data(spark, config, 2)
    mark = tmp_path / "ran"
    bomb = pickle.dumps(_Bomb(mark))
    folder = Path(prepared.folder.path)
    first = folder / prepared.manifest.splits["train"].row_groups[0].path
    table = pq.read_table(first)
    poisoned = table.schema.with_metadata({b"dataset-toolkit.unischema.v1": bomb})
    # beside the shards, where Petastorm keeps its own metadata
    for place in (folder, first.parent):
        pq.write_metadata(poisoned, place / "_common_metadata")
        pq.write_metadata(poisoned, place / "_metadata")
    for rank in (0, 1):
        read_shard(prepared.folder, prepared.manifest, "train", rank, 2)
    # in a footer, with and without a manifest that knows of it
    pq.write_table(table.cast(poisoned), first)
    with pytest.raises(RowAccountingError, match=r"is not as it was written: its checksum differs; .* run again"):
        read_shard(prepared.folder, prepared.manifest, "train", 0, 2)
    path = prepared.manifest.splits["train"].row_groups[0].path
    known = {**prepared.manifest.sha256, path: hashlib.sha256(first.read_bytes()).hexdigest()}
    read_shard(prepared.folder, prepared.manifest.model_copy(update={"sha256": known}), "train", 0, 2)
    assert not mark.exists()
    assert pickle.loads(bomb) is None  # the bomb is a real one
    assert mark.exists()


@pytest.mark.parametrize("what", ["deleted", "cut off", "altered"])
def test_a_changed_file_of_a_shard_is_named(spark: SparkSession, use_case: UseCase, what: str) -> None:
    prepared = shards.prepare_data(spark, use_case(ROWS), 2)
    path = prepared.manifest.splits["train"].row_groups[0].path
    file = Path(prepared.folder.path) / path
    content = file.read_bytes()
    file.unlink()
    if what == "cut off":
        file.write_bytes(content[: len(content) // 2])
    elif what == "altered":
        file.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
    with pytest.raises(RowAccountingError, match=Path(path).name) as raised:
        read_shard(prepared.folder, prepared.manifest, "train", 0, 2)
    assert f"delete {prepared.folder} and run again" in str(raised.value)


def test_a_manifest_that_points_elsewhere_or_is_of_a_newer_format_is_refused(
    spark: SparkSession, use_case: UseCase, tmp_path: Path
) -> None:
    config = use_case(ROWS)
    prepared = shards.prepare_data(spark, config, 2)
    file = Path(prepared.folder.path) / "manifest.json"
    content = json.loads(file.read_text())
    for path in ("../../../../etc/passwd", "/etc/passwd", "parts/../../x"):
        content["splits"]["train"]["row_groups"][0]["path"] = path
        file.write_text(json.dumps(content))
        assert Manifest.read(prepared.folder) is None
    assert not shards.prepare_data(spark, config, 2).reused
    content["format_version"] = 99
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"manifest.json has format 99, but this version reads only up to"):
        shards.prepare_data(spark, config, 2)


def test_of_two_jobs_that_prepare_the_same_data_one_waits_and_reuses_it(
    spark: SparkSession, use_case: UseCase, caplog: pytest.LogCaptureFixture
) -> None:
    config = use_case(ROWS)
    made = []
    probe = config.lock_dir / "probe"
    with lock.lock(probe) as holder, lock.lock(probe) as second:
        assert holder is None
        assert "process" in (second or "")
    threads = [
        threading.Thread(target=lambda: made.append(shards.prepare_data(spark, config, 2)), daemon=True)
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert sorted(prepared.reused for prepared in made) == [False, True]
    assert made[0].manifest == made[1].manifest


def test_no_room_for_the_prepared_data_is_one_sentence_and_no_data_set_is_left(
    spark: SparkSession, use_case: UseCase, small_disk: Path
) -> None:
    config = use_case(csv_rows(200_000), run={"data_dir": str(small_disk)})
    with pytest.raises(StorageError, match=r"there is no room for the prepared data in .*; nothing half-written"):
        shards.prepare_data(spark, config, 2)
    assert _datasets(config) == []
