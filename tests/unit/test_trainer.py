"""One rank trains by itself: what a stop within an epoch keeps. Horovod starts in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT

STOP_AND_RESUME = """
import dataclasses, sys
from pathlib import Path
from datasets import write_dataset
from pipeline.config import load_config
from pipeline.runtime.errors import Stopped
from pipeline.runtime.storage import Folder
from pipeline.tracking import runs, store
from pipeline.training import checkpoint, late_compiler
from pipeline.training.exchange import Ranks
from pipeline.training.task import Task
from pipeline.training.trainer import Trainer

folder, cache = Path(sys.argv[1]), sys.argv[2]
config = load_config(folder / "pipeline.yaml")
data = write_dataset(folder / "data", 103, 11, 2)
uri = store.tracking_uri(config)
store.open_store(config, uri)()
late_compiler.install()
ranks = Ranks.start()

def a_task(name):
    checkpoints = Folder(str(folder / name))
    checkpoints.make()
    run_id = runs.start_run(config, uri)
    return Task(config, data, Folder(str(folder / "data")), uri, run_id, {"driver": 1}, checkpoints, cache=cache)

whole = Trainer(a_task("whole"), ranks).train()
task, steps = a_task("stopped"), []
try:
    # 11 steps per epoch: the 17th is the 6th of epoch 2
    Trainer(task, ranks, stop_asked=lambda: steps.append(1) or len(steps) == 17).train()
except Stopped as stopped:
    assert str(stopped) == "stopped by SIGTERM in epoch 2 after step 6 of 11", stopped
name, progress = checkpoint.newest(task.checkpoints, cache)
assert (progress.epoch, progress.step) == (1, 6)
task = dataclasses.replace(task, checkpoint=name)
resumed = Trainer(task, ranks, checkpoint.of_task(task)).train()
assert resumed.weights_sha256 == whole.weights_sha256
assert [(r.train, r.validation) for r in resumed.history] == [(r.train, r.validation) for r in whole.history]
assert resumed.evaluation == whole.evaluation
assert [r.train.rows for r in resumed.history] == [103] * 3
ranks.shut_down()
print("all well")
"""


@pytest.mark.parametrize("cache", ["memory", "stream"])
def test_a_training_that_stops_within_an_epoch_resumes_with_the_same_bytes(tmp_path: Path, cache: str) -> None:
    (tmp_path / "features.sql").write_text("SELECT a, k, y FROM raw")
    (tmp_path / "pipeline.yaml").write_text(
        f"""
        source: {{path: none.csv, schema: "a DOUBLE, k STRING, y INT"}}
        features: {{numeric: [a], categorical: [k]}}
        label: {{column: y, classes: [even, odd]}}
        model: {{preset: none, hidden_sizes: [4], dropout: 0.3}}
        training: {{epochs: 3, batch_size: 10}}
        run: {{work_dir: {tmp_path / "work"}}}
        """
    )
    path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "HOROVOD_RANK": "0", "HOROVOD_SIZE": "1"}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STOP_AND_RESUME, str(tmp_path), cache],
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ran.stdout.endswith("all well\n"), ran.stderr
