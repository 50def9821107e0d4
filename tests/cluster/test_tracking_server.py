"""A tracking server with passwords: who knows them, and what happens when the server goes away."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import math
import os
import re
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import mlflow
import psutil
import pytest
from mlflow import MlflowClient

from clusters import Standalone, cluster_settings
from conftest import PENGUINS, ROOT
from pipeline import tracking
from pipeline.config import load_config
from pipeline.errors import UserError
from submitting import background, free_port

USER, SECRET = "admin", "s3cr3t-Of-the-Store-9f27"


class Server:
    """`mlflow server` on SQLite, with basic authentication."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.is_running = False
        self._running = ExitStack()
        (folder / "auth.ini").write_text(
            f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/auth.db\n"
            f"admin_username = {USER}\nadmin_password = {SECRET}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        )

    def start(self) -> None:
        command = ["mlflow", "server", "--app-name", "basic-auth", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder}/store.db"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        settings = {
            "MLFLOW_AUTH_CONFIG_PATH": str(self.folder / "auth.ini"),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "x" * 32,
        }
        log = self.folder / "server.log"
        process = background(command, log, cwd=self.folder, env={**os.environ, **settings})
        server = self._running.enter_context(process)
        for _ in range(600):
            assert server.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=5)
                self.is_running = True
                return
            except OSError:
                time.sleep(0.2)
        raise AssertionError(log.read_text())

    def kill(self) -> None:
        self._running.close()
        self.is_running = False


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"))
    yield made
    made.kill()


@pytest.fixture
def server(one_server: Server) -> Server:
    """Return the server, running: a test may have killed it."""
    if not one_server.is_running:
        one_server.start()
    return one_server


