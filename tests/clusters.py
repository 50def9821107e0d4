"""A standalone Spark cluster: a master and two workers, whose executors cannot see this checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyspark
import pytest

from conftest import ROOT
from submitting import background, free_port


@dataclass(frozen=True)
class Standalone:
    """A running cluster."""

    master: str
    shared: Path
    """A folder that the driver and the executors see."""
    logs: Path
    """Where the workers keep their executors' folders and output."""


@pytest.fixture(scope="session")
def environment() -> Path:
    """Return the archive that `make dist` builds."""
    subprocess.run(["make", "-s", "dist"], cwd=ROOT, check=True, timeout=350)
    return ROOT / "dist" / "environment.tar.gz"


@pytest.fixture(scope="session")
def unpacked(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the environment as an executor unpacks it, once for several jobs."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run(["tar", "-xzf", environment, "-C", folder], check=True, timeout=120)
    return folder


def can_hide_folders() -> bool:
    return subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode == 0


@pytest.fixture(scope="session")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    """Start a master and two workers of two cores each on the loopback interface; stop them afterwards."""
    base = tmp_path_factory.mktemp("cluster")
    # Spark and Java as on a machine of its own: outside of the checkout, which the workers do not see
    spark_home, java_home = base / "spark", base / "java"
    shutil.copytree(Path(pyspark.__file__).parent, spark_home, copy_function=_link)
    shutil.copytree(os.environ["JAVA_HOME"], java_home, symlinks=True)
    shared = base / "shared"
    shared.mkdir()
    # nothing of this process's environment, least of all PYTHONPATH
    clean = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(base), "SPARK_HOME": str(spark_home)}
    clean |= {"JAVA_HOME": str(java_home), "SPARK_LOG_DIR": str(base), "SPARK_LOCAL_IP": "127.0.0.1"}
    hide = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs none {ROOT} && exec "$@"', "sh"] if can_hide_folders() else []
    port = free_port()
    start = [str(spark_home / "bin" / "spark-class")]
    master = [*start, "org.apache.spark.deploy.master.Master", "--host", "127.0.0.1", "--port", str(port)]
    with ExitStack() as running:
        running.enter_context(_daemon([*hide, *master, "--webui-port", str(free_port())], clean, base / "master.log"))
        for name in ("one", "two"):
            worker = [*start, "org.apache.spark.deploy.worker.Worker", "--host", "127.0.0.1", "--cores", "2"]
            worker += ["--memory", "2g", "--webui-port", str(free_port()), "--work-dir", str(base / name)]
            command = [*hide, *worker, f"spark://127.0.0.1:{port}"]
            running.enter_context(_daemon(command, clean, base / f"{name}.log"))
        _await(base / "master.log", "Registering worker", 2)
        yield Standalone(f"spark://127.0.0.1:{port}", shared, base)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _daemon(command: list[str], environment: dict[str, str], log: Path):
    return background(command, output=log, cwd=log.parent, env=environment)


def _await(log: Path, text: str, times: int) -> None:
    for _ in range(600):
        if len(re.findall(text, log.read_text())) >= times:
            return
        time.sleep(0.1)
    raise AssertionError(f"{log} does not say '{text}' {times} times:\n{log.read_text()}")
