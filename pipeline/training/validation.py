"""How good a network is: on the validation rows briefly after each epoch, on any rows with all detail at the end."""

from __future__ import annotations

import torch

from pipeline.data.manifest import SplitName
from pipeline.evaluation.metrics import Evaluation, SplitMetrics
from pipeline.evaluation.sums import MetricSums
from pipeline.model.network import TabularNet
from pipeline.training.components import Loss
from pipeline.training.exchange import Ranks
from pipeline.training.loader import Shard, check_rows, open_shard
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


def add_up(ranks: Ranks, task: Task, epoch: int, trained: MetricSums, validated: MetricSums) -> list[SplitMetrics]:
    """Add the ranks' sums up in one message, and return both splits' metrics.

    Raises:
        RowAccountingError: a row is missing.
    """
    both: dict[SplitName, MetricSums] = {"train": trained, "validation": validated}
    vector = ranks.add_up(torch.cat([sums.vector for sums in both.values()]), "epoch")
    metrics = []
    for (split, sums), total in zip(both.items(), vector.chunk(2), strict=True):
        sums.vector.copy_(total)
        metrics.append(sums.split_metrics())
        check_rows(task.data, task.folder, split, epoch, metrics[-1].rows)
    return metrics


def evaluate(
    net: TabularNet, loss: Loss, task: Task, ranks: Ranks, shards: dict[SplitName, Shard], epoch: int
) -> tuple[Evaluation, Evaluation]:
    """Return all metrics of a network on the measured split and on the validation rows, over the rows of all ranks.

    The test rows are read here and nowhere else. The memory of ``shards`` is freed before.

    Raises:
        RowAccountingError: a row is missing.
    """
    validation = _evaluate_split(net, loss, task, ranks, "validation", shards["validation"], epoch)
    if (measured := task.data.measured_split) == "validation":
        return validation, validation
    shards.clear()
    shard = open_shard(task.folder, task.data, measured, ranks.rank, ranks.size, task.cache)
    return _evaluate_split(net, loss, task, ranks, measured, shard, epoch), validation


def _evaluate_split(
    net: TabularNet, loss: Loss, task: Task, ranks: Ranks, split: SplitName, shard: Shard, epoch: int
) -> Evaluation:
    sums = _all_sums(net, loss, shard, task)
    sums.vector.copy_(ranks.add_up(sums.vector, f"{split} rows"))
    evaluation = sums.evaluate(task.data.vocabularies, has_loss=True)
    check_rows(task.data, task.folder, split, epoch, evaluation.rows)
    return evaluation


@torch.no_grad()
def _all_sums(net: TabularNet, loss: Loss, shard: Shard, task: Task) -> MetricSums:
    """Return this rank's sums for all metrics, with slices by the categorical features."""
    net.eval()
    device = next(net.parameters()).device
    data, numeric = task.data, len(task.data.numeric)
    sizes = [len(values) for values in data.vocabularies.values()]
    # The packaged model refuses a row with an unseen value, unless the feature encodes unseen values.
    refusing = [i for i, feature in enumerate(task.config.features.categorical) if feature.unknown == "refuse"]
    unseen = torch.tensor(sizes, dtype=torch.int64, device=device)
    sums = MetricSums(data.label, device, with_detail=True, category_sizes=[size + 1 for size in sizes])
    for features, labels in shard.batches(_BATCH_ROWS):
        features, labels = features.to(device), labels.to(device)
        outputs = net(features)
        of_batch = loss(outputs, labels)
        outputs = outputs.double()
        answers = torch.softmax(outputs, dim=1) if data.label.classes else outputs
        codes = features[:, numeric:].long()
        sums.add(answers, labels, of_batch, codes=codes, refused=(codes == unseen)[:, refusing].any(dim=1))
    return sums
