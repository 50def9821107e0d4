"""What happens to the store while nobody looks: things are deleted, and a job is killed before or after packaging."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from pyspark.sql import SparkSession

from conftest import PENGUINS
from faultinjection import SETTINGS, Fault, check_outcome, command_of, send
from pipeline import gate, predict, train
from pipeline.runtime.errors import UserError
from pipeline.tracking import store
from submitting import processes

pytestmark = [pytest.mark.horovod, pytest.mark.more]


def tags(work_dir: Path) -> set[str]:
    """Return the names of the run's tags, as the store has them now."""
    with suppress(sqlite3.Error), sqlite3.connect(work_dir / "mlflow.db", timeout=1) as store:
        return {str(name) for (name,) in store.execute("SELECT key FROM tags")}
    return set()


@pytest.mark.parametrize(
    ("tag", "moment"),
    [
        pytest.param("weights_sha256", "before", marks=pytest.mark.fault("the driver is killed before packaging")),
        pytest.param("model_uri", "after", marks=pytest.mark.fault("the driver is killed after packaging")),
    ],
)
def test_a_job_that_is_killed_around_the_packaging_leaves_no_finished_run(
    spark: SparkSession, uninterrupted: dict[str, Any], fault: Fault, tmp_path: Path, tag: str, moment: str
) -> None:
    overrides = [f"run.work_dir={tmp_path}", *SETTINGS]
    with subprocess.Popen(command_of(overrides)) as driver:
        for _ in range(20_000):
            if tag in tags(tmp_path):
                break
            assert driver.poll() is None
            time.sleep(0.01)
        send(processes("jobs/train.py"), signal.SIGKILL)
        fault.injected += 1
        assert driver.wait(timeout=60) != 0
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert run.info.status == "RUNNING"
    assert ("model_uri" in run.data.tags) == (moment == "after")
    with pytest.raises(UserError, match="has no finished run"):
        gate.judge(str(PENGUINS), [f"run.work_dir={tmp_path}", *SETTINGS[:3], "tracking.registered_model=m"])
    summary = train.train(str(PENGUINS), overrides)
    assert summary["run_id"] == run.info.run_id
    check_outcome(fault, summary, uninterrupted, tmp_path)


@pytest.mark.fault("an experiment is deleted, an alias dangles")
def test_what_somebody_deletes_in_the_store_stops_no_training(
    spark: SparkSession, fault: Fault, tmp_path: Path
) -> None:
    overrides = [
        f"run.work_dir={tmp_path}",
        "training.epochs=2",
        "tracking.registered_model=m",
        "tracking.gate.thresholds={}",
    ]
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    first = train.train(str(PENGUINS), overrides)
    assert (first["gate"]["decision"], first["gate"]["version"]) == ("promoted", "1")
    second = train.train(str(PENGUINS), overrides)
    assert (second["gate"]["decision"], second["gate"]["version"]) == ("rejected", "2")
    client.delete_model_version("m", "2")
    client.delete_model_version("m", "1")
    third = train.train(str(PENGUINS), overrides)
    assert (third["gate"]["decision"], third["gate"]["champion_version"]) == ("promoted", None)
    again = gate.judge(str(PENGUINS), overrides, second["run_id"])
    assert (again["gate"]["decision"], again["gate"]["champion_version"]) == ("rejected", third["gate"]["version"])

    (experiment,) = [e for e in client.search_experiments() if e.name == "penguins"]
    client.delete_experiment(experiment.experiment_id)
    fault.injected += 1
    for job in (train.train, gate.judge):
        with pytest.raises(UserError, match=r"'penguins' was deleted; restore it \(.*\) or name another"):
            job(str(PENGUINS), overrides)
    client.restore_experiment(experiment.experiment_id)
    assert train.train(str(PENGUINS), overrides)["status"] == "ok"


@pytest.mark.fault("the champion is poisoned")
def test_a_poisoned_champion_blocks_the_gate_and_scores_nothing(
    spark: SparkSession, fault: Fault, tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    overrides = [f"run.work_dir={tmp_path}", "training.epochs=2", "tracking.registered_model=m"]
    overrides.append("tracking.gate.thresholds={}")
    train.train(str(PENGUINS), overrides)
    second = train.train(str(PENGUINS), overrides)
    with store.active(uri):  # where the store itself keeps it
        files = Path(mlflow.artifacts.download_artifacts("models:/m/1")) / "artifacts" / "model"
    poisons = {
        "features.sql": ["SELECT reflect('java.lang.System', 'exit', 3) AS Island FROM raw", "SELECT x.y(1) FROM raw"],
        "model.json": ["{}", "[" * 100_000],
        "pipeline.yaml": ["source: 1", "a: &a [x]\nb: *a"],
        "weights.safetensors": ["", "x" * 1000],
    }
    fault.injected = sum(len(contents) for contents in poisons.values())
    for name, contents in poisons.items():
        good = (files / name).read_bytes()
        for content in contents:
            (files / name).write_text(content)
            blocked = gate.judge(str(PENGUINS), overrides, second["run_id"])["gate"]
            assert (blocked["decision"], blocked["version"]) == ("blocked", second["gate"]["version"])
            output = tmp_path / "scored"
            with pytest.raises(UserError):
                predict.predict_files("models:/m/1", [str(PENGUINS.parent / "penguins.csv")], str(output), "csv", uri)
            assert not output.exists()
        (files / name).write_bytes(good)
    assert gate.judge(str(PENGUINS), overrides, second["run_id"])["gate"]["decision"] == "rejected"