@pytest.fixture
def client(server: Server, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    return MlflowClient(server.uri)


@contextmanager
def training(server: Server, log: Path, *overrides: str, conf: dict[str, str] | None = None):
    """Run the main job for the block, logging to ``server``."""
    options = [part for key, value in (conf or {}).items() for part in ("--conf", f"{key}={value}")]
    command = ["spark-submit", *options, str(ROOT / "jobs" / "train.py"), "--config", str(PENGUINS)]
    for override in (f"tracking.uri={server.uri}", *overrides):
        command += ["--set", override]
    credentials = {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": SECRET}
    with background(command, log, env={**os.environ, **credentials}) as job:
        yield job


def await_line(log: Path, text: str, job: subprocess.Popen[bytes]) -> None:
    for _ in range(1500):
        if text in log.read_text(errors="replace"):
            return
        assert job.poll() is None, log.read_text()[-3000:]
        time.sleep(0.1)
    raise AssertionError(f"'{text}' was not said: {log.read_text()[-3000:]}")


def betrays(content: bytes) -> bool:
    """Whether the secret is in this as it is, as in an `Authorization` header, or in something encoded in base64."""
    if SECRET.encode() in content or base64.b64encode(f"{USER}:{SECRET}".encode()) in content:
        return True
    for word in re.findall(rb"[A-Za-z0-9+/]{80,}={0,2}", content):
        with contextlib.suppress(binascii.Error):
            if SECRET.encode() in base64.b64decode(word[: len(word) // 4 * 4]):
                return True
    return False


@contextmanager
def watching_command_lines() -> Iterator[list[str]]:
    """Collect every command line of this machine that holds the secret."""
    seen: list[str] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.25):  # what looks all the time takes a core from the job that it looks at
            for process in psutil.process_iter(["cmdline"]):
                words = process.info["cmdline"] or []
                if any(betrays(word.encode()) for word in words):
                    seen.append(" ".join(words))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def test_rank_0_on_an_executor_logs_with_a_password_that_nobody_else_sees(
    standalone: Standalone, unpacked: Path, server: Server, client: MlflowClient, tmp_path: Path
) -> None:
    csv = standalone.shared / "penguins-tracking.csv"
    csv.write_bytes((PENGUINS.parent / "penguins.csv").read_bytes())
    events = tmp_path / "events"
    events.mkdir()
    port = free_port()
    conf = {
        **cluster_settings(standalone, unpacked),
        "spark.cores.max": "2",
        "spark.executor.cores": "2",
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": f"file://{events}",
        "spark.ui.enabled": "true",
        "spark.ui.port": str(port),
    }
    overrides = [
        f"source.path={csv}",
        f"run.work_dir={standalone.shared / 'tracking'}",
        "training.epochs=20",
        "tracking.gate.thresholds.accuracy=0",
        "run.ranks_per_executor=2",
    ]
    log = tmp_path / "job.log"
    with watching_command_lines() as seen, training(server, log, *overrides, conf=conf) as job:
        await_line(log, "epoch  1/20", job)
        page = urllib.request.urlopen(f"http://127.0.0.1:{port}/environment/", timeout=30).read().decode()
        assert job.wait(timeout=400) == 0, log.read_text()[-3000:]
    (line,) = (line for line in log.read_text().splitlines() if line.startswith('{"status"'))
    summary = json.loads(line)
    run = client.get_run(summary["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["executors"] == "0, 0"  # as run.ranks_per_executor allows
    for metric in ("train_loss", "validation_accuracy"):
        history = client.get_metric_history(summary["run_id"], metric)
        assert [m.step for m in history] == list(range(1, 21))
    assert {f.path for f in client.list_artifacts(summary["run_id"])} >= {"report.html", "weights", "config"}

    assert seen == []
    files = [
        path for folder in (events, standalone.logs / "one", standalone.logs / "two") for path in folder.rglob("*")
    ]
    texts = [path for path in files if path.is_file() and path.stat().st_size < 20 * 2**20]
    assert any(path.name == "stderr" for path in texts)
    assert any(path.parent == events for path in texts)
    for path in [log, server.folder / "server.log", *texts]:
        assert not betrays(path.read_bytes()), path
    assert SECRET not in page
    assert "spark.master" in page
    assert SECRET not in json.dumps(run.to_dictionary())


def test_a_wrong_password_is_told_before_any_work(server: Server, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
    config = load_config(PENGUINS, [f"tracking.uri={server.uri}"])
    with pytest.raises(UserError, match="cannot use the MLflow store"):
        tracking.open_store(config, server.uri)()
    with_password = load_config(PENGUINS, [f"tracking.uri=http://{USER}:{SECRET}@127.0.0.1"])
    with pytest.raises(UserError, match="must hold no password") as raised:
        tracking.tracking_uri(with_password)
    assert SECRET not in str(raised.value)


def test_epochs_wait_for_a_server_that_comes_back(server: Server, client: MlflowClient, capsys) -> None:
    run_id = client.create_run(client.create_experiment("away")).info.run_id
    slowest = 0.0
    with tracking.MetricWriter(server.uri, run_id) as writer:
        for epoch in range(1, 61):
            if epoch == 21:
                await_that(lambda: not writer.pending)
                server.kill()
            if epoch == 41:
                await_that(lambda: "the MLflow store does not answer; training goes on" in capsys.readouterr().err)
                assert [epoch for _, epoch, _ in writer.pending] == list(range(21, 41))
                server.start()
            begin = time.monotonic()
            writer.write({"loss": 1 / epoch, "nothing": math.nan}, epoch)
            slowest = max(slowest, time.monotonic() - begin)
        await_that(lambda: not writer.pending)
    assert slowest < 1  # it only appends to a list
    history = client.get_metric_history(run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(epoch, 1 / epoch) for epoch in range(1, 61)]
    assert "answers again" in capsys.readouterr().err

    # what the store refuses is no matter of waiting, and none to stop for
    with tracking.MetricWriter(server.uri, "0" * 32) as refused:
        refused.write({"loss": 1.0}, 1)
    assert len(refused.pending) == 1
    assert "the MLflow store refuses the metrics; training goes on" in capsys.readouterr().err
    # to send again what has arrived already is harmless
    tracking.log_records(server.uri, run_id, [(m.timestamp, m.step, {"loss": m.value}) for m in history])
    assert len(client.get_metric_history(run_id, "loss")) == 60


def await_that(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come to that")


def test_a_server_that_stays_away_costs_no_training(server: Server, tmp_path: Path) -> None:
    log, work = tmp_path / "job.log", tmp_path / "work"
    with training(server, log, f"run.work_dir={work}", "training.epochs=40") as job:
        await_line(log, "epoch  5/40", job)
        server.kill()
        assert job.wait(timeout=400) == 1
    said = log.read_text()
    (kept,) = (work / "undelivered").iterdir()
    assert f"training has ended well, but the MLflow store {server.uri} does not answer" in said
    assert f"are kept in {kept}; run again when the store is back" in said
    assert "Traceback" not in said
    assert SECRET not in said
    model = mlflow.pyfunc.load_model(str(kept / "model"))
    assert set(model.metadata.get_input_schema().input_names()) >= {"Island", "BodyMass"}
    epochs = [json.loads(line)["epoch"] for line in (kept / "metrics.jsonl").read_text().splitlines()]
    assert epochs == list(range(epochs[0], 41))


def test_a_server_that_is_not_there_is_told_before_any_work(one_server: Server, tmp_path: Path) -> None:
    one_server.kill()
    log = tmp_path / "job.log"
    with training(one_server, log, f"run.work_dir={tmp_path / 'work'}") as job:
        assert job.wait(timeout=100) == 2
    errors = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert f"tracking.uri: cannot use the MLflow store {one_server.uri}" in errors[0]
    assert "preparing" not in log.read_text()
