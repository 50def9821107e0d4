"""Try the jobs in surroundings that others have, one after the other, and print what each got.

``python tests/surroundings.py [WORD ...]`` in the environment of `make train`; with words, only those whose name holds
one. Each must train, or end with exit code 2 and one sentence; none may show a traceback or hang. Those that need root
(another host name, another user, a checkout that cannot be written) are passed over without it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyspark
import yaml

ROOT = Path(__file__).parents[1]
_SETTINGS = ("training.epochs=1", "tracking.registered_model=null")
_LIMIT_S = 300
ODD_NAMES = ("[v2]", "{a}", "C#", "50% off", "what?", "données")


@dataclass(frozen=True)
class Surrounding:
    """One way in which a machine, an environment or a path differs from ours."""

    name: str
    sentence: str | None = None
    """What the one sentence must hold; None: the job must train."""
    environment: Mapping[str, str | None] = field(default_factory=dict)
    """Variables to set, or with None to take away."""
    options: Sequence[str] = ()
    """Of spark-submit."""
    by_make: bool = False
    """Whether `make train` starts the job, not spark-submit."""
    enter: Sequence[str] = ()
    """What starts the command."""
    config: Path = ROOT / "conf" / "penguins" / "pipeline.yaml"
    settings: Sequence[str] = ()

    def command(self, work_dir: Path) -> list[str]:
        """Return the command line."""
        settings = [f"run.work_dir={work_dir}", *_SETTINGS, *self.settings]
        if self.by_make:
            quoted = " ".join(f"--set '{setting}'" for setting in settings)
            return [*self.enter, "make", "-o", ".venv/.ready", "train", f"CONFIG={self.config}", f"ARGS={quoted}"]
        arguments = [word for setting in settings for word in ("--set", setting)]
        job = ["spark-submit", *self.options, str(ROOT / "jobs" / "train.py"), "--config", str(self.config)]
        return [*self.enter, *job, *arguments]


@dataclass(frozen=True)
class Got:
    """What a surrounding got."""

    code: int
    seconds: float
    text: str
    flaw: str
    """Why that is wrong; empty if it is right."""


def attempt(surrounding: Surrounding, work_dir: Path) -> Got:
    """Run the job in the surrounding."""
    environment = dict(os.environ)
    for name, value in surrounding.environment.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value
    begin = time.monotonic()
    try:
        ran = subprocess.run(
            surrounding.command(work_dir), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=_LIMIT_S
        )
    except subprocess.TimeoutExpired:
        return Got(-1, _LIMIT_S, "", "it hangs")
    seconds = time.monotonic() - begin
    output = ran.stdout + ran.stderr
    sentences = re.findall(r"^error: .*$", output, flags=re.MULTILINE)
    text = sentences[0] if sentences else (ran.stdout.strip().splitlines() or [""])[-1]
    return Got(ran.returncode, seconds, text, _flaw(surrounding, ran.returncode, output, sentences))


def _flaw(surrounding: Surrounding, code: int, output: str, sentences: Sequence[str]) -> str:
    if "Traceback (most recent call last)" in output or "\n\tat " in output:
        return f"a traceback: {output[-1500:]}"
    if surrounding.sentence is None:
        summaries = [line for line in output.splitlines() if line.startswith('{"status": "ok"')]
        return (
            ""
            if code == 0 and summaries and json.loads(summaries[0])["epochs"] == 1
            else f"no training: {output[-600:]}"
        )
    if code != 2 or len(sentences) != 1 or surrounding.sentence not in sentences[0]:
        return f"not the sentence with '{surrounding.sentence}': {output[-600:]}"
    return ""


# ---- the surroundings ------------------------------------------------------------------------------------------------


def surroundings(scratch: Path) -> Iterator[Surrounding]:
    """Yield every surrounding; files that they need go to ``scratch``."""
    yield from _environments(scratch)
    yield from _machines(scratch)
    yield from _settings_of_spark()
    yield from _paths(scratch)


def _environments(scratch: Path) -> Iterator[Surrounding]:
    other, package = _another_spark(scratch), scratch / "packages"
    (package / "pipeline").mkdir(parents=True)
    (package / "pipeline" / "__init__.py").write_text("")
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin:/bin") or "/usr/bin/python3"
    yarn = scratch / "yarn-conf"
    yarn.mkdir()
    (yarn / "spark-defaults.conf").write_text("spark.master yarn\n")

    def make(name: str, **environment: str | None) -> Surrounding:
        return Surrounding(f"make train, {name}", environment=environment, by_make=True)

    yield make("SPARK_HOME of another Spark", SPARK_HOME=str(other))
    yield make("PYSPARK_DRIVER_PYTHON=jupyter", PYSPARK_DRIVER_PYTHON="jupyter", PYSPARK_DRIVER_PYTHON_OPTS="notebook")
    yield make("PYSPARK_PYTHON of another Python", PYSPARK_PYTHON=python)
    yield make("JAVA_HOME is missing", JAVA_HOME=str(scratch / "no-java"))
    yield make("PYTHONPATH with a package pipeline", PYTHONPATH=str(package))
    yield make("SPARK_CONF_DIR of a cluster", SPARK_CONF_DIR=str(yarn))
    yield make("VENV and MASTER are set", VENV="/opt/venv", MASTER="yarn")
    yield make("HOME is not set", HOME=None)
    yield make("Turkish", LANG="tr_TR.UTF-8", LC_ALL="tr_TR.UTF-8")
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    yield make("proxies", **proxies)
    accents = scratch / "données C"
    yield Surrounding(
        "make train, LC_ALL=C and a path with accents",
        environment={"LC_ALL": "C", "LANG": None},
        by_make=True,
        settings=[f"run.data_dir={accents}"],
    )

    yield Surrounding("SPARK_HOME of another Spark", "is Spark 3.3.9", {"SPARK_HOME": str(other)})
    yield Surrounding("PYSPARK_PYTHON of another Python", "source conf/spark/env.sh", {"PYSPARK_PYTHON": python})
    yield Surrounding("PYSPARK_DRIVER_PYTHON=jupyter", environment={"PYSPARK_DRIVER_PYTHON": "jupyter"})
    yield Surrounding("JAVA_HOME is missing", "JAVA_HOME", {"JAVA_HOME": str(scratch / "no-java")})
    for release in ("1.7.0_80", "25.0.1"):
        java = scratch / f"java-{release}"
        (java / "bin").mkdir(parents=True)
        (java / "bin" / "java").write_text(f"#!/bin/sh\necho 'openjdk version \"{release}\"' >&2\n")
        (java / "bin" / "java").chmod(0o755)
        yield Surrounding(f"JAVA_HOME of Java {release}", "Spark 3.5 runs on 8 to 23", {"JAVA_HOME": str(java)})
    yield Surrounding("PYTHONPATH with a package pipeline", "'pipeline'", {"PYTHONPATH": str(package)})
    yield Surrounding("LC_ALL=C and a path with accents", environment={"LC_ALL": "C"}, config=_copy(accents))
    yield Surrounding("LC_ALL=C", environment={"LC_ALL": "C"})


def _another_spark(scratch: Path) -> Path:
    """Return a Spark that says of itself that it is 3.3.9."""
    installed, other = Path(str(pyspark.__file__)).parent, scratch / "spark-3.3.9"
    (other / "python" / "lib").mkdir(parents=True)
    for part in ("bin", "jars", "sbin"):
        (other / part).symlink_to(installed / part)
    for archive in (installed / "python" / "lib").glob("*.zip"):
        if archive.name != "pyspark.zip":
            shutil.copy(archive, other / "python" / "lib")
    with (
        zipfile.ZipFile(installed / "python" / "lib" / "pyspark.zip") as theirs,
        zipfile.ZipFile(other / "python" / "lib" / "pyspark.zip", "w") as ours,
    ):
        for name in theirs.namelist():
            ours.writestr(name, '__version__ = "3.3.9"\n' if name == "pyspark/version.py" else theirs.read(name))
    return other


def _machines(scratch: Path) -> Iterator[Surrounding]:
    if os.getuid() != 0:
        return
    shell = ["unshare", "--uts", "sh", "-c", 'hostname nowhere-to-be-found; exec "$@"', "-"]
    if _can(shell):
        yield Surrounding("a host name without an address", "nowhere-to-be-found", enter=shell)
    user = ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"]
    user += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]  # this environment may be root's own
    if _can(user):
        yield Surrounding("a user id without a name", "user id 54321", enter=user, environment={"HOME": "/tmp"})
    weak = ["setpriv", *(f"--{kind}=-dac_override,-dac_read_search" for kind in ("inh-caps", "bounding-set"))]
    if _can(weak):  # root, but bound by permissions
        folder, file = _copy(scratch / "locked").parent, _copy(scratch / "open").parent / "penguins.csv"
        for path in (folder, file):
            os.chown(path, 54321, 54321)
            path.chmod(0o700)
        for name, path in (("folder", folder), ("file", file), ("folder above a file", folder / "penguins.csv")):
            where = [f"source.path={path}"]
            yield Surrounding(f"a source's {name} that may not be read", "read", enter=weak, settings=where)
    read_only = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && cd "$0" && exec "$@"'
    enter = ["unshare", "--mount", "sh", "-c", read_only, str(ROOT)]
    if not _can(enter):
        return
    yield Surrounding("a checkout that cannot be written", by_make=True, enter=enter)
    yield Surrounding(
        "a checkout that cannot be written, and run.work_dir in it",
        "run.work_dir",
        enter=enter,
        settings=[f"run.work_dir={ROOT / 'nowhere'}"],
    )


def _can(enter: Sequence[str]) -> bool:
    """Return whether a command can be started so; containers may forbid it."""
    return subprocess.run([*enter, "true"], capture_output=True, timeout=60).returncode == 0


def _settings_of_spark() -> Iterator[Surrounding]:
    def conf(setting: str, sentence: str | None = None) -> Surrounding:
        return Surrounding(setting, sentence, options=["--conf", setting])

    yield conf("spark.task.cpus=2")
    yield conf("spark.task.cpus=3", "cpus per task")
    yield conf("spark.speculation=true", "spark.speculation")
    yield conf("spark.task.maxFailures=1")
    yield conf("spark.python.worker.reuse=false")
    yield conf("spark.dynamicAllocation.enabled=true")
    yield conf("spark.sql.ansi.enabled=true")


def _paths(scratch: Path) -> Iterator[Surrounding]:
    for name in ODD_NAMES:
        folder = scratch / "names" / name
        yield Surrounding(f"a configuration and its CSV in '{name}'", config=_copy(folder))
        is_plain = name == "données"
        yield Surrounding(
            f"run.work_dir is '{name}'", None if is_plain else "run.work_dir", settings=[f"run.work_dir={folder}"]
        )


def _copy(folder: Path) -> Path:
    """Copy the penguins' use case to a folder; return its configuration."""
    shutil.copytree(ROOT / "conf" / "penguins", folder, dirs_exist_ok=True)
    config = folder / "pipeline.yaml"
    assert yaml.safe_load(config.read_text())["source"]["path"] == "penguins.csv"
    return config


def main(words: Sequence[str], tell: Callable[[str], None] = print) -> int:
    """Try the surroundings whose name holds one of the ``words``, or all; return how many got what is wrong."""
    wrong = tried = 0
    with tempfile.TemporaryDirectory(prefix="surroundings-") as folder:
        scratch = Path(folder)
        scratch.chmod(0o755)
        for number, surrounding in enumerate(surroundings(scratch)):
            if words and not any(word in surrounding.name for word in words):
                continue
            got = attempt(surrounding, scratch / f"work-{number}")
            tried, wrong = tried + 1, wrong + bool(got.flaw)
            verdict, outcome = "WRONG" if got.flaw else "ok", "trained" if got.code == 0 else got.text
            tell(f"{verdict:<6}{got.seconds:>5.0f} s  exit {got.code:<4}{surrounding.name}: {outcome}")
            if got.flaw:
                tell(f"       {got.flaw}")
    tell(f"{tried} surroundings tried, {wrong} wrong")
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)
