"""Faults put into real trainings, and the ledger of what they cost, printed when all tests have ended."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient

from conftest import PENGUINS
from pipeline import train

EPOCHS = 60
# dropout, so that a generator that is not restored would show in the weights
SETTINGS = [
    f"training.epochs={EPOCHS}",
    "model.dropout=0.2",
    "tracking.registered_model=null",
    "recovery.stall_timeout_s=10",
]


@dataclass
class Fault:
    """One kind of fault, over all tests."""

    injected: int = 0
    survived: int = 0
    rows_lost: int = 0
    wrong_results: int = 0


LEDGER: dict[str, Fault] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Enter in the ledger what each test of hostile input and the like has shown: these count no rows of their own."""
    report = yield
    if (
        report.when == "call"
        and item.path.parent.name == "faults"
        and item.path.stem not in ("test_killed", "test_elastic")
    ):
        fault = LEDGER.setdefault(item.path.stem.removeprefix("test_").replace("_", " "), Fault())
        fault.injected += not report.skipped
        fault.survived += report.passed
        fault.wrong_results += report.failed
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not LEDGER:
        return
    terminalreporter.section("faults")
    terminalreporter.line(f"{'fault':<44}{'injected':>10}{'survived':>10}{'rows lost':>11}{'wrong results':>15}")
    for name, fault in LEDGER.items():
        numbers = f"{fault.injected:>10}{fault.survived:>10}{fault.rows_lost:>11}{fault.wrong_results:>15}"
        terminalreporter.line(f"{name:<44}{numbers}")


def rank_processes(rank: int | None = None) -> list[psutil.Process]:
    """Return the processes of the ranks (or of one) that run on this machine."""
    return [p for p in processes("horovod.spark.task.gloo_exec_fn") if rank is None or _rank(p) == rank]


def executor_processes() -> list[psutil.Process]:
    return [p for p in processes("CoarseGrainedExecutorBackend") if p.name() == "java"]


def processes(word: str) -> list[psutil.Process]:
    """Return the processes of this machine with ``word`` in their command line, shells left out."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(word in part for part in process.cmdline()) and process.name() not in ("sh", "bash"):
                found.append(process)
    return found


def _rank(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return int(process.environ().get("HOROVOD_RANK", -1))
    return -1


def newest_epoch(work_dir: Path) -> int:
    """Return the epoch of the newest checkpoint."""
    names = [path.name for path in work_dir.glob("checkpoints/*/epoch-*.safetensors")]
    return max((int(name.split("-")[1]) for name in names), default=0)


@dataclass
class Killer:
    """Does something to a process once a training has come to a certain epoch, at a random moment within it."""

    work_dir: Path
    epoch: int
    what: Callable[[], None]
    seed: int
    done_at: list[int] = field(default_factory=list)
    """The epoch of the newest checkpoint then."""

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.01):
                if newest_epoch(self.work_dir) >= self.epoch:
                    time.sleep(random.Random(self.seed).uniform(0, 0.05))
                    self.done_at.append(newest_epoch(self.work_dir))
                    self.what()
                    return

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def send(processes: list[psutil.Process], what: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            os.kill(process.pid, what)


def epoch_of(seed: int) -> int:
    """Return a random epoch that is not among the last."""
    return random.Random(seed).randrange(2, EPOCHS - 15)


@pytest.fixture(scope="session")
def uninterrupted(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the summary of the training to which nothing happens."""
    work = tmp_path_factory.mktemp("uninterrupted")
    return train.train(str(PENGUINS), [f"run.work_dir={work}", *SETTINGS])


def check_outcome(name: str, summary: dict[str, Any], expected: dict[str, Any], work_dir: Path) -> None:
    """Enter a fault that was survived in the ledger: right weights, each epoch's metrics once, every row seen."""
    fault = LEDGER[name]
    client = MlflowClient(f"sqlite:///{work_dir / 'mlflow.db'}")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])  # one run, however often tried
    rows = client.get_metric_history(run.info.run_id, "train_rows")
    fault.rows_lost += sum(int(4 * expected["rows"]["train"] - metric.value) for metric in rows)
    same = summary["weights_sha256"] == expected["weights_sha256"] and summary["metrics"] == expected["metrics"]
    same = same and [metric.step for metric in rows] == list(range(1, EPOCHS + 1))
    fault.wrong_results += not same
    fault.survived += 1
    assert fault.rows_lost == 0
    assert [metric.step for metric in rows] == list(range(1, EPOCHS + 1))
    assert summary["weights_sha256"] == expected["weights_sha256"]
    assert summary["metrics"] == expected["metrics"]
    assert run.info.status == "FINISHED"
    assert not list((work_dir / "checkpoints").iterdir())  # nothing is left to do
