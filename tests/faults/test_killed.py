"""Whatever is killed, at any moment: the same weights as if nothing had happened, and no epoch told twice."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from pyspark.sql import SparkSession

from conftest import PENGUINS, ROOT
from faultinjection import (
    LEDGER,
    SETTINGS,
    Fault,
    Killer,
    check_outcome,
    epoch_of,
    executor_processes,
    processes,
    rank_processes,
    send,
)
from pipeline import train
from pipeline.runtime.errors import RankLost
from submitting import submit

SEEDS = range(5)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_rank_costs_no_more_than_the_work_since_the_last_checkpoint(
    spark: SparkSession, uninterrupted: dict[str, Any], tmp_path: Path, seed: int
) -> None:
    fault = LEDGER.setdefault("a rank is killed (SIGKILL)", Fault())
    killer = Killer(tmp_path, epoch_of(seed), lambda: send(rank_processes(seed % 2), signal.SIGKILL), seed)
    with killer.at_work():
        summary = train.train(str(PENGUINS), [f"run.work_dir={tmp_path}", *SETTINGS])
    fault.injected += len(killer.done_at)
    assert summary["restarts"] == 1
    check_outcome("a rank is killed (SIGKILL)", summary, uninterrupted, tmp_path)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_hangs_is_found_out_and_its_work_done_again(
    spark: SparkSession, uninterrupted: dict[str, Any], tmp_path: Path, rank: int
) -> None:
    fault = LEDGER.setdefault("a rank hangs (SIGSTOP)", Fault())
    killer = Killer(tmp_path, epoch_of(rank + 10), lambda: send(rank_processes(rank), signal.SIGSTOP), rank)
    with killer.at_work():
        summary = train.train(str(PENGUINS), [f"run.work_dir={tmp_path}", *SETTINGS])
    fault.injected += len(killer.done_at)
    assert summary["restarts"] == 1
    assert rank_processes() == []
    check_outcome("a rank hangs (SIGSTOP)", summary, uninterrupted, tmp_path)


def test_ranks_that_are_told_to_end_keep_what_they_have_done_in_mid_epoch(
    spark: SparkSession, uninterrupted: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fault = LEDGER.setdefault("a rank is told to end (SIGTERM)", Fault())
    killer = Killer(tmp_path, epoch_of(20), lambda: send(rank_processes(1), signal.SIGTERM), 20)
    overrides = [f"run.work_dir={tmp_path}", *SETTINGS]
    with (
        killer.at_work(),
        pytest.raises(RankLost, match=r"received SIGTERM: stopped by SIGTERM in epoch \d+ after step"),
    ):
        train.train(str(PENGUINS), [*overrides, "recovery.max_restarts=0"])
    fault.injected += len(killer.done_at)
    summary = train.train(str(PENGUINS), overrides)
    assert summary["resumed_after_epoch"] >= killer.done_at[0]
    check_outcome("a rank is told to end (SIGTERM)", summary, uninterrupted, tmp_path)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_command_goes_on_after_the_driver_was_killed(
    spark: SparkSession, uninterrupted: dict[str, Any], tmp_path: Path, seed: int
) -> None:
    fault = LEDGER.setdefault("the driver is killed (SIGKILL)", Fault())
    overrides = [f"run.work_dir={tmp_path}", *SETTINGS]
    command = ["spark-submit", str(ROOT / "jobs" / "train.py"), "--config", str(PENGUINS)]
    with subprocess.Popen([*command, *(w for o in overrides for w in ("--set", o))]) as driver:
        # spark-submit is the JVM, and a child of it is Python
        def kill() -> None:
            send([p for p in processes("jobs/train.py") if p.pid != driver.pid or seed % 2], signal.SIGKILL)

        killer = Killer(tmp_path, epoch_of(seed + 30), kill, seed)
        with killer.at_work():
            assert driver.wait(timeout=200) != 0
    for _ in range(300):
        if not (left := processes("jobs/train.py")):
            break
        time.sleep(0.1)
    assert left == []  # what is left of it does not go on by itself
    fault.injected += len(killer.done_at)
    summary = train.train(str(PENGUINS), overrides)
    assert summary["resumed_after_epoch"] >= killer.done_at[0]
    check_outcome("the driver is killed (SIGKILL)", summary, uninterrupted, tmp_path)


@pytest.mark.parametrize("who", ["python", "java"])
def test_a_driver_that_is_told_to_end_leaves_all_that_was_done(
    uninterrupted: dict[str, Any], tmp_path: Path, who: str
) -> None:
    fault = LEDGER.setdefault("the driver is told to end (SIGTERM)", Fault())
    overrides = [f"run.work_dir={tmp_path}", *SETTINGS]
    command = ["spark-submit", str(ROOT / "jobs" / "train.py"), "--config", str(PENGUINS)]
    command += [word for override in overrides for word in ("--set", override)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as driver:

        def end() -> None:
            send([p for p in processes("jobs/train.py") if p.name().startswith(who)], signal.SIGTERM)

        killer = Killer(tmp_path, epoch_of(60), end, 60)
        with killer.at_work():
            said = driver.communicate(timeout=200)[1]
    assert driver.returncode != 0
    if who == "python":  # a JVM that ends leaves Python with whatever that was about to do
        assert "Traceback" not in said
        assert "error: interrupted; run the same command to go on" in said.splitlines()
        client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
        (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
        assert run.info.status == "KILLED"
    fault.injected += len(killer.done_at)
    summary = train.train(str(PENGUINS), overrides)
    assert summary["resumed_after_epoch"] >= killer.done_at[0]
    check_outcome("the driver is told to end (SIGTERM)", summary, uninterrupted, tmp_path)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_executor_is_replaced(uninterrupted: dict[str, Any], tmp_path: Path, seed: int) -> None:
    fault = LEDGER.setdefault("an executor's JVM is killed (SIGKILL)", Fault())
    killer = Killer(tmp_path, epoch_of(seed + 50), lambda: send(executor_processes()[:1], signal.SIGKILL), seed)
    with killer.at_work():
        ran = submit(PENGUINS, f"run.work_dir={tmp_path}", *SETTINGS, conf={"spark.master": "local-cluster[2,1,1024]"})
    fault.injected += len(killer.done_at)
    assert ran.code == 0, ran.stderr
    assert ran.summary["restarts"] >= 1
    check_outcome("an executor's JVM is killed (SIGKILL)", ran.summary, uninterrupted, tmp_path)
