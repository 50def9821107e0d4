"""Temperature scaling: one number that makes a classifier's probabilities as sure as its answers are right.

The network's outputs are divided by it before the softmax (Guo et al. 2017, "On calibration of modern neural
networks"). It is fitted on the validation rows of all ranks, and the packaged model keeps it.
"""

from __future__ import annotations

import torch

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
_ENOUGH = 1e-7


@torch.no_grad()
def fit_temperature(net: TabularNet, shard: Shard, task: Task, ranks: Ranks) -> float:
    """Return the temperature with the lowest log loss on the validation rows; 1 for regression. Same on all ranks."""
    if not task.data.label.classes or not task.config.evaluation.temperature:
        return 1.0
    net.eval()
    low, high, log_beta = -_FARTHEST, _FARTHEST, 0.0  # beta is 1 / temperature
    for _ in range(_STEPS):
        slope, curvature = _derivatives(net, shard, task, ranks, log_beta)
        low, high = (low, log_beta) if slope > 0 else (log_beta, high)
        step = log_beta - slope / curvature if curvature > 0 else high
        if not low < step < high:  # Newton's method, kept in the interval that holds the minimum
            step = (low + high) / 2
        if abs(step - log_beta) < _ENOUGH:
            break
        log_beta = step
    # the last digits depend on the order of the ranks' sums
    return float(f"{torch.tensor(-log_beta, dtype=torch.float64).exp().item():.5g}")


def _derivatives(net: TabularNet, shard: Shard, task: Task, ranks: Ranks, log_beta: float) -> tuple[float, float]:
    """Return the first and second derivative of log loss and prior by the logarithm of beta, over all ranks."""
    device = next(net.parameters()).device
    beta = torch.tensor(log_beta, dtype=torch.float64).exp().item()
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    for features, labels in shard.batches(BATCH_ROWS):
        features, labels = features.to(device), labels.to(device)
        outputs = net(features).double()
        shares = torch.softmax(beta * outputs, dim=1)
        mean = (shares * outputs).sum(dim=1)
        spread = (shares * (outputs - mean.unsqueeze(1)).square()).sum(dim=1)
        excess = mean - outputs.gather(1, labels.unsqueeze(1)).squeeze(1)
        answered = ~refused_rows(features, task)
        sums += torch.stack([excess[answered].sum(), spread[answered].sum()])
    excess_sum, spread_sum = ranks.add_up(sums, "temperature").tolist()
    slope = beta * excess_sum + log_beta / _PRIOR**2
    return slope, beta * excess_sum + beta**2 * spread_sum + 1 / _PRIOR**2
