"""A training resumes from the newest whole checkpoint, and never runs code that lies among checkpoints."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import signal
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from pyspark.sql import SparkSession

from conftest import PENGUINS, ROOT, UseCase
from datasets import an_epoch, write_dataset
from faultinjection import Fault, newest_epoch, rank_processes, send
from pipeline import train
from pipeline.config import Training
from pipeline.data.manifest import LabelData
from pipeline.evaluation.metrics import EpochRecord, SplitMetrics
from pipeline.evaluation.sums import MetricSums
from pipeline.launch import resume
from pipeline.model.network import TabularNet
from pipeline.model.spec import CategoricalInput, NetSpec, NumericInput
from pipeline.runtime.errors import RankLost, StorageError
from pipeline.runtime.storage import Folder
from pipeline.training import checkpoint, partial_epoch
from pipeline.training.checkpoint import Progress
from pipeline.training.components import make_optimizer
from pipeline.training.exchange import Exchange, Ranks
from submitting import processes

pytestmark = pytest.mark.fault("damaged checkpoints, full disks")


def a_net() -> TabularNet:
    torch.manual_seed(0)
    spec = NetSpec((NumericInput("a", 0.0, 1.0),), (CategoricalInput("k", "onehot", 2, 2),), (4,), 0.0, 2, 0.0, 1.0)
    return TabularNet(spec)


@pytest.fixture
def three_checkpoints(tmp_path: Path) -> Folder:
    """Return a folder with the checkpoints of epochs 1, 2 and 3."""
    folder = Folder(str(tmp_path))
    net = a_net()
    optimizer = make_optimizer(Training(), Exchange(net, Ranks()).parameter, 0.1)
    for epoch in (1, 2, 3):
        net(torch.ones(5, 2)).sum().backward()
        optimizer.step()
        progress = Progress(epoch=epoch, history=[an_epoch(e) for e in range(1, epoch + 1)])
        checkpoint.write(folder, progress, checkpoint.pack(progress, net, net.state_dict(), optimizer))
    return folder


def newest(folder: Folder) -> int:
    checkpoint_and_progress = checkpoint.newest(folder)
    return checkpoint_and_progress[1].epoch if checkpoint_and_progress else 0


@pytest.mark.parametrize("optimizer_name", ["adam", "adamw", "sgd"])
def test_a_restored_training_takes_the_same_steps_as_the_saved_one(optimizer_name: str) -> None:
    def step(net: TabularNet, exchange: Exchange, optimizer: torch.optim.Optimizer) -> None:
        exchange.clear()
        net(torch.ones(5, 2)).square().sum().backward()
        optimizer.step()

    settings, net = Training(optimizer=optimizer_name, weight_decay=0.1), a_net()
    exchange = Exchange(net, Ranks())
    optimizer = make_optimizer(settings, exchange.parameter, 0.1)
    step(net, exchange, optimizer)
    content = checkpoint.pack(Progress(), net, None, optimizer)
    other = a_net()
    other_exchange = Exchange(other, Ranks())
    other_optimizer = make_optimizer(settings, other_exchange.parameter, 0.1)
    assert checkpoint.restore(checkpoint.unpack(content), other, other_optimizer) is None
    for _ in range(3):
        step(net, exchange, optimizer)
        step(other, other_exchange, other_optimizer)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))


@pytest.fixture(params=[2, 3])
def older(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """Return a copy of the checkpoints of an older format in `tests/checkpoints`; NOTE.txt says how they were made."""
    for file in (ROOT / "tests" / "checkpoints" / f"format-{request.param}").glob("*.safetensors"):
        shutil.copy(file, tmp_path)
    return Folder(str(tmp_path))


def test_a_checkpoint_of_an_older_format_goes_on_at_the_end_of_an_epoch(older: Folder) -> None:
    (first, _) = sorted(name for name in older.names() if name.endswith(".safetensors"))
    saved = checkpoint.unpack(checkpoint.read(older, first))
    record = EpochRecord(
        epoch=1,
        train=SplitMetrics(10, 0.5, {"accuracy": 0.8}),
        validation=SplitMetrics(4, 0.25, {"accuracy": 1.0}),
        learning_rate=0.1,
        rows_per_s=100.0,
        ranks=2,
        ended_ms=1700000000000,
    )
    expected = Progress(epoch=1, history=[record], best=record, lowest=0.25, lowest_epoch=1)
    assert saved.progress == expected
    net = a_net()
    optimizer = make_optimizer(Training(), Exchange(net, Ranks()).parameter, 0.1)
    best = checkpoint.restore(saved, net, optimizer)
    assert best
    # what is packed again is of today's format, with the same tensors
    again = checkpoint.unpack(checkpoint.pack(saved.progress, net, best, optimizer))
    assert again.progress == expected
    assert again.tensors.keys() == saved.tensors.keys()
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in saved.tensors.items())


@pytest.mark.fault("a checkpoint of another format")
def test_a_checkpoint_of_an_older_format_goes_on_within_an_epoch(older: Folder) -> None:
    newest_one = checkpoint.newest(older)
    assert newest_one
    name, progress = newest_one
    assert (progress.epoch, progress.step) == (1, 2)
    label = LabelData(column="label", task="classification", classes=["x", "y"], stats=None)
    saved = checkpoint.unpack(checkpoint.read(older, name))
    sums = MetricSums(label)
    sums.counts.copy_(saved.tensors["counts"])
    parts = [saved.tensors[f"others.{rank}"] for rank in (0, 1)]
    assert [part.tolist() for part in parts] == [[1.5, 6], [0.5, 3]]  # loss and rows
    sums.others.copy_(parts[0] + parts[1])
    assert (sums.split_metrics().rows, sums.split_metrics().loss) == (9, 2 / 9)
    assert sums.split_metrics().metrics["accuracy"] == 7 / 9
    partial_epoch.restore_random_state(saved.tensors, 1, torch.device("cpu"))


@pytest.mark.fault("a checkpoint of another format")
def test_a_checkpoint_that_is_too_old_is_skipped_and_kept(older: Folder, caplog: pytest.LogCaptureFixture) -> None:
    last = sorted(name for name in older.names() if name.endswith(".safetensors"))[-1]
    content = re.sub(rb'"format":"[23]"', b'"format":"1"', older.read(last))
    kept = checkpoint.write(older, Progress(epoch=9), content)
    newest_one = checkpoint.newest(older)
    assert newest_one
    assert newest_one[0] == last
    assert kept in Folder(f"{older}-of-another-format").names()
    assert kept not in older.names()
    assert "is not used, but kept in" in caplog.text


@pytest.mark.fault("a checkpoint of another format")
def test_a_whole_file_of_no_known_format_is_kept_and_told(
    three_checkpoints: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    last = sorted(name for name in three_checkpoints.names() if name.startswith("epoch-"))[-1]
    strange = three_checkpoints.read(last).replace(b'"format":"4"', b'"format":"x"')
    kept = checkpoint.write(three_checkpoints, Progress(epoch=9), strange)
    assert newest(three_checkpoints) == 3
    beside = Folder(f"{three_checkpoints}-of-another-format")  # it survives the end of the training
    assert beside.names() == [kept]
    assert kept not in three_checkpoints.names()
    assert f"{kept} is not used, but kept in {beside}: it has no format that this version knows" in caplog.text


def test_a_part_of_an_epoch_of_many_classes_and_ranks_is_kept() -> None:
    label = LabelData(column="y", task="classification", classes=[f"{i:03}" for i in range(1000)], stats=None)
    sums, net = MetricSums(label), a_net()
    sums.add(torch.eye(1000), torch.arange(1000), torch.tensor(3.0))
    optimizer = make_optimizer(Training(), Exchange(net, Ranks()).parameter, 0.1)
    part = partial_epoch.Part(sums.counts, [sums.others] * 64, [torch.get_rng_state()] * 64)
    content = checkpoint.pack(Progress(step=5), net, None, optimizer, part)
    assert len(content) < 10 * 2**20  # one confusion matrix, not 64
    saved = checkpoint.unpack(content)
    again = MetricSums(label)
    again.counts.copy_(saved.tensors["counts"])
    again.others.copy_(saved.tensors["others.63"])
    assert torch.equal(again.vector, sums.vector)


@pytest.mark.parametrize("damage", ["cut off", "a bit", "pickled"])
def test_a_newest_checkpoint_that_is_damaged_is_skipped(
    three_checkpoints: Folder, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    last = sorted(tmp_path.glob("epoch-*"))[-1]
    content, mark = last.read_bytes(), tmp_path / "ran"
    if damage == "cut off":
        last.write_bytes(content[: len(content) // 2])
    elif damage == "a bit":
        last.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    else:
        bomb = type("Bomb", (), {"__reduce__": lambda _: (os.mkdir, (str(mark),))})()
        (tmp_path / "epoch-000009.pt").write_bytes(pickle.dumps(bomb))
        checkpoint.write(three_checkpoints, Progress(epoch=9), pickle.dumps(bomb))  # even under a name that fits
        last.unlink()
    assert newest(three_checkpoints) == 2
    # a whole file may be of another version, and stays
    assert ("is not used, but kept" if damage == "pickled" else "removing the checkpoint") in caplog.text
    assert not mark.exists()


def test_the_newest_checkpoints_are_kept_and_a_full_disk_is_one_sentence(small_disk: Path) -> None:
    folder = Folder(str(small_disk))
    with checkpoint.Writer(folder, keep=2) as writer:
        for epoch in range(1, 6):
            writer.put(Progress(epoch=epoch), b"")
            while not any(f"epoch-{epoch:06d}" in name for name in folder.names()):
                time.sleep(0.01)
    assert [name[:12] for name in folder.names()] == ["epoch-000004", "epoch-000005"]
    writer = checkpoint.Writer(folder, keep=2)
    writer.put(Progress(epoch=6), b"x" * 2**21)
    with pytest.raises(StorageError, match=r"cannot write a checkpoint in .*No space left on device.*; make room"):
        writer.__exit__(None)
    assert [name[:12] for name in folder.names()] == ["epoch-000004", "epoch-000005"]


@pytest.mark.horovod
def test_a_disk_that_fills_up_ends_the_job_with_one_sentence(
    spark: SparkSession, small_disk: Path, tmp_path: Path
) -> None:
    overrides = [f"run.work_dir={tmp_path}", f"run.data_dir={small_disk}", "training.epochs=3"]
    with pytest.raises(
        StorageError, match=r"cannot write a checkpoint in .*small/checkpoints.*No space left on device"
    ):
        train.train(str(PENGUINS), [*overrides, "model.hidden_sizes=[400,400]"])


@pytest.mark.parametrize("package", ["torch", "pipeline"])
def test_a_training_that_another_version_has_begun_is_told(
    use_case: UseCase, tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config, data = use_case(), write_dataset(tmp_path / "data", 103, 11, 2)
    with resume.claim(config, data, 2, fresh=False) as begun:
        begun.remember("a run")
    with resume.claim(config, data, 2, fresh=False) as again:
        assert again.folder == begun.folder
    monkeypatch.setattr(resume, "package_version", lambda name: "99" if name == package else version(name))
    if package == "pipeline":  # whose version the data hold, too
        data = data.model_copy(update={"pipeline_version": "99"})
    assert "another version" not in caplog.text
    with resume.claim(config, data, 2, fresh=False) as upgraded:
        assert upgraded.run_id is None
    assert f"beginning anew: {begun.folder} holds checkpoints of another version" in caplog.text


@pytest.mark.horovod
@pytest.mark.fault("the same job is started twice")
def test_a_second_start_of_a_running_training_is_refused_and_fresh_begins_anew(
    spark: SparkSession, fault: Fault, tmp_path: Path
) -> None:
    overrides = [f"run.work_dir={tmp_path}", "training.epochs=20", "recovery.max_restarts=0"]
    command = ["spark-submit", str(ROOT / "jobs" / "train.py"), "--config", str(PENGUINS)]
    command += [word for override in overrides for word in ("--set", override)]
    refused: list[subprocess.CompletedProcess[str]] = []

    def start_again() -> None:
        send(rank_processes(), signal.SIGSTOP)  # so that the first training cannot end before the second starts
        refused.append(subprocess.run(command, capture_output=True, text=True, timeout=100, check=False))
        send(rank_processes(), signal.SIGKILL)

    with fault.strikes(tmp_path, 3, start_again, 0), pytest.raises(RankLost):
        train.train(str(PENGUINS), overrides)
    (second,) = refused
    assert second.returncode == 2, second.stderr
    assert f"run.work_dir: another job does the same training (process {os.getpid()} on" in second.stderr
    assert "Traceback" not in second.stderr
    assert newest_epoch(tmp_path) >= 3
    assert processes("jobs/train.py") == []
    summary = train.train(str(PENGUINS), overrides, fresh=True)
    assert summary["resumed_after_epoch"] is None
