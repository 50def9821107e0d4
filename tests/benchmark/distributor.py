"""The training loop that Databricks' documentation teaches: TorchDistributor, DDP over gloo, Petastorm's own loader."""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from petastorm.pytorch import BatchedDataLoader

    from pipeline.data.manifest import SplitName


def train(config_file: str, folder: str, epochs: int) -> list[float]:
    """Train as one of TorchDistributor's processes; return the seconds of each epoch, validation included."""
    warnings.simplefilter("ignore")
    import torch
    import torch.distributed as dist
    from petastorm import make_batch_reader
    from petastorm.pytorch import BatchedDataLoader
    from torch.nn.parallel import DistributedDataParallel

    from pipeline.config import load_config
    from pipeline.data.manifest import Manifest
    from pipeline.data.specs import net_spec
    from pipeline.model.network import TabularNet
    from pipeline.runtime.storage import Folder

    config, data = load_config(config_file), Manifest.read(Folder(folder))
    assert data is not None
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, size, batch_size = dist.get_rank(), dist.get_world_size(), int(config.training.batch_size)
    names, label = [*data.numeric], data.label.column
    torch.manual_seed(0)
    net = DistributedDataParallel(TabularNet(net_spec(config, data)))
    optimizer = torch.optim.Adam(net.parameters(), lr=config.training.learning_rate * size)

    def loader(split: SplitName, capacity: int) -> BatchedDataLoader:
        urls = [f"file://{folder}/{group.path}" for group in data.splits[split].row_groups]
        # the reader's and the loader's own defaults, except what the documentation sets
        reader = make_batch_reader(urls, cur_shard=rank, shard_count=size, num_epochs=None)
        return BatchedDataLoader(reader, batch_size=batch_size, shuffling_queue_capacity=capacity)

    def matrix(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.stack([batch[name] for name in names], dim=1), batch[label].long()

    steps = {split: data.splits[split].rows // (batch_size * size) for split in data.splits}
    seconds = []
    with loader("train", 64 * batch_size) as train_loader, loader("validation", 0) as validation_loader:
        train_batches, validation_batches = iter(train_loader), iter(validation_loader)
        for _ in range(epochs):
            begin = time.perf_counter()
            net.train()
            for _ in range(steps["train"]):
                features, labels = matrix(next(train_batches))
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(net(features), labels).backward()
                optimizer.step()
            net.eval()
            right = torch.zeros(1)
            with torch.no_grad():
                for _ in range(steps["validation"]):
                    features, labels = matrix(next(validation_batches))
                    right += (net.module(features).argmax(dim=1) == labels).sum()
            dist.all_reduce(right)
            seconds.append(time.perf_counter() - begin)
    dist.destroy_process_group()
    return seconds
