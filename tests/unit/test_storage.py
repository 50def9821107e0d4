"""A user's path for Spark, Python and Petastorm; files are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conftest import PENGUINS
from pipeline.config import load_config
from pipeline.data import shards
from pipeline.runtime import storage
from pipeline.runtime.errors import UserError
from pipeline.runtime.storage import Folder


@pytest.mark.parametrize(
    ("named", "spark", "python", "petastorm"),
    [
        ("/data/x", "file:///data/x", "/data/x", "file:///data/x"),
        ("file:///data/x", "file:///data/x", "/data/x", "file:///data/x"),
        ("file:/data/x/", "file:///data/x", "/data/x", "file:///data/x"),
        ("/Volumes/c/s/v", "file:///Volumes/c/s/v", "/Volumes/c/s/v", "file:///Volumes/c/s/v"),  # a folder's name
        ("s3a://lake/x/", "s3a://lake/x", "s3a://lake/x", "s3a://lake/x"),
        *[
            (uri, uri, uri, uri)
            for uri in ("s3://lake/x", "abfss://c@account.dfs.core.windows.net/x", "hdfs://namenode:8020/x")
        ],
    ],
)
def test_a_path_has_its_form_for_spark_python_and_petastorm(
    named: str, spark: str, python: str, petastorm: str
) -> None:
    folder = Folder.at(named)
    assert (folder.spark, folder.path, folder.url) == (spark, python, petastorm)
    assert (folder / "a").spark == f"{spark}/a"


@pytest.mark.parametrize(
    ("named", "spark", "python"),
    [
        ("dbfs:/x", "dbfs:/x", "/dbfs/x"),
        ("/dbfs/x", "dbfs:/x", "/dbfs/x"),
        ("dbfs:/Volumes/c/s/v", "dbfs:/Volumes/c/s/v", "/Volumes/c/s/v"),
        ("/Volumes/c/s/v", "dbfs:/Volumes/c/s/v", "/Volumes/c/s/v"),
        ("/local_disk0/x", "file:///local_disk0/x", "/local_disk0/x"),
    ],
)
def test_a_path_on_databricks(named: str, spark: str, python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "15.4")
    folder = Folder.at(named)
    assert (folder.spark, folder.path, folder.url) == (spark, python, f"file://{python}")


def test_relative_paths_start_where_the_job_is_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert Folder.at("data").path == str(tmp_path / "data")
    config = load_config(PENGUINS)
    assert config.data_dir.path == str(tmp_path / ".work" / "data")
    assert load_config(PENGUINS, ["run.work_dir=file:///srv/w"]).work_dir == Path("/srv/w")
    # a URI in source.path does not start at the config's folder
    assert load_config(PENGUINS, ["source.path=dbfs:/lake/x.csv"]).source_paths == ["dbfs:/lake/x.csv"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.data_dir=ftp://host/x", "run.data_dir: ftp://host/x is neither a path nor one of file:, dbfs:, s3a://, "),
        ("run.data_dir=s3a:/x", "run.data_dir: s3a:/x is neither a path nor one of "),
        ("run.work_dir=s3a://lake/x", "run.work_dir: must be a folder of the driver's machine, not s3a://lake/x"),
    ],
)
def test_a_path_of_an_unknown_file_system_is_refused(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(PENGUINS, [override])


def test_a_folder_that_cannot_be_written_is_reported_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for key in ("data_dir", "work_dir"):
        config = load_config(PENGUINS, [f"run.{key}={tmp_path / 'file' / 'x'}"])
        with pytest.raises(UserError, match=f"run.{key}: cannot write in .*: Not a directory"):
            shards.open_data_dir(config)


def test_a_file_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(str(tmp_path))
    folder.write("a", b"first")
    folder.write("a", b"second")
    assert folder.read("a") == b"second"
    assert folder.names() == ["a"]

    def crash(source: str, target: str) -> None:
        raise OSError("the machine is gone")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="gone"):
        folder.write("a", b"third")
    assert folder.read("a") == b"second"


def test_a_missing_folder_is_empty(tmp_path: Path) -> None:
    nowhere = Folder(str(tmp_path / "nowhere"))
    assert not nowhere.exists()
    assert nowhere.names() == []
    nowhere.remove()
    with pytest.raises(FileNotFoundError):
        nowhere.read("a")


def test_the_ranks_get_the_credentials_of_object_stores() -> None:
    assert {"AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_ACCOUNT_KEY"} <= set(storage.CREDENTIALS)


def test_a_pattern_in_a_folder_of_any_name_finds_that_folder_s_files(tmp_path: Path) -> None:
    for folder in ("[v2]", "v"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.csv").touch()
    assert storage.as_spark_reads(f"{tmp_path}/[v2]/*.csv") == f"file://{tmp_path}/\\[v2\\]/*.csv"
    assert storage.as_spark_reads(f"{tmp_path}/[v2]/a.csv") == f"file://{tmp_path}/\\[v2\\]/a.csv"
    assert storage.as_spark_reads(f"{tmp_path}/[vw]/*.csv") == f"{tmp_path}/[vw]/*.csv"  # a pattern: no such name
    assert storage.as_spark_reads("s3a://bucket/[v2]/*.csv") == "s3a://bucket/[v2]/*.csv"
