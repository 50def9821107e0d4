"""A new elastic rank sends its addresses to the driver, which accepts only signed addresses and never unpickles."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
from horovod.runner import gloo_run
from horovod.runner.common.util import codec, secret
from horovod.runner.elastic.discovery import FixedHosts
from horovod.runner.elastic.driver import ElasticDriver
from horovod.runner.elastic.rendezvous import create_rendezvous_handler
from horovod.runner.http.http_server import RendezvousServer

from pipeline.launch.horovod_patches import accept_signed_addresses_only, applied
from pipeline.launch.signed_addresses import sign

KEY = secret.make_secret_key()
AS_A_RANK = """
import sys, time
from horovod.runner.elastic import worker
from pipeline.launch import horovod_patches
manager = worker.WorkerNotificationManager()
with horovod_patches.applied(horovod_patches.send_signed_addresses()):
    manager.init("127.0.0.1", int(sys.argv[1]), "lo", "host", 0)
news = []
manager.register_listener(type("Listener", (), {"on_hosts_updated": lambda self, *update: news.append(update)})())
print("listening", flush=True)
while not news:
    time.sleep(0.05)
"""


@pytest.fixture
def server() -> Iterator[tuple[ElasticDriver, int]]:
    """Return Horovod's own driver of elastic ranks, and its server's port, with our handler."""
    rendezvous = RendezvousServer(0)
    driver = ElasticDriver(rendezvous, FixedHosts({"host": 1}), 1, 1)
    with applied(accept_signed_addresses_only(KEY)):
        port = rendezvous.start(gloo_run.create_rendezvous_handler(driver))
    yield driver, port
    driver.stop()


def put(port: int, content: bytes) -> None:
    url = f"http://127.0.0.1:{port}/worker_addresses/host:0"
    with urlopen(Request(url, data=content, method="PUT"), timeout=10):
        pass


def test_a_rank_of_this_job_gets_news_of_the_others(server: tuple[ElasticDriver, int]) -> None:
    driver, port = server
    environment = {**os.environ, secret.HOROVOD_SECRET_KEY: codec.dumps_base64(KEY)}
    command = [sys.executable, "-c", AS_A_RANK, str(port)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as rank:
        watchdog = threading.Timer(60, rank.kill)
        watchdog.start()
        assert rank.stdout is not None
        assert rank.stdout.readline() == "listening\n"
        driver._worker_clients["host", 0].notify_hosts_updated(1, 2)
        assert rank.wait() == 0
        watchdog.cancel()


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["pickle", "unsigned", "another key", "another rank", "no JSON"])
def test_addresses_from_anyone_else_are_ignored(
    server: tuple[ElasticDriver, int], tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    driver, port = server
    mine = tmp_path / "ran"
    content = {
        "pickle": codec.dumps_base64((Evil(mine), b"key"), to_ascii=False),
        "unsigned": b'["{}", 1]',
        "another key": sign(b"guessed", "host:0", {"lo": [("127.0.0.1", 1)]}),
        "another rank": sign(KEY, "host:1", {"lo": [("127.0.0.1", 1)]}),
        "no JSON": b"\xff\x00",
    }[kind]
    with caplog.at_level("WARNING", logger="pipeline"):
        put(port, content)
    assert not mine.exists()
    assert driver._worker_clients == {}
    assert "Horovod's server ignores a message: the addresses of host:0 are not" in caplog.text
    pickle.loads(pickle.dumps(Evil(mine)))
    assert mine.exists()  # it would have been made


def test_horovod_without_the_patch_runs_the_pickle(tmp_path: Path) -> None:
    """When this fails, Horovod no longer has CVE-2024-10190: accept_signed_addresses_only is not needed any more."""
    rendezvous, mine = RendezvousServer(0), tmp_path / "ran"
    driver = ElasticDriver(rendezvous, FixedHosts({"host": 1}), 1, 1)
    port = rendezvous.start(create_rendezvous_handler(driver))
    with pytest.raises((URLError, OSError)):
        put(port, codec.dumps_base64((Evil(mine), b"key"), to_ascii=False))
    driver.stop()
    assert mine.exists()
