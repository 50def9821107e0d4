"""Permutation importance: how much worse the network is when one feature's values are shuffled between the rows.

Breiman 2001, "Random forests", as in scikit-learn's `permutation_importance`. Each rank shuffles its own test rows. A
feature that another one replaces looks unimportant: only one of them is shuffled at a time.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pipeline.evaluation.bucket_sums import row_hash
from pipeline.evaluation.metrics import Importance
from pipeline.model.network import TabularNet
from pipeline.training.exchange import Ranks
from pipeline.training.loader import Batch, Shard, joined
from pipeline.training.task import Task
from pipeline.training.validation import BATCH_ROWS, refused_rows

MOST_ROWS = 50_000
"""So many rows of all ranks are shuffled, or all; a hash of their values chooses them."""
MOST_ANSWERS = 50_000_000
"""With many features the network answers fewer rows, so that all shuffles together are about so many answers."""
_FEWEST_ROWS = 1_000
_SHARES = 1_000_000


@torch.no_grad()
def measure_importance(net: TabularNet, shard: Shard, task: Task, ranks: Ranks, temperature: float) -> list[Importance]:
    """Return the importance of each feature, the greatest first; the same on all ranks.

    It is the growth of the log loss, or of the rmse, as a mean over `evaluation.importance_repeats` shuffles.
    """
    repeats = task.config.evaluation.importance_repeats
    if not repeats:
        return []
    net.eval()
    names = task.config.feature_columns
    rows = _rows_by_hash(shard, task, MOST_ANSWERS // (len(names) * repeats))
    features, labels = rows.features, rows.labels
    sums = torch.zeros(2 + len(names) * repeats, dtype=torch.float64)
    sums[0], sums[1] = len(labels), _error(net, features, labels, task, temperature)
    for column in range(len(names)):
        values = features[:, column].clone()
        for repeat in range(repeats):
            seed = np.random.SeedSequence([task.config.training.seed, column, repeat, ranks.rank])
            random = torch.Generator().manual_seed(int(seed.generate_state(1)[0]))
            features[:, column] = values[torch.randperm(len(values), generator=random)]
            sums[2 + column * repeats + repeat] = _error(net, features, labels, task, temperature)
        features[:, column] = values
    count, *errors = ranks.add_up(sums, "importance").tolist()
    if not count:
        return []
    of_task = (lambda error: error / count) if task.data.label.classes else (lambda error: math.sqrt(error / count))
    growths = np.array([of_task(error) for error in errors[1:]]).reshape(len(names), repeats) - of_task(errors[0])
    measured = [Importance(n, float(g.mean()), float(g.std())) for n, g in zip(names, growths, strict=True)]
    return sorted(measured, key=lambda importance: (-importance.growth, importance.feature))


def _rows_by_hash(shard: Shard, task: Task, most: int) -> Batch:
    """Return the rows of this rank that the packaged model answers, on the CPU.

    They are all, or so many that all ranks have about ``most`` together.
    """
    most = min(MOST_ROWS, max(_FEWEST_ROWS, most))
    share = most / max(1, task.data.splits[task.data.measured_split].rows)
    parts = [shard.no_rows]
    for batch in shard.batches(BATCH_ROWS):
        chosen = ~refused_rows(batch.features, task)
        if share < 1:
            chosen &= row_hash(batch.features, batch.labels) % _SHARES < round(share * _SHARES)
        parts.append(batch.at(chosen))
    return joined(parts).at(slice(most))  # equal rows are chosen together, so there may be more


def _error(net: TabularNet, features: Tensor, labels: Tensor, task: Task, temperature: float) -> float:
    """Return the sum of the rows' log losses, or of their squared errors."""
    device, total = next(net.parameters()).device, 0.0
    for start in range(0, len(labels), BATCH_ROWS):
        right = labels[start : start + BATCH_ROWS].to(device)
        outputs = net(features[start : start + BATCH_ROWS].to(device)).double()
        if task.data.label.classes:
            total += torch.nn.functional.cross_entropy(outputs / temperature, right, reduction="sum").item()
        else:
            total += (outputs.squeeze(1) - right).square().sum().item()
    return total
