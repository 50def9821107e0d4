"""The weighted loss is exact on any number of ranks, and the same from run to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from horovod.runner import run
from safetensors.torch import load

from conftest import UseCase
from datasets import checksums, write_dataset
from pipeline.config import Config
from pipeline.data.manifest import Manifest
from pipeline.data.specs import net_spec
from pipeline.model.network import TabularNet
from pipeline.runtime.storage import Folder
from pipeline.tracking import runs, store
from pipeline.training import checkpoint
from pipeline.training.components import make_loss
from pipeline.training.loader import read_shard
from pipeline.training.task import Task

ROWS, RATE = 23, 0.5


def weigh(folder: Path, data: Manifest) -> Manifest:
    """Give each row a weight, between 0 and 100 and very unlike from file to file; return the new manifest."""
    for split in data.splits.values():
        for part, group in enumerate(split.row_groups):
            table = pq.read_table(folder / group.path)
            weights = [(10.0**part) * (i % 4) / 3 for i in range(len(table))]
            pq.write_table(table.append_column("w", pa.array(weights, pa.float32())), folder / group.path)
    update = {"columns": {**data.columns, "w": "float"}, "weight": "w", "sha256": checksums(folder, data.splits)}
    return data.model_copy(update=update)


def one_step(config: Config, data: Manifest, folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights after one step of gradient descent along the weighted mean of all rows, in one process."""
    torch.manual_seed(config.training.seed)
    net = TabularNet(net_spec(config, data))
    shard = read_shard(Folder(str(folder)), data, "train", 0, 1)
    assert shard.weights is not None
    weights = shard.weights * torch.where(shard.labels == 1, 3.0, 1.0)
    losses = make_loss("classification", net.spec)(net(shard.features), shard.labels)
    torch.autograd.backward((losses * weights).sum() / weights.sum())
    return {name: (p - RATE * p.grad).detach() for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("num_proc", [1, 2, 3])
def test_the_weighted_mean_is_exact(use_case: UseCase, tmp_path: Path, num_proc: int) -> None:
    training = {"optimizer": "sgd", "learning_rate": RATE, "lr_scaling": "none", "class_weights": {"odd": 3}}
    config = use_case(
        source={"path": "data.csv", "schema": "a DOUBLE, k STRING, y STRING, w DOUBLE"},
        sql="SELECT a, k, y, w FROM raw",
        features={
            "numeric": [{"column": "a", "missing": "drop"}],
            "categorical": [{"column": "k", "unknown": "refuse", "missing": "drop"}],
        },
        label={"column": "y", "classes": ["even", "odd"], "weight": "w", "positive": "odd", "threshold": "f1"},
        model={"preset": "none", "hidden_sizes": [4]},
        training={**training, "epochs": 1, "batch_size": 100},
    )
    folder, uri = tmp_path / "data", store.tracking_uri(config)
    data = weigh(folder, write_dataset(folder, ROWS, 11, 3, test=9))
    label = data.label.model_copy(update={"positive": "odd"})
    data = data.model_copy(update={"label": label})
    store.open_store(config, uri)()
    several = {
        "training": config.training.model_copy(update={"epochs": 3, "batch_size": 3, "gradient_clipping": 1.0}),
        "model": config.model.model_copy(update={"members": 3, "dropout": 0.1, "numeric_embedding": "periodic"}),
    }

    def task(config: Config) -> Task:
        run_id = runs.start_run(config, uri)
        (config.checkpoint_dir / run_id).make()
        place = config.checkpoint_dir / run_id
        return Task(config, data, Folder(str(folder)), uri, run_id, {"driver": 3}, place)

    tasks = [task(config), *(task(config.model_copy(update=several)) for _ in range(2))]

    def ranks(tasks: list[Task]) -> list[Any]:
        from pipeline.training.exchange import Ranks
        from pipeline.training.trainer import Trainer

        joined = Ranks.start()
        results = [Trainer(task, joined).train() for task in tasks]
        joined.shut_down()
        return results

    # without Spark, whose session of the tests has two cores
    first, *reruns = run(ranks, args=(tasks,), np=num_proc, use_gloo=True)[0]
    trained = load(checkpoint.read_weights(tasks[0].checkpoints, first.weights_sha256))
    for name, expected in one_step(config, data, folder).items():
        assert torch.allclose(trained[name], expected, rtol=1e-5, atol=1e-6), name
    assert first.history[0].train.rows == ROWS

    assert reruns[0].weights_sha256 == reruns[1].weights_sha256 != first.weights_sha256
    assert reruns[0].history[-1].train == reruns[1].history[-1].train
    assert reruns[0].threshold == reruns[1].threshold
    assert 0 < reruns[0].threshold < 1
    assert set(reruns[0].evaluation.metrics) >= {"pr_auc", "precision", "recall", "f1"}
