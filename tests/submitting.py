"""The main job through spark-submit, in processes of its own; one run on the penguins serves many tests."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import sqlite3
import subprocess
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from conftest import PENGUINS, ROOT

STARTED_BY = "STARTED_BY_TEST_RUN"
os.environ[STARTED_BY] = uuid.uuid4().hex  # every process that this one starts inherits it
LAB_PENGUIN = {"Island": "Biscoe", "CulmenLength": 50.4, "CulmenDepth": 15.3, "FlipperLength": 200, "BodyMass": 5000}


@dataclass(frozen=True)
class Ran:
    """What a spark-submit left."""

    code: int
    stdout: str
    stderr: str

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

    A ``script`` runs in its place if there is one, with the overrides as plain arguments.
    """
    options = [part for key, value in (conf or {}).items() for part in ("--conf", f"{key}={value}")]
    command = [*enter, "spark-submit", *options]
    if script:
        command += [str(script), str(config), *overrides]
    else:
        command += [str(ROOT / "jobs" / "train.py"), "--config", str(config)]
        command += [word for override in overrides for word in ("--set", override)]
    mark = uuid.uuid4().hex
    environment = {**os.environ, "SUBMITTED_BY_TEST": mark}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        stdout, stderr = process.communicate(timeout=240)
        for _ in range(50):
            if not (left := marked("SUBMITTED_BY_TEST", mark)):
                break
            time.sleep(0.1)
    finally:
        for leftover in marked("SUBMITTED_BY_TEST", mark):
            leftover.kill()
    assert left == []
    return Ran(process.returncode, stdout, stderr)


def marked(variable: str, value: str) -> list[psutil.Process]:
    """Return the running processes that have this variable in their environment."""
    running = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(variable) == value:
                running.append(process)
    return running


def processes(word: str) -> list[psutil.Process]:
    """Return the processes of this test run, shells left out, that have ``word`` in their command line."""
    running = []
    for process in marked(STARTED_BY, os.environ[STARTED_BY]):
        with contextlib.suppress(psutil.Error):
            if any(word in part for part in process.cmdline()) and process.name() not in ("sh", "bash"):
                running.append(process)
    return running


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


@contextlib.contextmanager
def model_server(command: list[str], port: int, log: Path) -> Iterator[str]:
    """Run a server of a model for the block; yield its address when it answers."""
    with background(command, log) as server:
        for _ in range(300):
            assert server.poll() is None, log.read_text()
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5)
                break
            time.sleep(0.3)
        yield f"127.0.0.1:{port}"


def free_port() -> int:
    """Return a port of the loopback interface on which no process listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Penguins:
    """The job of `make train`, run once for a whole test run."""

    ran: Ran
    work_dir: Path
    steps_while_running: list[int]
    """The newest steps that the store showed while the run was still RUNNING."""


@pytest.fixture(scope="session")
def penguins(tmp_path_factory: pytest.TempPathFactory) -> Penguins:
    """Return the job on the penguins; where tests run in several processes, the first that needs it runs it for all."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "penguins"
    folder.mkdir(exist_ok=True)
    work_dir, result = folder / "work", folder / "ran.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not result.exists():
            ran, steps = _run_watched(work_dir)
            result.write_text(json.dumps([asdict(ran), steps]))
    fields, steps = json.loads(result.read_text())
    return Penguins(Ran(**fields), work_dir, steps)


def _run_watched(work_dir: Path) -> tuple[Ran, list[int]]:
    steps: list[int] = []
    done = threading.Event()

    def watch() -> None:
        query = "SELECT max(step) FROM metrics JOIN runs USING (run_uuid) WHERE runs.status = 'RUNNING'"
        while not done.wait(0.1):
            with contextlib.suppress(sqlite3.Error), sqlite3.connect(work_dir / "mlflow.db", timeout=1) as store:
                steps.extend(step for (step,) in store.execute(query) if step is not None)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        return submit(PENGUINS, f"run.work_dir={work_dir}"), steps
    finally:
        done.set()
        watcher.join()


@pytest.fixture(scope="session")
def model_folder(penguins: Penguins) -> Path:
    """Return the folder of the model that the job logged."""
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{penguins.work_dir / 'mlflow.db'}")
    return Path(mlflow.artifacts.download_artifacts(penguins.ran.summary["model_uri"]))
