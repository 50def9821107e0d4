"""A tracking server with passwords, and checks of where the password appears."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import re
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from submitting import background, free_port

USER, SECRET = "admin", "s3cr3t-Of-the-Store-9f27"
_SILENCE_S = 120  # a job shows life every 10 seconds, except while Java starts


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


@pytest.fixture(scope="session")
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


def await_line(log: Path, text: str, job: subprocess.Popen[bytes]) -> None:
    """Wait for a line of a running job as long as the job shows life, however slow the machine is."""
    length, grown = 0, time.monotonic()
    while text not in (output := log.read_text(errors="replace")):
        assert job.poll() is None, output[-3000:]
        if len(output) > length:
            length, grown = len(output), time.monotonic()
        silent = time.monotonic() - grown
        assert silent < _SILENCE_S, f"no '{text}', and no other line for {silent:.0f} s, after: {output[-3000:]}"
        time.sleep(0.1)


def betrays(content: bytes) -> bool:
    """Return whether the content holds the secret: as it is, as in an `Authorization` header, or in base64."""
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
    exposed: list[str] = []
    done = threading.Event()

    def collect_exposed() -> None:
        while not done.wait(0.25):  # a loop without a pause would take a core from the job
            for process in psutil.process_iter(["cmdline"]):
                words = process.info["cmdline"] or []
                if any(betrays(word.encode()) for word in words):
                    exposed.append(" ".join(words))

    thread = threading.Thread(target=collect_exposed)
    thread.start()
    try:
        yield exposed
    finally:
        done.set()
        thread.join()
