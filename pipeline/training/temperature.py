"""Temperature scaling: one number that makes a classifier's probabilities as sure as its answers are right.

The network's outputs are divided by it before the softmax (Guo et al. 2017, "On calibration of modern neural
networks"). It is fitted on the validation rows of all ranks, and the packaged model keeps it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.model.network import TabularNet
from pipeline.training.exchange import Ranks
from pipeline.training.loader import Shard
from pipeline.training.task import Task
from pipeline.training.validation import BATCH_ROWS, refused_rows

_PRIOR = 0.5
"""Standard deviation of the logarithm before any row is seen: few rows that are all right must not make a model sure of
everything. A hundred rows outweigh it."""
_FARTHEST = 3.0  # of the logarithm, on either side of 0
_STEPS = 40
_MOST_OUTPUTS = 4_000_000  # of a rank: enough rows for one number, and 32 MiB
_ENOUGH = 1e-7


@torch.no_grad()
def fit_temperature(net: TabularNet, shard: Shard, task: Task, ranks: Ranks) -> float:
    """Return the temperature with the lowest log loss on the validation rows; 1 for regression. Same on all ranks."""
    if not task.data.label.classes or not task.config.evaluation.temperature:
        return 1.0
    outputs, labels = _first_outputs(net, shard, task)
    low, high, log_beta = -_FARTHEST, _FARTHEST, 0.0  # beta is 1 / temperature
    for _ in range(_STEPS):
        slope, curvature = _derivatives(outputs, labels, ranks, log_beta)
        low, high = (low, log_beta) if slope > 0 else (log_beta, high)
        step = log_beta - slope / curvature if curvature > 0 else high
        if not low < step < high:  # Newton's method, kept in the interval that holds the minimum
            step = (low + high) / 2
        if abs(step - log_beta) < _ENOUGH:
            break
        log_beta = step
    # the last digits depend on the order of the ranks' sums
    return float(f"{math.exp(-log_beta):.5g}")


def _first_outputs(net: TabularNet, shard: Shard, task: Task) -> tuple[Tensor, Tensor]:
    """Return outputs (rows, classes) and labels (rows,) of this rank's first validation rows that a model answers."""
    net.eval()
    device = next(net.parameters()).device
    none = shard.no_rows.to(device)
    outputs, labels, cells = [net(none.features).double()], [none.labels], 0
    for batch in shard.batches(BATCH_ROWS):
        answered = batch.at(~refused_rows(batch.features, task)).to(device)
        outputs.append(net(answered.features).double())
        labels.append(answered.labels)
        cells += outputs[-1].numel()
        if cells >= _MOST_OUTPUTS:
            break
    return torch.cat(outputs), torch.cat(labels)


def _derivatives(outputs: Tensor, labels: Tensor, ranks: Ranks, log_beta: float) -> tuple[float, float]:
    """Return the first and second derivative of log loss and prior by the logarithm of beta, over all ranks."""
    beta = math.exp(log_beta)
    shares = torch.softmax(beta * outputs, dim=1)
    mean = (shares * outputs).sum(dim=1)
    spread = (shares * (outputs - mean.unsqueeze(1)).square()).sum()
    excess = (mean - outputs.gather(1, labels.unsqueeze(1)).squeeze(1)).sum()
    excess_sum, spread_sum = ranks.add_up(torch.stack([excess, spread]), "temperature").tolist()
    slope = beta * excess_sum + log_beta / _PRIOR**2
    return slope, beta * excess_sum + beta**2 * spread_sum + 1 / _PRIOR**2
