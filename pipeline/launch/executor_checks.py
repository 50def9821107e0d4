"""Whether every executor can do its part: run this package, see the same files as the driver, be reached by others."""

from __future__ import annotations

import os
import re
import socket
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.config import Config
from pipeline.launch.executors import Executor, executors, local_slots
from pipeline.runtime import storage
from pipeline.training.placement import Place, here

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_TASKS_PER_EXECUTOR = 4
_TASK_S = 0.2
"""So long does a task of the check take, so that one executor does not run the tasks of all."""


@dataclass(frozen=True)
class SharedPath:
    """A path that an executor must see as the driver does."""

    setting: str
    path: str
    witness: str
    """What exists there if the executor sees the driver's file system."""


@dataclass(frozen=True)
class Answer:
    """What a task of the check has observed on its executor."""

    place: Place
    missing: list[SharedPath]
    """The paths that the executor does not see."""
    address: str
    """What its host's own name resolves to; empty: no address."""


def check_executors(spark: SparkSession, config: Config, ranks: int = 0) -> None:
    """Run a task on every executor before any work is done, and raise what an executor lacks.

    An executor must be able to run this package, and must see sources that are paths under the driver's path. Where
    ``ranks`` will run, an executor must also see the folder of the prepared data, or have the package that reaches its
    store, and other hosts must be able to reach its host. The check waits for an executor that has registered but still
    unpacks what spark-submit ships: without the wait, the ranks would crowd on the other executors.

    Raises:
        UserError: an executor cannot run this package or does not see a path, or does not answer in time.
    """
    if local_slots(str(spark.sparkContext.master)) is not None:
        return
    sources, data = _local_sources(spark, config), config.data_dir
    if not ranks:
        _ask_executors(spark, config, ranks, sources)
    elif not data.is_local:
        _ask_executors(spark, config, ranks, sources, data)
    else:
        with tempfile.TemporaryDirectory(dir=data.path, prefix=".seen-by-executors-") as witness:
            setting = "run.data_dir" if config.run.data_dir else "run.work_dir"
            _ask_executors(spark, config, ranks, [SharedPath(setting, data.path, witness), *sources])


def unreachable(answers: Sequence[Answer], known: Sequence[Executor]) -> str | None:
    """Return the sentence that names an executor whose host has no address for other hosts; None if each has one.

    Horovod 0.28 forgets the network interface when it connects the ranks of a process set, as it does in
    every training. The ranks then connect to the address that each host's own name resolves to on that host. On Debian
    that is 127.0.1.1 unless /etc/hosts says otherwise.
    """
    if len({executor.host for executor in known}) < 2:
        return None
    for answer in answers:
        if not answer.address or answer.address.startswith("127."):
            place = answer.place
            problem = f"resolves to {answer.address}" if answer.address else "has no address"
            return (
                f"executor {place.executor}: the host's own name, {place.host}, {problem}, so ranks on other hosts "
                "cannot reach it; let /etc/hosts there give the name an address of its network"
            )
    return None


def _local_sources(spark: SparkSession, config: Config) -> list[SharedPath]:
    """Return the sources that are on a local file system; of a pattern the folder before it must exist."""
    default = str(spark.sparkContext._jsc.hadoopConfiguration().get("fs.defaultFS", "file:///"))
    sources = []
    for path in config.source_paths:
        if storage.scheme(path) == "file" or (storage.scheme(path) is None and default.startswith("file:")):
            local = str(storage.local_path(path))
            fixed, *pattern = re.split(r"[*?\[{]", local, maxsplit=1)
            sources.append(SharedPath("source.path", local, os.path.dirname(fixed) if pattern else local))
    return sources


def _ask_executors(
    spark: SparkSession,
    config: Config,
    ranks: int,
    paths: Sequence[SharedPath],
    store: storage.Folder | None = None,
) -> None:
    """Run tasks until every live executor has answered; raise UserError for what one of them lacks."""
    begin = time.monotonic()
    answered: set[str] = set()
    silent = {executor.id for executor in executors(spark)}
    while silent:
        answers = _collect_answers(spark, config, len(silent), paths, store)
        _check_answers(config, answers, executors(spark) if ranks > 1 else [])
        answered |= {answer.place.executor for answer in answers}
        live = {executor.id for executor in executors(spark)}
        silent = live - answered
        if len(answered) >= len(live):
            return  # also where the executors' processes do not carry the ids that Spark lists
        if time.monotonic() - begin > config.run.start_timeout_s:
            problem = f"executor(s) {', '.join(sorted(silent))} run no task within {config.run.start_timeout_s} s"
            raise config.mistake("run.start_timeout_s", f"{problem} of having registered; look at their logs")


def _collect_answers(
    spark: SparkSession, config: Config, silent: int, paths: Sequence[SharedPath], store: storage.Folder | None
) -> list[Answer]:
    """Run a few tasks for each of the ``silent`` executors; return a place and the missing paths of each task."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    from pipeline.runtime.session import progress

    tasks = _TASKS_PER_EXECUTOR * silent
    rdd = spark.sparkContext.parallelize(range(tasks), tasks).map(lambda _: _observe(paths, store))
    try:
        with progress(spark, f"asking {silent} executor(s) whether they are ready"):
            return rdd.collect()
    except (Py4JError, PySparkException) as error:
        # Spark wraps the executor's own error in its traceback
        cause = re.search(r"\w*Error: .*|Cannot run program.*", str(error))
        problem = f"the executors cannot run this package ({cause[0] if cause else type(error).__name__})"
        raise config.mistake("run", f"{problem}; give them its environment (see conf/spark/README.md)") from None


def _check_answers(config: Config, answers: Sequence[Answer], peers: Sequence[Executor]) -> None:
    """Raise UserError if an executor lacks a path, or cannot be reached by its ``peers``."""
    for answer in answers:
        for path in answer.missing:
            where = f"executor {answer.place.executor} on {answer.place.host}"
            problem = f"{where} does not see {path.path}, or not what the driver sees there"
            raise config.mistake(path.setting, f"{problem}; name a folder that the driver and all executors share")
    if problem_of_host := unreachable(answers, peers):
        raise config.mistake("run", problem_of_host)


def _observe(paths: Sequence[SharedPath], store: storage.Folder | None) -> Answer:
    """Return where this process runs and which paths it does not see; Spark runs this on the executors."""
    if store:
        store.filesystem()  # raises ImportError, which names the package that is missing
    time.sleep(_TASK_S)
    missing = [path for path in paths if not os.path.exists(path.witness)]
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        address = ""
    return Answer(here(), missing, address)
