"""Elastic ranks: an executor dies, training goes on with the other one, and takes in the one that replaces it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from mlflow import MlflowClient

from conftest import PENGUINS
from faultinjection import SETTINGS, Fault, executor_processes, injections, send
from submitting import submit

pytestmark = [pytest.mark.horovod, pytest.mark.cluster]
# slow enough that a new executor comes while training goes on: else all epochs take a second
SLOW = ["training.batch_size=1", "split.oversample=8"]
EPOCHS_AFTER = 14  # the new executor has come after three or four of them, on a busy machine after more than eight
# the first rank waits while the new one imports torch, which takes more than SETTINGS' 10 seconds on a busy machine
PATIENT = ["recovery.stall_timeout_s=60"]


@pytest.mark.fault("an executor is killed (SIGKILL), elastic")
@pytest.mark.parametrize("seed", injections(range(3)))
def test_training_goes_on_without_a_killed_executor_and_takes_in_the_next_one(
    fault: Fault, tmp_path: Path, seed: int
) -> None:
    before = 1 + seed
    epochs = before + EPOCHS_AFTER
    overrides = [f"run.work_dir={tmp_path}", *SETTINGS, *SLOW, *PATIENT, f"training.epochs={epochs}"]
    overrides += ["recovery.elastic={min: 1, max: 2}"]
    with fault.strikes(tmp_path, before, lambda: send(executor_processes()[:1], signal.SIGKILL), seed) as injection:
        # two cores each: room for a second rank on the executor that is left, which must stay free
        ran = submit(PENGUINS, *overrides, conf={"spark.master": "local-cluster[2,2,1024]"})
    assert ran.code == 0, ran.stderr
    assert ran.summary["restarts"] == 0, ran.stderr
    assert ran.summary["resets"] == 2

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    history = {name: client.get_metric_history(ran.summary["run_id"], name) for name in ("train_rows", "ranks")}
    lost = [int(8 * ran.summary["rows"]["train"] - metric.value) for metric in history["train_rows"]]
    fault.rows_lost = sum(lost)
    assert set(lost) == {0}
    for metrics in history.values():
        assert [metric.step for metric in metrics] == list(range(1, epochs + 1))
    ranks = [int(metric.value) for metric in history["ranks"]]
    (epoch,) = injection.after_epochs
    assert ranks[:epoch] == [2] * epoch  # no epoch that was over is done again
    assert 1 in ranks
    assert ran.summary["num_proc"] == ranks[-1] == 2
    assert ran.summary["metrics"]["accuracy"] > 0.9
    assert not list((tmp_path / "checkpoints").iterdir())
