"""Loss, optimizer and schedule, by name. A new one is one function and one line in its table."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.config import Training
from pipeline.model.spec import NetSpec

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of outputs (rows, outputs) and labels (rows,): the sum over the rows, a tensor of no dimension."""

Schedule = Callable[[int], float]
"""The learning rate of a step; steps count from 0 over all epochs."""


# ---- loss: by label.task ---------------------------------------------------------------------------------------------


def cross_entropy(spec: NetSpec) -> Loss:
    """Return the cross entropy of logits (rows, classes) and class codes, in nats."""
    return lambda outputs, labels: nn.functional.cross_entropy(outputs, labels, reduction="sum")


def squared_error(spec: NetSpec) -> Loss:
    """Return the squared error in units of the label's standard deviation: the learning rate then fits any label."""
    return lambda outputs, labels: ((outputs.squeeze(1) - labels) / spec.label_std).square().sum()


LOSSES: dict[str, Callable[[NetSpec], Loss]] = {
    "classification": cross_entropy,
    "regression": squared_error,
}


def make_loss(task: str, spec: NetSpec) -> Loss:
    """Return the loss of a network for `label.task`."""
    return LOSSES[task](spec)


# ---- optimizer: by training.optimizer --------------------------------------------------------------------------------


def adam(parameter: nn.Parameter, learning_rate: float, settings: Training) -> torch.optim.Optimizer:
    """Return Adam (Kingma and Ba 2015)."""
    return torch.optim.Adam([parameter], lr=learning_rate, weight_decay=settings.weight_decay)


def adamw(parameter: nn.Parameter, learning_rate: float, settings: Training) -> torch.optim.Optimizer:
    """Return Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""
    return torch.optim.AdamW([parameter], lr=learning_rate, weight_decay=settings.weight_decay)


def sgd(parameter: nn.Parameter, learning_rate: float, settings: Training) -> torch.optim.Optimizer:
    """Return stochastic gradient descent with momentum 0.9."""
    return torch.optim.SGD([parameter], lr=learning_rate, momentum=0.9, weight_decay=settings.weight_decay)


OPTIMIZERS: dict[str, Callable[[nn.Parameter, float, Training], torch.optim.Optimizer]] = {
    "adam": adam,
    "adamw": adamw,
    "sgd": sgd,
}


def make_optimizer(settings: Training, parameter: nn.Parameter, learning_rate: float) -> torch.optim.Optimizer:
    """Return the optimizer that `training.optimizer` names, for all weights as one flat parameter."""
    return OPTIMIZERS[settings.optimizer](parameter, learning_rate, settings)


# ---- learning rate: training.lr_scaling, then the schedule after training.warmup_epochs ------------------------------

LR_SCALINGS: dict[str, Callable[[int], float]] = {
    "none": lambda num_proc: 1.0,
    "linear": float,
    "sqrt": math.sqrt,
}


def peak_learning_rate(settings: Training, num_proc: int) -> float:
    """Return the learning rate after the warm-up, on ``num_proc`` ranks."""
    return settings.learning_rate * LR_SCALINGS[settings.lr_scaling](num_proc)


def constant(peak: float, steps_per_epoch: int, settings: Training) -> Schedule:
    """Keep the learning rate as it is."""
    return lambda step: peak


SCHEDULES: dict[str, Callable[[float, int, Training], Schedule]] = {
    "constant": constant,
}


def make_schedule(settings: Training, peak: float, steps_per_epoch: int) -> Schedule:
    """Return the schedule, with a linear rise to ``peak`` over `training.warmup_epochs` before it.

    The rise starts at the unscaled rate (Goyal et al. 2017, "gradual warmup"), or at 0 if no scaling raises the rate.
    """
    name = "constant"  # the only one yet; a second one makes this a setting, as `training.optimizer` is
    after = SCHEDULES[name](peak, steps_per_epoch, settings)
    start = settings.learning_rate if peak > settings.learning_rate else 0.0
    warmup_steps = settings.warmup_epochs * steps_per_epoch

    def learning_rate(step: int) -> float:
        done = step + 1
        return after(step) if done >= warmup_steps else start + (peak - start) * done / warmup_steps

    return learning_rate
