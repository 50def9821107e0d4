"""Old prepared data: what `run.keep_data` removes, and what it never does."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from conftest import UseCase, csv_rows
from pipeline.config import Config
from pipeline.data import kept, shards
from pipeline.data.manifest import FILE_NAME
from pipeline.runtime.lock import lock
from pipeline.runtime.storage import Folder

HOUR = 3600


@pytest.fixture
def prepared(spark: SparkSession, use_case: UseCase) -> tuple[Config, Path]:
    """Return a configuration that keeps one data set, and the folder of the one that it has prepared."""
    config = use_case(csv_rows(60), run={"keep_data": 1})
    return config, Path(shards.prepare_data(spark, config, 2).folder.path)


def another(made: Path, name: str, age_s: float = 2 * HOUR, pid: int = 0, use_case: str = "case") -> Path:
    """Return the folder of a copy that was used ``age_s`` seconds ago by a process that has ended."""
    folder = made.parent / (name * 16)
    shutil.copytree(made, folder)
    manifest = json.loads((folder / FILE_NAME).read_text())
    (folder / FILE_NAME).write_text(json.dumps({**manifest, "use_case": use_case}))
    (own,) = folder.glob("in-use-by-*")
    own.unlink()
    (folder / f"{own.name.rpartition('-')[0]}-{pid or ended_process()}").write_text(f"{time.time() - age_s:.0f}")
    return folder


def ended_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_old_data_of_this_use_case_go_and_all_others_stay(
    prepared: tuple[Config, Path], caplog: pytest.LogCaptureFixture
) -> None:
    config, made = prepared
    old, older = another(made, "a"), another(made, "b", 5 * HOUR)
    stay = [
        made,
        another(made, "c", use_case="another"),
        another(made, "d", age_s=60),
        suspended := another(made, "e", pid=os.getppid()),  # no beat for hours, but the process lives
    ]
    (suspended / f"{next(suspended.glob('in-use-by-*')).name}1").write_text(f"{time.time() - HOUR - 1:.0f}")
    (elsewhere,) = (other := another(made, "f")).glob("in-use-by-*")
    elsewhere.rename(other / "in-use-by-another.machine-17")
    silent, damaged, interrupted = another(made, "1"), another(made, "2"), another(made, "3")
    next(silent.glob("in-use-by-*")).unlink()
    next(damaged.glob("in-use-by-*")).write_text("x")
    (interrupted / FILE_NAME).unlink()
    strange = another(made, "5")
    next(strange.glob("in-use-by-*")).rename(strange / f"{next(strange.glob('in-use-by-*')).name}x")
    unnamed = another(made, "4", use_case="")  # of a version that did not state it
    foreign = made.parent / "notes"
    foreign.mkdir()
    (made.parent / ("9" * 16)).mkdir()
    with caplog.at_level(logging.INFO):
        kept.prune(config, made.name)
    assert not old.exists()
    assert not older.exists()
    for folder in (*stay, other, strange, silent, damaged, interrupted, unnamed, foreign, made.parent / ("9" * 16)):
        assert folder.exists(), folder
    assert "prepared data: 13 data set(s)" in caplog.text
    assert f"{other} was used on another machine, another.machine" in caplog.text
    assert caplog.text.count("removed old prepared data") == 2


def test_the_newest_sets_are_kept_and_the_one_in_use_is_one_of_them(prepared: tuple[Config, Path]) -> None:
    config, made = prepared
    two = config.model_copy(update={"run": config.run.model_copy(update={"keep_data": 2})})
    newer, older = another(made, "a", 2 * HOUR), another(made, "b", 3 * HOUR)
    kept.prune(two, made.name)
    assert [newer.exists(), older.exists(), made.exists()] == [True, False, True]
    everything = config.model_copy(update={"run": config.run.model_copy(update={"keep_data": None})})
    kept.prune(everything, made.name)
    assert newer.exists()


def test_data_that_a_job_begins_to_use_stay(prepared: tuple[Config, Path], caplog: pytest.LogCaptureFixture) -> None:
    config, made = prepared
    old = another(made, "a")
    with lock(config.lock_dir / old.name), caplog.at_level(logging.INFO):
        kept.prune(config, made.name)
    assert old.exists()
    assert f"{old} is being prepared or used" in caplog.text


def test_nothing_is_removed_where_it_cannot_be_known(
    prepared: tuple[Config, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config, made = prepared
    old = another(made, "a")

    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", unsupported)
        kept.prune(config, made.name)
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "is_on_this_disk", False)
        kept.prune(config, made.name)
    with monkeypatch.context() as patch:
        patch.setattr(kept, "_file_system", lambda _: "nfs4")
        kept.prune(config, made.name)
    assert old.exists()
    assert "whether another machine uses" in caplog.text
    kept.prune(config, made.name)
    assert not old.exists()


def test_data_that_are_used_say_so_all_the_time(prepared: tuple[Config, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_BEAT_S", 0.05)
    _, made = prepared
    (own,) = made.glob("in-use-by-*")
    with kept.in_use(Folder(str(made))):
        own.unlink()
        deadline = time.monotonic() + 20
        while not own.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
    assert time.time() - float(own.read_text()) < 60
    own.unlink()
    time.sleep(0.3)
    assert not own.exists()  # nobody beats after the block
