"""Ranks on data sets of awkward sizes, and what a sick rank does to the others."""

from __future__ import annotations

import dataclasses
import io
import math
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import horovod.spark
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from pyspark.sql import SparkSession

from datasets import checksums, write_dataset
from pipeline.config import load_config
from pipeline.launch import ranks, restarts
from pipeline.runtime.errors import RankError, RankLost, UserError
from pipeline.runtime.storage import Folder
from pipeline.tracking import runs, store
from pipeline.training.task import Task, TrainingResult

TRAIN_ROWS = [1, 7, 19, 20, 21, 101]
EPOCHS = 3


MakeTask = Callable[..., Task]


@pytest.fixture
def make_task(tmp_path: Path) -> MakeTask:
    """Return a function that writes a data set of some rows and returns the task of training on it."""
    (tmp_path / "features.sql").write_text("SELECT a, k, y FROM raw")
    (tmp_path / "pipeline.yaml").write_text(
        f"""
        source: {{path: none.csv, schema: "a DOUBLE, k STRING, y INT"}}
        features:
          numeric: [{{column: a, missing: drop}}]
          categorical: [{{column: k, encoding: embedding, dim: 2, unknown: refuse, missing: drop}}]
        label: {{column: y, classes: [even, odd]}}
        model: {{preset: none, hidden_sizes: [4], dropout: 0.1}}
        training: {{epochs: {EPOCHS}, batch_size: 10}}
        run: {{work_dir: {tmp_path / "work"}}}
        """
    )
    config = load_config(tmp_path / "pipeline.yaml")
    uri = store.tracking_uri(config)
    store.open_store(config, uri)()

    def make(train_rows: int, num_proc: int = 2, numeric: bool = True, known: str = "xyz", test: int = 0) -> Task:
        folder = tmp_path / f"data{train_rows}{numeric}{known}{test}"
        data = write_dataset(folder, train_rows, 11, num_proc, test).model_copy(
            update={"vocabularies": {"k": list(known)}}
        )
        shared = Folder(str(folder))
        if not numeric:
            features = config.features.model_copy(update={"numeric": []})
            task_config, data = (
                config.model_copy(update={"features": features}),
                data.model_copy(update={"numeric": {}}),
            )
        else:
            task_config = config
        run_id = runs.start_run(config, uri)
        checkpoints = config.checkpoint_dir / run_id
        checkpoints.make()
        return Task(task_config, data, shared, uri, run_id, {"driver": 2}, checkpoints)

    return make


def change_last_row(task: Task, rank: int, column: str, value: float) -> Task:
    """Return the task with one value of a rank's training rows changed, checksums included."""
    file = (task.folder / task.data.splits["train"].row_groups[rank].path).path
    table = pq.read_table(file)
    values = [*table[column].to_pylist()[:-1], value]
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, pa.array(values, table.schema.field(column).type)), file)
    data = task.data.model_copy(update={"sha256": checksums(Path(task.folder.path), task.data.splits)})
    return dataclasses.replace(task, data=data)


def assert_measured_on_test_rows(result: TrainingResult, rows: int) -> None:
    assert (result.evaluation.rows, result.validation.rows) == (rows, 11)
    assert result.uncalibrated is not None
    assert result.temperature != 1
    assert result.evaluation.loss == result.uncalibrated.loss
    assert result.uncalibrated.loss == pytest.approx(result.uncalibrated.metrics["log_loss"], rel=1e-5)


