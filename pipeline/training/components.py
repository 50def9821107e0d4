"""Loss, optimizer and schedule, by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pipeline.config import Training
from pipeline.model.network import TabularNet

if TYPE_CHECKING:  # a packaged model builds the network without these
    pass


def loss_sum(net: TabularNet, outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the loss summed over the rows: cross entropy, or the squared error in units of the label's deviation."""
    if net.spec.outputs > 1:
        return nn.functional.cross_entropy(outputs, labels, reduction="sum")
    return ((outputs.squeeze(1) - labels) / net.spec.label_std).square().sum()


def lr_factor(settings: Training, num_proc: int) -> float:
    """Return what the learning rate is multiplied by for this many ranks."""
    return {"none": 1.0, "linear": float(num_proc), "sqrt": math.sqrt(num_proc)}[settings.lr_scaling]


def warmed_up(settings: Training, epoch: int, peak: float, steps: int) -> Callable[[int], float]:
    """Return the learning rate of each step of this epoch: a linear rise to ``peak`` over the warm-up, then flat.

    The rise starts at the unscaled rate (Goyal et al. 2017, "gradual warmup"), or at 0 where nothing is scaled.
    """
    start = settings.learning_rate if peak > settings.learning_rate else 0.0
    warmup_steps = settings.warmup_epochs * steps

    def at(step: int) -> float:
        done = (epoch - 1) * steps + step + 1
        return peak if done >= warmup_steps else start + (peak - start) * done / warmup_steps

    return at


def make_optimizer(settings: Training, parameter: nn.Parameter, learning_rate: float) -> torch.optim.Optimizer:
    """Return the optimizer that the settings name."""
    decay = settings.weight_decay
    if settings.optimizer == "sgd":
        return torch.optim.SGD([parameter], lr=learning_rate, momentum=0.9, weight_decay=decay)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW([parameter], lr=learning_rate, weight_decay=decay)
    return torch.optim.Adam([parameter], lr=learning_rate, weight_decay=decay)
