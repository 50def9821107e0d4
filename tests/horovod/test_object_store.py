"""Prepared data and checkpoints on S3: a real server (moto's), two ranks. Spark's own half needs a connector's jar."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from moto.server import ThreadedMotoServer
from safetensors.torch import save

from conftest import PENGUINS
from datasets import read_manifest
from pipeline.config import load_config
from pipeline.data import parity, parquet_summary, shards
from pipeline.data.manifest import FILE_NAME, Manifest
from pipeline.data.parquet_summary import Aggregates
from pipeline.evaluation.metrics import EpochRecord, SplitMetrics
from pipeline.runtime.errors import RowAccountingError, UserError
from pipeline.runtime.storage import Folder
from pipeline.training import checkpoint
from pipeline.training.checkpoint import Progress
from pipeline.training.loader import read_shard
from submitting import Penguins, free_port, submit


@pytest.fixture(scope="module")
def lake() -> Iterator[str]:
    """Return the URI of an empty bucket; this process and its children have the credentials."""
    server = ThreadedMotoServer("127.0.0.1", free_port(), verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as environment:
        for name, value in settings.items():
            environment.setenv(name, value)
        Folder("s3a://lake").filesystem().mkdir("lake")
        yield "s3a://lake"
    server.stop()


@pytest.fixture(scope="module")
def prepared(penguins: Penguins, lake: str) -> Folder:
    """Put what a job has prepared into the bucket, the manifest last, as Spark and the driver would have."""
    (local,) = (penguins.work_dir / "data").iterdir()
    folder = Folder.at(f"{lake}/prepared") / local.name
    folder.write(parity.FILE_NAME, (local / parity.FILE_NAME).read_bytes())
    for file in local.rglob("*.parquet"):
        below = folder / str(file.parent.relative_to(local))
        below.write(file.name, file.read_bytes())
    assert Manifest.read(folder) is None
    data = read_manifest(local)
    data.write(folder)
    return folder


@pytest.mark.more
def test_two_ranks_train_from_s3_as_from_a_disk(
    penguins: Penguins, lake: str, prepared: Folder, tmp_path: Path
) -> None:
    # an executor in a process of its own, to which the driver has to hand the credentials, with both ranks on it
    conf = {"spark.master": "local-cluster[1,2,1024]"}
    folders = [f"run.work_dir={tmp_path}", f"run.data_dir={lake}/prepared"]
    ran = submit(PENGUINS, *folders, "run.ranks_per_executor=2", conf=conf)
    assert ran.code == 0, ran.stderr
    assert ran.summary["reused_data"]
    assert ran.summary["weights_sha256"] == penguins.ran.summary["weights_sha256"]
    assert ran.summary["rows"] == penguins.ran.summary["rows"]
    assert "2 rank(s) with 1 thread(s), cpu" in ran.stderr
    run = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").get_run(ran.summary["run_id"])
    assert run.data.params["executors"] == "0, 0"
    assert "testing-secret" not in ran.stdout + ran.stderr
    assert not (tmp_path / "data").exists()


def test_a_shard_from_s3_is_the_shard_from_the_disk(penguins: Penguins, prepared: Folder) -> None:
    (local,) = (penguins.work_dir / "data").iterdir()
    data = read_manifest(prepared)
    assert data == read_manifest(local)
    for rank in range(2):
        there, here = (read_shard(folder, data, "validation", rank, 2) for folder in (prepared, Folder(str(local))))
        assert torch.equal(there.features, here.features)
        assert torch.equal(there.labels, here.labels)


def test_files_are_counted_on_s3_too(prepared: Folder) -> None:
    data = read_manifest(prepared)
    aggregates = Aggregates(data.label.column, len(data.label.classes))
    for split in data.splits.values():
        paths = [group.path for group in split.row_groups]
        summary = parquet_summary.Summary(parquet_summary._summarize_in_driver(prepared, paths, aggregates))
        assert summary.row_groups == split.row_groups
        assert summary.class_rows == [*split.class_counts, 0]
        assert {file.path: file.sha256 for file in summary.files}.items() <= data.sha256.items()


def test_checkpoints_are_kept_on_s3(lake: str) -> None:
    folder = Folder.at(f"{lake}/checkpoints")
    split = SplitMetrics(10, 0.5, {"accuracy": 0.8})
    record = EpochRecord(1, split, split, learning_rate=0.1, rows_per_s=1.0, ranks=1, ended_ms=1)
    for epoch in (1, 2, 3):
        progress = Progress(epoch=epoch, history=[record] * epoch)
        header = {"format": str(checkpoint._FORMAT), "progress": json.dumps(dataclasses.asdict(progress))}
        with checkpoint.Writer(folder, keep=2) as writer:
            writer.put(progress, save({"net.x": torch.ones(epoch)}, header))
    assert [name[:12] for name in folder.names()] == ["epoch-000002", "epoch-000003"]
    name, progress = checkpoint.newest(folder) or ("", Progress())
    assert progress.epoch == 3
    assert checkpoint.unpack(checkpoint.read(folder, name)).tensors["net.x"].shape == (3,)
    folder.write(name, b"cut off")
    newest = checkpoint.newest(folder)
    assert newest is not None
    assert newest[1].epoch == 2
    folder.remove()
    assert checkpoint.newest(folder) is None


def test_what_is_missing_on_s3_is_named(prepared: Folder, lake: str, tmp_path: Path) -> None:
    data = read_manifest(prepared)
    copy = Folder.at(f"{lake}/incomplete")
    with pytest.raises(RowAccountingError, match=f"the train data in {copy} cannot be read"):
        read_shard(copy, data, "train", 0, 2)
    config = load_config(PENGUINS, [f"run.work_dir={tmp_path}", "run.data_dir=s3a://nobodys-bucket/x"])
    with pytest.raises(UserError, match=r"run.data_dir: cannot write in s3a://nobodys-bucket/x: .*bucket"):
        shards.open_data_dir(config)


def test_an_object_is_replaced_and_a_folder_can_be_removed(lake: str) -> None:
    folder = Folder.at(f"{lake}/scratch/")
    folder.make()
    assert folder.names() == []
    folder.write(FILE_NAME, b"first")
    folder.write(FILE_NAME, b"second")
    assert (folder.names(), folder.read(FILE_NAME)) == ([FILE_NAME], b"second")
    folder.remove()
    assert not folder.exists()