def test_uneven_shards_finish_with_every_row_once_per_epoch(spark: SparkSession, make_task: MakeTask) -> None:
    tasks = [*(make_task(rows) for rows in TRAIN_ROWS), make_task(20, numeric=False), make_task(20, known="xy")]
    streamed = dataclasses.replace(make_task(103), cache="stream")
    tasks += [streamed, streamed]
    # of two ranks one has no test row
    tasks += [make_task(103, test=1), dataclasses.replace(make_task(103, test=2), cache="stream")]
    # the last row of rank 1's shard: in its last step of the first epoch, or in one before
    spoilt = change_last_row(make_task(102), rank=1, column="a", value=math.nan)

    def ranks(tasks: list[Task], spoilt: Task) -> list[Any]:
        import torch

        from pipeline.runtime.errors import UserError
        from pipeline.training import late_compiler
        from pipeline.training.exchange import Ranks
        from pipeline.training.trainer import Trainer

        late_compiler.install()
        joined = Ranks.start()
        results: list[Any] = [Trainer(task, joined).train() for task in tasks]
        try:
            Trainer(spoilt, joined).train()
        except UserError as error:
            results.append(str(error))
        # the ranks have stopped together, so they can train together again
        results.append(Trainer(tasks[0], joined).train() is not None)
        joined.shut_down()

        # training does not load torch's compiler, and a user's own module can
        was_spared = "torch._dynamo.eval_frame" not in sys.modules
        compiled = torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2)).tolist()
        results.append((was_spared, compiled, "torch._dynamo.eval_frame" in sys.modules))
        return results

    (*results, message, ended, compiler), (*others, message_there, _, _) = horovod.spark.run(
        ranks, args=(tasks, spoilt), num_proc=2, use_gloo=True, verbose=0, stdout=sys.stderr, stderr=sys.stderr
    )
    assert others == [None] * len(tasks)
    assert ended
    assert compiler == (True, [2.0, 2.0], True)
    assert re.search(
        r"features: epoch 1, step [1-6]: the loss is no longer a finite number; a holds a value that", message
    )
    assert message == message_there
    assert results[-3].weights_sha256 == results[-4].weights_sha256
    for rows, result in enumerate(results[-2:], 1):
        assert_measured_on_test_rows(result, rows)
    for result in results[:-2]:
        assert result.evaluation == result.validation
    for rows, task, result in zip([*TRAIN_ROWS, 20, 20, 103, 103, 103, 103], tasks, results, strict=True):
        assert [record.train.rows for record in result.history] == [rows] * EPOCHS
        assert [record.validation.rows for record in result.history] == [11] * EPOCHS
        # every third row has the category z: the packaged model will refuse it if training has not seen it
        unseen = 0 if "z" in task.data.vocabularies["k"] else 3
        assert (result.validation.rows, result.validation.refused) == (11, unseen)
        stored = MlflowClient(task.tracking_uri).get_metric_history(task.run_id, "train_loss")
        assert [(m.step, m.value) for m in stored] == [(r.epoch, r.train.loss) for r in result.history]


def test_a_failing_rank_ends_all_with_its_own_traceback(spark: SparkSession, make_task: MakeTask) -> None:
    # a class that the network does not have, in the last row of rank 1's shard: the loss raises in mid-epoch
    task = change_last_row(make_task(101), rank=1, column="y", value=7)
    with pytest.raises(RankError) as raised:
        restarts.run_ranks(spark, task, 2)
    message = str(raised.value)
    assert message.startswith("rank 1 of 2 failed:\nTraceback")
    assert "IndexError: Target 7 is out of bounds" in message
    assert message.count("Traceback") == 1


def test_a_diverging_training_is_one_sentence_and_keeps_no_weights(spark: SparkSession, make_task: MakeTask) -> None:
    task = make_task(101)
    training = task.config.training.model_copy(update={"optimizer": "sgd", "learning_rate": 1e30})
    task = dataclasses.replace(task, config=task.config.model_copy(update={"training": training}))
    with pytest.raises(UserError, match=r"training.learning_rate: epoch \d, step \d: the loss is no longer a finite"):
        restarts.run_ranks(spark, task, 2)


def test_what_ranks_print_is_printed_at_once_and_a_rank_that_dies_ends_the_others(
    spark: SparkSession, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # a real death: the process is gone between two instructions, as when the kernel runs out of memory
    task, passed_on, not_passed_on = make_task(101), tmp_path / "passed_on", tmp_path / "not_passed_on"

    def dies(task: Task) -> None:
        import os
        import signal

        import horovod.torch as hvd

        hvd.init()
        if hvd.rank() == 1:
            print("may I go?", flush=True)
            for _ in range(200):  # the driver makes this file when it gets the line
                time.sleep(0 if passed_on.exists() else 0.1)
            if not passed_on.exists():
                not_passed_on.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        hvd.barrier()

    class Console(io.StringIO):
        def write(self, text: str) -> int:
            if "may I go?" in text:
                passed_on.touch()
            return super().write(text)

    monkeypatch.setattr(ranks, "run_rank", dies)
    monkeypatch.setattr(sys, "stderr", Console())
    recovery = task.config.recovery.model_copy(update={"max_restarts": 0})
    task = dataclasses.replace(task, config=task.config.model_copy(update={"recovery": recovery}))
    with pytest.raises(RankLost, match=r"rank 0, 1 of 2 was lost: a rank ended without a report"):
        restarts.run_ranks(spark, task, 2)
    assert passed_on.exists()
    assert not not_passed_on.exists()
