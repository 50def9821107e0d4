"""The main job through spark-submit, in processes of its own; one run on the penguins serves many tests."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from conftest import PENGUINS, ROOT

LAB_PENGUIN = {"Island": "Biscoe", "CulmenLength": 50.4, "CulmenDepth": 15.3, "FlipperLength": 200, "BodyMass": 5000}


@dataclass(frozen=True)
class Ran:
    """What a spark-submit left."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = json.loads(self.stdout.splitlines()[-1])
        return summary


def submit(
    config: Path,
    *overrides: str,
    conf: dict[str, str] | None = None,
    enter: Sequence[str] = (),
    script: Path | None = None,
) -> Ran:
    """Run the job in processes of its own; check that none of them is left when it has ended.

    A ``script`` in its place gets the overrides as plain arguments, and finds the package.
    """
    options = [part for key, value in (conf or {}).items() for part in ("--conf", f"{key}={value}")]
    command = [*enter, "spark-submit", *options]
    if script:
        command += [str(script), str(config), *overrides]
    else:
        command += [str(ROOT / "jobs" / "train.py"), "--config", str(config)]
        command += [word for override in overrides for word in ("--set", override)]
    begin = time.monotonic()
    mark = uuid.uuid4().hex  # in the environment of every process that comes of this one
    environment = {**os.environ, "SUBMITTED_BY_TEST": mark}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        stdout, stderr = process.communicate(timeout=240)
        seconds = time.monotonic() - begin
        for _ in range(50):
            if not (left := _marked(mark)):
                break
            time.sleep(0.1)
    finally:
        for leftover in _marked(mark):
            leftover.kill()
    assert left == []
    return Ran(process.returncode, stdout, stderr, seconds)


def _marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("SUBMITTED_BY_TEST") == mark:
                found.append(process)
    return found


@contextlib.contextmanager
def background(
    command: list[str], output: Path, cwd: Path = ROOT, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server for the block, its output in a file; end it and all its children afterwards."""
    with output.open("wb") as file:
        process = subprocess.Popen(command, cwd=cwd, stdout=file, stderr=subprocess.STDOUT, env=env)
    try:
        yield process
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
        process.kill()
        process.wait()


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Penguins:
    """The job of `make train`, run once for all tests here."""

    ran: Ran
    work_dir: Path
    steps_while_running: list[int]
    """The newest step in the store at every look, as long as the run was still RUNNING."""


@pytest.fixture(scope="session")
def penguins(tmp_path_factory: pytest.TempPathFactory) -> Penguins:
    work_dir = tmp_path_factory.mktemp("penguins")
    steps: list[int] = []
    done = threading.Event()

    def look() -> None:
        query = "SELECT max(step) FROM metrics JOIN runs USING (run_uuid) WHERE runs.status = 'RUNNING'"
        while not done.wait(0.1):
            with contextlib.suppress(sqlite3.Error), sqlite3.connect(work_dir / "mlflow.db", timeout=1) as store:
                steps.extend(step for (step,) in store.execute(query) if step is not None)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        ran = submit(PENGUINS, f"run.work_dir={work_dir}")
    finally:
        done.set()
        watcher.join()
    return Penguins(ran, work_dir, steps)


@pytest.fixture(scope="session")
def model_folder(penguins: Penguins) -> Path:
    """Return the folder of the model that the job logged."""
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{penguins.work_dir / 'mlflow.db'}")
    return Path(mlflow.artifacts.download_artifacts(penguins.ran.summary["model_uri"]))
