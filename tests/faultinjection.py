"""Faults put into real trainings, and a table of what they cost, printed when all tests have ended."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from mlflow import MlflowClient

from conftest import PENGUINS, ROOT
from pipeline import train
from submitting import processes

EPOCHS = 40
# dropout, so that a generator that is not restored would show in the weights
SETTINGS = [
    f"training.epochs={EPOCHS}",
    "model.dropout=0.2",
    "tracking.registered_model=null",
    "recovery.stall_timeout_s=10",
]
T = TypeVar("T")


def injections(values: Sequence[T]) -> list[Any]:
    """Return parameters of which `make test` takes the first, and `make test-faults` all."""
    first, *others = values
    return [first, *(pytest.param(value, marks=pytest.mark.more) for value in others)]


@dataclass
class Fault:
    """What the faults of one kind have cost: a row of the table."""

    injected: int = 0
    survived: int = 0
    rows_lost: int = 0
    wrong_results: int = 0

    def add(self, other: Fault) -> None:
        self.injected += other.injected
        self.survived += other.survived
        self.rows_lost += other.rows_lost
        self.wrong_results += other.wrong_results

    @contextlib.contextmanager
    def strikes(self, work_dir: Path, epoch: int, action: Callable[[], None], seed: int) -> Iterator[Injection]:
        """Call ``action`` once the training in ``work_dir`` has come to ``epoch``, at a random moment within it."""
        injection, ended = Injection(), threading.Event()

        def watch() -> None:
            while not ended.wait(0.01):
                if newest_epoch(work_dir) >= epoch:
                    time.sleep(random.Random(seed).uniform(0, 0.05))
                    injection.after_epochs.append(newest_epoch(work_dir))
                    action()
                    return

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield injection
        finally:
            ended.set()
            thread.join()
            self.injected += len(injection.after_epochs)


@dataclass
class Injection:
    """When a fault has struck."""

    after_epochs: list[int] = field(default_factory=list)
    """The epoch of the newest checkpoint at that moment; empty until then."""


ENTRY = pytest.StashKey[Fault]()
TABLE: dict[str, Fault] = {}


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Fault:
    """Return the table's entry of this test, whose marker names the fault."""
    entry: Fault = request.node.stash.setdefault(ENTRY, Fault())
    return entry


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Send the test's entry with its report: the table is printed by the process that starts the others."""
    report = yield
    marker = item.get_closest_marker("fault")
    if marker and report.when == "call" and not report.skipped:
        entry = item.stash.get(ENTRY, Fault(injected=1))
        # a test that passes has survived all that it has injected
        entry.survived, entry.wrong_results = int(report.passed) and entry.injected, int(report.failed)
        report.user_properties.append(("fault", {marker.args[0]: asdict(entry)}))
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    for key, entries in report.user_properties:
        if key == "fault" and report.when == "call":
            assert isinstance(entries, dict)
            for name, numbers in entries.items():
                TABLE.setdefault(name, Fault()).add(Fault(**numbers))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not TABLE:
        return
    terminalreporter.section("faults")
    terminalreporter.line(f"{'fault':<44}{'injected':>10}{'survived':>10}{'rows lost':>11}{'wrong results':>15}")
    for name, fault in TABLE.items():
        numbers = f"{fault.injected:>10}{fault.survived:>10}{fault.rows_lost:>11}{fault.wrong_results:>15}"
        terminalreporter.line(f"{name:<44}{numbers}")


def rank_processes(rank: int | None = None) -> list[psutil.Process]:
    """Return the processes of the ranks (or of one rank) that this test run has started."""
    ranks = processes("horovod.spark.task.gloo_exec_fn")
    return [process for process in ranks if rank is None or _rank(process) == rank]


def executor_processes() -> list[psutil.Process]:
    return [process for process in processes("CoarseGrainedExecutorBackend") if process.name() == "java"]


def _rank(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return int(process.environ().get("HOROVOD_RANK", -1))
    return -1


def newest_epoch(work_dir: Path) -> int:
    """Return the epoch of the newest checkpoint."""
    names = [path.name for path in work_dir.glob("checkpoints/*/epoch-*.safetensors")]
    return max((int(name.split("-")[1]) for name in names), default=0)


def send(receivers: list[psutil.Process], number: signal.Signals) -> None:
    for process in receivers:
        with contextlib.suppress(psutil.NoSuchProcess):
            os.kill(process.pid, number)


def command_of(overrides: list[str]) -> list[str]:
    """Return the command line of the job on the penguins."""
    options = [word for override in overrides for word in ("--set", override)]
    return ["spark-submit", str(ROOT / "jobs" / "train.py"), "--config", str(PENGUINS), *options]


def epoch_of(seed: int) -> int:
    """Return a random epoch that is not among the last."""
    return random.Random(seed).randrange(2, EPOCHS - 15)


@pytest.fixture(scope="session")
def uninterrupted(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the summary of a training that no fault strikes."""
    work = tmp_path_factory.mktemp("uninterrupted")
    return train.train(str(PENGUINS), [f"run.work_dir={work}", *SETTINGS])


def check_outcome(fault: Fault, summary: dict[str, Any], expected: dict[str, Any], work_dir: Path) -> None:
    """Check that the weights are right, that every epoch's metrics are there once, and that no row was lost."""
    client = MlflowClient(f"sqlite:///{work_dir / 'mlflow.db'}")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])  # one run, however often tried
    rows = client.get_metric_history(run.info.run_id, "train_rows")
    fault.rows_lost = sum(int(4 * expected["rows"]["train"] - metric.value) for metric in rows)
    assert fault.rows_lost == 0
    assert [metric.step for metric in rows] == list(range(1, EPOCHS + 1))
    assert summary["weights_sha256"] == expected["weights_sha256"]
    assert summary["metrics"] == expected["metrics"]
    assert run.info.status == "FINISHED"
    assert not list((work_dir / "checkpoints").iterdir())  # a training that has ended well leaves none
