"""The floor: one process on its share of the rows, in memory, that talks to nobody. ``python -m …floor < arguments``.

Nothing that keeps two such processes in step can be faster.
"""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import json
import sys
import time

import pyarrow.parquet as pq
import torch

from pipeline.config import load_config
from pipeline.data.manifest import Manifest
from pipeline.data.specs import net_spec
from pipeline.model.network import TabularNet
from pipeline.runtime.storage import Folder


def main(config_file: str, folder: str, rank: int, num_proc: int, epochs: int) -> list[float]:
    """Train like one of ``num_proc`` ranks, alone; return the seconds of each epoch, validation included."""
    config, data = load_config(config_file), Manifest.read(Folder(folder))
    assert data is not None
    torch.set_num_threads(1)
    names = [*data.numeric]
    parts = {}
    for split in data.splits:
        files = [f"{folder}/{group.path}" for group in data.splits[split].row_groups[rank::num_proc]]
        table = pq.ParquetDataset(files, use_legacy_dataset=False).read([*names, data.label.column])
        columns = [torch.from_numpy(table[name].to_numpy()) for name in names]
        parts[split] = torch.stack(columns, dim=1), torch.from_numpy(table[data.label.column].to_numpy()).long()

    torch.manual_seed(0)
    net = TabularNet(net_spec(config, data))
    optimizer = torch.optim.Adam(net.parameters(), lr=config.training.learning_rate)
    batch, seconds = int(config.training.batch_size), []
    for _ in range(epochs):
        begin = time.perf_counter()
        features, labels = parts["train"]
        net.train()
        for chosen in torch.randperm(len(labels)).split(batch):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(features[chosen]), labels[chosen]).backward()
            optimizer.step()
        net.eval()
        features, labels = parts["validation"]
        right = 0
        with torch.no_grad():
            for x, y in zip(features.split(4096), labels.split(4096), strict=True):
                right += int((net(x).argmax(dim=1) == y).sum())
        seconds.append(time.perf_counter() - begin)
    return seconds


if __name__ == "__main__":
    print(json.dumps(main(*json.loads(sys.stdin.read()))))
