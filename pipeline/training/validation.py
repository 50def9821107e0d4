"""How good a network is on a rank's validation rows: briefly after each epoch, with all detail at the end."""

from __future__ import annotations

import torch

from pipeline.evaluation.sums import MetricSums
from pipeline.model.network import TabularNet
from pipeline.training.components import Loss
from pipeline.training.loader import Shard
from pipeline.training.task import Task

_BATCH_ROWS = 4096


@torch.no_grad()
def validate(net: TabularNet, loss: Loss, shard: Shard, task: Task, device: torch.device) -> MetricSums:
    """Return this rank's sums for an epoch's record."""
    net.eval()
    sums = MetricSums(task.data.label, device)
    for features, labels in shard.batches(_BATCH_ROWS):
        features, labels = features.to(device), labels.to(device)
        outputs = net(features)
        sums.add(outputs, labels, loss(outputs, labels))
    return sums


@torch.no_grad()
def evaluate(net: TabularNet, shard: Shard, task: Task, device: torch.device) -> MetricSums:
    """Return this rank's sums for all metrics, with slices by the categorical features."""
    net.eval()
    data, numeric = task.data, len(task.data.numeric)
    sizes = [len(values) for values in data.vocabularies.values()]
    # The packaged model refuses a row with an unseen value, unless the feature encodes unseen values.
    refusing = [i for i, feature in enumerate(task.config.features.categorical) if feature.unknown == "refuse"]
    unseen = torch.tensor(sizes, dtype=torch.int64, device=device)
    sums = MetricSums(data.label, device, with_detail=True, category_sizes=[size + 1 for size in sizes])
    for features, labels in shard.batches(_BATCH_ROWS):
        features, labels = features.to(device), labels.to(device)
        outputs = net(features).double()
        answers = torch.softmax(outputs, dim=1) if data.label.classes else outputs
        codes = features[:, numeric:].long()
        sums.add(answers, labels, codes=codes, refused=(codes == unseen)[:, refusing].any(dim=1))
    return sums
