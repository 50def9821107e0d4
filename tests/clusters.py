"""A standalone Spark cluster: a master and two workers, whose executors cannot see this checkout."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyspark
import pytest

from conftest import ROOT
from submitting import background, free_port

QUICK_START = "-XX:TieredStopAtLevel=1"  # as in conftest, for drivers


@dataclass(frozen=True)
class Standalone:
    """A running cluster."""

    master: str
    shared: Path
    """A folder that the driver and the executors see."""
    logs: Path
    """Where the workers keep their executors' folders and output."""


@dataclass(frozen=True)
class Host:
    """Where a daemon runs."""

    address: str
    enter: Sequence[str] = ()
    """What stands before a command that is to run on this host."""


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


def cluster_settings(cluster: Standalone, unpacked: Path, **more: str) -> dict[str, str]:
    """Return the settings of spark-submit for a cluster whose executors use the unpacked environment."""
    return {
        "spark.master": cluster.master,
        "spark.pyspark.python": str(unpacked / "bin" / "python"),
        "spark.pyspark.driver.python": os.environ["PYSPARK_PYTHON"],
        "spark.executor.extraJavaOptions": QUICK_START,
        **more,
    }


def can_hide_folders() -> bool:
    return subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode == 0


def can_make_hosts() -> bool:
    listed = subprocess.run(["sh", "-c", "ip netns list"], check=False, capture_output=True)
    return os.geteuid() == 0 and listed.returncode == 0


@pytest.fixture(scope="session")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    """Start a master and two workers of two cores each on the loopback interface; stop them afterwards."""
    # the workers do not see the checkout
    hide = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs none {ROOT} && exec "$@"', "sh"] if can_hide_folders() else []
    here = Host("127.0.0.1", hide)
    with running_cluster(tmp_path_factory.mktemp("cluster"), here, [here, here]) as cluster:
        yield cluster


@contextmanager
def running_cluster(base: Path, master: Host, workers: Sequence[Host]) -> Iterator[Standalone]:
    """Run a master and its workers, each of two cores, below ``base``."""
    # Spark and Java as on a machine of its own: outside of the checkout
    spark_home, java_home = base / "spark", base / "java"
    shutil.copytree(Path(pyspark.__file__).parent, spark_home, copy_function=_link)
    shutil.copytree(os.environ["JAVA_HOME"], java_home, symlinks=True)
    shared = base / "shared"
    shared.mkdir()
    # a clean environment: PYTHONPATH in particular would lead to the checkout
    clean = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(base), "SPARK_HOME": str(spark_home)}
    clean |= {"JAVA_HOME": str(java_home), "SPARK_LOG_DIR": str(base), "SPARK_DAEMON_JAVA_OPTS": QUICK_START}
    port = free_port()
    start = [str(spark_home / "bin" / "spark-class")]

    def daemon(host: Host, log: Path, *words: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
        environment = {**clean, "SPARK_LOCAL_IP": host.address}
        return background([*host.enter, *start, *words, "--webui-port", str(free_port())], log, log.parent, environment)

    with ExitStack() as running:
        words = ["org.apache.spark.deploy.master.Master", "--host", master.address, "--port", str(port)]
        running.enter_context(daemon(master, base / "master.log", *words))
        url = f"spark://{master.address}:{port}"
        for host, name in zip(workers, ("one", "two"), strict=True):
            words = ["org.apache.spark.deploy.worker.Worker", "--host", host.address, "--cores", "2", "--memory", "2g"]
            running.enter_context(daemon(host, base / f"{name}.log", *words, "--work-dir", str(base / name), url))
        _await(base / "master.log", "Registering worker", 2)
        yield Standalone(url, shared, base)


def leading_nowhere(hosts: Sequence[Host], device: str) -> list[list[str]]:
    """Return commands that give each host one more interface, in a network in which no other host answers."""
    return [
        [*host.enter, "ip", *words]
        for i, host in enumerate(hosts)
        for words in (
            ["link", "add", device, "type", "veth", "peer", "name", f"{device}-peer"],
            ["addr", "add", f"10.231.78.{i + 1}/24", "dev", device],
            ["link", "set", device, "up"],
            ["link", "set", f"{device}-peer", "up"],
        )
    ]


@contextmanager
def hosts(number: int) -> Iterator[list[Host]]:
    """Make network namespaces, which are hosts to Spark and Horovod: joined by eth0, but not by docker0."""
    mark = f"{os.getpid() % 100_000}"
    bridge, made = f"br{mark}", []

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, timeout=20)

    try:
        ip("link", "add", bridge, "type", "bridge")
        ip("link", "set", bridge, "up")
        for i in range(number):
            name, outside = f"host{mark}-{i}", f"v{mark}-{i}"
            ip("netns", "add", name)
            made.append(Host(f"10.231.77.{i + 1}", ["ip", "netns", "exec", name]))
            own = Path("/etc/netns", name)  # what is in it takes the place of /etc's in this namespace
            own.mkdir(parents=True)
            (own / "hosts").write_text(f"127.0.0.1 localhost\n{made[i].address} {socket.gethostname()}\n")
            ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", outside, "master", bridge, "up")
            ip("-n", name, "addr", "add", f"{made[i].address}/24", "dev", "eth0")
            # as on machines with docker: an address that each of them has for itself
            ip("-n", name, "link", "add", "docker0", "type", "bridge")
            ip("-n", name, "addr", "add", "172.17.0.1/16", "dev", "docker0")
            # bbr, where it is the default, paces small messages so that a step takes 60 ms
            subprocess.run([*made[i].enter, "sysctl", "-qw", "net.ipv4.tcp_congestion_control=reno"], check=True)
            for device in ("eth0", "docker0", "lo"):
                ip("-n", name, "link", "set", device, "up")
        yield made
    finally:
        for host in made:
            ip("netns", "del", host.enter[-1])
            shutil.rmtree(f"/etc/netns/{host.enter[-1]}")
        ip("link", "del", bridge)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _await(log: Path, text: str, times: int) -> None:
    for _ in range(600):
        if len(re.findall(text, log.read_text())) >= times:
            return
        time.sleep(0.1)
    raise AssertionError(f"{log} holds '{text}' fewer than {times} times:\n{log.read_text()}")
