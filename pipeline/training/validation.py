"""How good a network is: on the validation rows briefly after each epoch, on any rows with all detail at the end."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.data.manifest import SplitName
from pipeline.evaluation.bucket_sums import BucketSums
from pipeline.evaluation.metrics import Evaluation, SplitMetrics
from pipeline.evaluation.sums import MetricSums
from pipeline.model.choice import chosen_classes
from pipeline.model.network import TabularNet
from pipeline.training.components import Loss
from pipeline.training.exchange import Ranks
from pipeline.training.loader import Shard, check_rows, open_shard
from pipeline.training.task import Task
from pipeline.training.weighting import Weighting, add_up_losses

BATCH_ROWS = 4096
"""Rows that the network takes at once where nothing is learned."""


@torch.no_grad()
def validate(net: TabularNet, loss: Loss, shard: Shard, task: Task, device: torch.device) -> MetricSums:
    """Return this rank's sums for an epoch's record."""
    net.eval()
    weighting = Weighting(task.config, task.data, device)
    sums = MetricSums(task.data.label, device, is_weighted=weighting.is_on)
    for batch in shard.batches(BATCH_ROWS):
        batch = batch.to(device)
        weights, refused = weighting.of(batch), refused_rows(batch.features, task)
        outputs = _answered(net, batch.features, refused)
        total = add_up_losses(loss(outputs, batch.labels), weights)
        sums.add(outputs, batch.labels, total, refused=refused, weights=weights)
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
        check_rows(task.data, task.folder, split, f"epoch {epoch}", metrics[-1].rows)
    return metrics


@dataclass(frozen=True)
class Answering:
    """What makes answers of a classifier's outputs."""

    temperature: float = 1.0
    threshold: float = 0.5


@dataclass(frozen=True)
class Evaluations:
    """A network measured in full."""

    measured: Evaluation
    """On the measured split."""
    validation: Evaluation
    uncalibrated: Evaluation | None
    """On the measured split, with temperature 1; None if the temperature is 1."""


@torch.no_grad()
def fit_threshold(net: TabularNet, task: Task, ranks: Ranks, shard: Shard, temperature: float) -> float:
    """Return `label.threshold`, chosen on the validation rows of all ranks in ``shard`` if it is a rule.

    Rows that the packaged model refuses do not count. Without rows of both classes, it is 0.5.
    """
    label = task.config.label
    if label.threshold_rule is None:
        return float(label.threshold)
    net.eval()
    device = next(net.parameters()).device
    sums = MetricSums(task.data.label, device, with_detail=True)
    for batch in shard.batches(BATCH_ROWS):
        answered = batch.at(~refused_rows(batch.features, task)).to(device)
        sums.add(torch.softmax(net(answered.features).double() / temperature, dim=1), answered.labels)
    sums.vector.copy_(ranks.add_up(sums.vector, "threshold"))
    return sums.threshold(label.threshold_rule) or 0.5


def evaluate(
    net: TabularNet, loss: Loss, task: Task, ranks: Ranks, shards: dict[SplitName, Shard], answering: Answering
) -> Evaluations:
    """Return all metrics of a network on the measured split and on the validation rows, over the rows of all ranks.

    No rank reads a test row before. The test rows then take the place of the other rows in ``shards``.

    Raises:
        RowAccountingError: a row is missing.
    """

    def on(split: SplitName, answering: Answering, with_errors: bool = False) -> Evaluation:
        rows = task.data.splits[split].rows if with_errors else 0
        sums, buckets = _all_sums(net, loss, shards[split], task, answering, rows)
        sums.vector.copy_(ranks.add_up(sums.vector, f"{split} rows"))
        evaluation = sums.evaluate(task.data.vocabularies, has_loss=True)
        check_rows(task.data, task.folder, split, "after the last epoch", evaluation.rows)
        if not len(buckets.vector):
            return evaluation
        buckets.vector.copy_(ranks.add_up(buckets.vector, f"buckets of {split} rows"))
        return replace(evaluation, standard_errors=buckets.standard_errors())

    split = task.data.measured_split
    validation = on("validation", answering, with_errors=split == "validation")
    if split != "validation":
        shards.clear()
        shards[split] = open_shard(task.folder, task.data, split, ranks.rank, ranks.size, task.cache)
    measured = validation if split == "validation" else on(split, answering, with_errors=True)
    uncalibrated = on(split, replace(answering, temperature=1.0)) if answering.temperature != 1 else None
    return Evaluations(measured, validation, uncalibrated)


def _answered(net: TabularNet, features: Tensor, refused: Tensor) -> Tensor:
    """Return the outputs (rows, outputs); a refused row has those of a model that knows no better, in every epoch.

    So rows that the packaged model refuses have no say in which epoch is kept.
    """
    outputs: Tensor = net(features)
    knows_no_better = net.spec.label_mean if net.spec.outputs == 1 else 0.0
    return torch.where(refused.unsqueeze(1), knows_no_better, outputs)


def refused_rows(features: Tensor, task: Task) -> Tensor:
    """Return which rows, bool (rows,), the packaged model refuses for an unseen value."""
    data, numeric = task.data, len(task.data.numeric)
    refusing = [i for i, feature in enumerate(task.config.features.categorical) if feature.unknown == "refuse"]
    others = torch.tensor([float(len(values)) for values in data.vocabularies.values()], device=features.device)
    return (features[:, numeric:] == others)[:, refusing].any(dim=1)


@torch.no_grad()
def _all_sums(
    net: TabularNet, loss: Loss, shard: Shard, task: Task, answering: Answering, rows: int
) -> tuple[MetricSums, BucketSums]:
    """Return this rank's sums for all metrics, with slices by the categorical features, and those of each bucket.

    ``rows`` is the number of rows of all ranks, 0 if there are to be no buckets.
    """
    net.eval()
    device, data, numeric = next(net.parameters()).device, task.data, len(task.data.numeric)
    weighting = Weighting(task.config, data, device)
    sizes = [len(values) + 2 for values in data.vocabularies.values()]  # with "other" and missing
    sums = MetricSums(data.label, device, with_detail=True, category_sizes=sizes, is_weighted=weighting.is_on)
    missing = torch.tensor(sizes, dtype=torch.float32, device=device) - 1
    buckets = BucketSums(data.label, rows, device)
    for batch in shard.batches(BATCH_ROWS):
        batch = batch.to(device)
        features, labels, weights = batch.features, batch.labels, weighting.of(batch)
        refused = refused_rows(features, task)
        outputs = _answered(net, features, refused)
        of_batch = add_up_losses(loss(outputs, labels), weights)
        answers, predicted = outputs.double(), None
        if data.label.classes:
            answers = torch.softmax(answers / answering.temperature, dim=1)
            predicted = chosen_classes(answers, data.label.positive_code, answering.threshold)
        codes = features[:, numeric:]
        codes = torch.where(codes.isnan(), missing, codes).long()
        sums.add(answers, labels, of_batch, codes=codes, refused=refused, predicted=predicted, weights=weights)
        buckets.add(answers, labels, refused, features, predicted)
    buckets.flush()
    return sums, buckets
