"""What happens when the tracking server goes away, or lets nobody in."""

from __future__ import annotations

import json
import math
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from conftest import PENGUINS, ROOT
from datasets import an_epoch
from pipeline.config import load_config
from pipeline.evaluation.metrics import SplitMetrics
from pipeline.runtime.errors import UserError
from pipeline.tracking import metric_writer, store
from submitting import background
from trackingserver import SECRET, USER, Server, await_line


@contextmanager
def training(server: Server, log: Path, *overrides: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the main job for the block, logging to ``server``."""
    command = ["spark-submit", str(ROOT / "jobs" / "train.py"), "--config", str(PENGUINS)]
    for override in (f"tracking.uri={server.uri}", *overrides):
        command += ["--set", override]
    credentials = {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": SECRET}
    with background(command, log, env={**os.environ, **credentials}) as job:
        yield job


def test_a_wrong_password_is_an_error_before_any_work(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
    config = load_config(PENGUINS, [f"tracking.uri={server.uri}"])
    with pytest.raises(UserError, match="cannot use the MLflow store"):
        store.open_store(config, server.uri)()
    with_password = load_config(PENGUINS, [f"tracking.uri=http://{USER}:{SECRET}@127.0.0.1"])
    with pytest.raises(UserError, match="must hold no password") as raised:
        store.tracking_uri(with_password)
    assert SECRET not in str(raised.value)


def test_epochs_wait_for_a_server_that_comes_back(
    server: Server, client: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = client.create_run(client.create_experiment("away")).info.run_id
    slowest = 0.0
    with metric_writer.MetricWriter(server.uri, run_id) as writer:
        for epoch in range(1, 61):
            if epoch == 21:
                await_that(lambda: not writer.pending)
                server.kill()
            if epoch == 41:
                await_that(lambda: "the MLflow store does not answer; training goes on" in capsys.readouterr().err)
                assert [record.epoch for record in writer.pending] == list(range(21, 41))
                server.start()
            begin = time.monotonic()
            writer.write(an_epoch(epoch, SplitMetrics(10, 1 / epoch, {"r2": math.nan})))
            slowest = max(slowest, time.monotonic() - begin)
        await_that(lambda: not writer.pending)
    assert slowest < 1  # it only appends to a list
    history = client.get_metric_history(run_id, "train_loss")
    assert [(m.step, m.value) for m in history] == [(epoch, 1 / epoch) for epoch in range(1, 61)]
    assert "answers again" in capsys.readouterr().err

    # what the store refuses is no matter of waiting, and none to stop for
    with metric_writer.MetricWriter(server.uri, "0" * 32) as refused:
        refused.write(an_epoch(1))
    assert len(refused.pending) == 1
    assert "the MLflow store refuses the metrics; training goes on" in capsys.readouterr().err
    # to send again what has arrived already is harmless
    metric_writer.log_records(server.uri, run_id, [an_epoch(m.step, SplitMetrics(10, m.value, {})) for m in history])
    assert len(client.get_metric_history(run_id, "train_loss")) == 60


def await_that(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("the condition did not become true within a minute")


@pytest.mark.more
def test_a_server_that_stays_away_twice_costs_no_training(server: Server, tmp_path: Path) -> None:
    log, work = tmp_path / "job.log", tmp_path / "work"
    settings = f"run.work_dir={work}", "training.epochs=40"
    for line in ("epoch  5/40", "going on after epoch"):
        if not server.is_running:
            server.start()
        with training(server, log, *settings) as job:
            await_line(log, line, job)
            server.kill()
            assert job.wait(timeout=400) == 1
        output = log.read_text()
        (kept,) = (work / "undelivered").iterdir()
        assert f"training has ended well, but the MLflow store {server.uri} does not answer" in output
        assert f"are kept in {kept}; run again when the store is back" in output
        assert "Traceback" not in output
        assert SECRET not in output
        model = mlflow.pyfunc.load_model(str(kept / "model"))
        assert set(model.metadata.get_input_schema().input_names()) >= {"Island", "BodyMass"}
        epochs = [json.loads(line)["epoch"] for line in (kept / "metrics.jsonl").read_text().splitlines()]
        assert epochs == list(range(epochs[0], 41))
    server.start()
    with training(server, log, *settings) as job:
        assert job.wait(timeout=400) == 0


def test_a_server_that_is_not_there_is_an_error_before_any_work(one_server: Server, tmp_path: Path) -> None:
    one_server.kill()
    log = tmp_path / "job.log"
    with training(one_server, log, f"run.work_dir={tmp_path / 'work'}") as job:
        assert job.wait(timeout=100) == 2
    errors = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert f"tracking.uri: cannot use the MLflow store {one_server.uri}" in errors[0]
    assert "preparing" not in log.read_text()
