"""Whatever is killed, at any moment: the weights equal an undisturbed training, and no epoch is logged twice."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from pyspark.sql import SparkSession

from conftest import PENGUINS
from faultinjection import (
    SETTINGS,
    Fault,
    check_outcome,
    command_of,
    epoch_of,
    executor_processes,
    injections,
    rank_processes,
    send,
)
from pipeline import train
from pipeline.runtime.errors import RankLost
from submitting import processes, submit

pytestmark = pytest.mark.horovod
SEEDS = range(5)


@pytest.mark.fault("a rank is killed (SIGKILL)")
@pytest.mark.parametrize("seed", injections(SEEDS))
def test_a_killed_rank_costs_no_more_than_the_work_since_the_last_checkpoint(
    spark: SparkSession, uninterrupted: dict[str, Any], fault: Fault, tmp_path: Path, seed: int
) -> None:
    with fault.strikes(tmp_path, epoch_of(seed), lambda: send(rank_processes(seed % 2), signal.SIGKILL), seed):
        summary = train.train(str(PENGUINS), [f"run.work_dir={tmp_path}", *SETTINGS])
    assert summary["restarts"] == 1
    check_outcome(fault, summary, uninterrupted, tmp_path)


@pytest.mark.fault("a rank hangs (SIGSTOP)")
@pytest.mark.parametrize("rank", injections([0, 1]))
def test_a_rank_that_hangs_is_detected_and_its_work_is_done_again(
    spark: SparkSession, uninterrupted: dict[str, Any], fault: Fault, tmp_path: Path, rank: int
) -> None:
    with fault.strikes(tmp_path, epoch_of(rank + 10), lambda: send(rank_processes(rank), signal.SIGSTOP), rank):
        summary = train.train(str(PENGUINS), [f"run.work_dir={tmp_path}", *SETTINGS])
    assert summary["restarts"] == 1
    assert rank_processes() == []
    check_outcome(fault, summary, uninterrupted, tmp_path)


@pytest.mark.fault("a rank gets SIGTERM")
def test_ranks_that_get_sigterm_keep_the_steps_of_an_unfinished_epoch(
    spark: SparkSession, uninterrupted: dict[str, Any], fault: Fault, tmp_path: Path
) -> None:
    overrides = [f"run.work_dir={tmp_path}", *SETTINGS]
    with (
        fault.strikes(tmp_path, epoch_of(20), lambda: send(rank_processes(1), signal.SIGTERM), 20) as injection,
        pytest.raises(RankLost, match=r"received SIGTERM: stopped by SIGTERM in epoch \d+ after step"),
    ):
        train.train(str(PENGUINS), [*overrides, "recovery.max_restarts=0"])
    summary = train.train(str(PENGUINS), overrides)
    assert summary["resumed_after_epoch"] >= injection.after_epochs[0]
    check_outcome(fault, summary, uninterrupted, tmp_path)


@pytest.mark.fault("the driver is killed (SIGKILL)")
@pytest.mark.parametrize("seed", injections(SEEDS))
def test_the_same_command_goes_on_after_the_driver_was_killed(
    spark: SparkSession, uninterrupted: dict[str, Any], fault: Fault, tmp_path: Path, seed: int
) -> None:
    overrides = [f"run.work_dir={tmp_path}", *SETTINGS]
    with subprocess.Popen(command_of(overrides)) as driver:
        # spark-submit is the JVM, and a child of it is Python
        def kill() -> None:
            send([p for p in processes("jobs/train.py") if p.pid != driver.pid or seed % 2], signal.SIGKILL)

        with fault.strikes(tmp_path, epoch_of(seed + 30), kill, seed) as injection:
            assert driver.wait(timeout=200) != 0
    for _ in range(300):
        if not (left := processes("jobs/train.py")):
            break
        time.sleep(0.1)
    assert left == []  # what is left of it does not go on by itself
    summary = train.train(str(PENGUINS), overrides)
    assert summary["resumed_after_epoch"] >= injection.after_epochs[0]
    check_outcome(fault, summary, uninterrupted, tmp_path)


@pytest.mark.fault("the driver gets SIGTERM")
@pytest.mark.parametrize("name", injections(["python", "java"]))
def test_a_driver_that_gets_sigterm_keeps_all_that_was_done(
    spark: SparkSession, uninterrupted: dict[str, Any], fault: Fault, tmp_path: Path, name: str
) -> None:
    overrides = [f"run.work_dir={tmp_path}", *SETTINGS]
    with subprocess.Popen(command_of(overrides), stderr=subprocess.PIPE, text=True) as driver:

        def end() -> None:
            send([p for p in processes("jobs/train.py") if p.name().startswith(name)], signal.SIGTERM)

        with fault.strikes(tmp_path, epoch_of(60), end, 60) as injection:
            stderr = driver.communicate(timeout=200)[1]
    assert driver.returncode != 0
    if name == "python":  # a JVM that ends does not let Python finish what it was about to do
        assert "Traceback" not in stderr
        assert "error: interrupted; run the same command to go on" in stderr.splitlines()
        client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
        (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
        assert run.info.status == "KILLED"
    summary = train.train(str(PENGUINS), overrides)
    assert summary["resumed_after_epoch"] >= injection.after_epochs[0]
    check_outcome(fault, summary, uninterrupted, tmp_path)


@pytest.mark.cluster
@pytest.mark.fault("an executor's JVM is killed (SIGKILL)")
@pytest.mark.parametrize("seed", injections(SEEDS))
def test_a_killed_executor_is_replaced(uninterrupted: dict[str, Any], fault: Fault, tmp_path: Path, seed: int) -> None:
    with fault.strikes(tmp_path, epoch_of(seed + 50), lambda: send(executor_processes()[:1], signal.SIGKILL), seed):
        ran = submit(PENGUINS, f"run.work_dir={tmp_path}", *SETTINGS, conf={"spark.master": "local-cluster[2,1,1024]"})
    assert ran.code == 0, ran.stderr
    assert ran.summary["restarts"] >= 1
    check_outcome(fault, ran.summary, uninterrupted, tmp_path)
