"""Loss, optimizer and schedule, by name. A new one is one function and one line in its table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pipeline.config import Training
from pipeline.model.members import OwnLinear, SharedLinear
from pipeline.model.numbers import PeriodicEmbedding
from pipeline.model.spec import NetSpec
from pipeline.training.length import Length

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of outputs (rows, outputs) and labels (rows,): the loss of each row, (rows,)."""


class Schedule(Protocol):
    """The learning rate of a step."""

    def __call__(self, step: int, losses: Sequence[float], /) -> float:
        """Return the rate; steps count from 0 over all epochs, ``losses`` are of the validation rows by epoch."""


_PLATEAU_EPOCHS, _PLATEAU_FACTOR = 8, 0.3
_CYCLE_RISE, _CYCLE_START = 0.3, 1 / 25


# ---- loss: by label.task ---------------------------------------------------------------------------------------------


def cross_entropy(spec: NetSpec, smoothing: float) -> Loss:
    """Return the cross entropy of logits (rows, classes) and class codes, in nats."""
    return lambda outputs, labels: nn.functional.cross_entropy(
        outputs, labels, reduction="none", label_smoothing=smoothing
    )


def squared_error(spec: NetSpec, smoothing: float) -> Loss:
    """Return the squared error in units of the label's standard deviation: the learning rate then fits any label."""
    return lambda outputs, labels: ((outputs.squeeze(1) - labels) / spec.label_std).square()


LOSSES: dict[str, Callable[[NetSpec, float], Loss]] = {
    "classification": cross_entropy,
    "regression": squared_error,
}


def make_loss(task: str, spec: NetSpec, smoothing: float = 0.0) -> Loss:
    """Return the loss of a network for `label.task`; ``smoothing`` is `training.label_smoothing` in a step, else 0."""
    return LOSSES[task](spec, smoothing)


def make_losses(task: str, spec: NetSpec, settings: Training) -> tuple[Loss, Loss]:
    """Return the loss that measures, and the one that steps follow.

    `training.label_smoothing` may smooth the second one. It takes what TabularNet.of_members returns: each member
    learns by itself, and the mean of their losses counts.
    """
    measuring, smoothed = make_loss(task, spec), make_loss(task, spec, settings.label_smoothing)
    if spec.members == 1:
        return measuring, smoothed

    def mean_of_members(outputs: Tensor, labels: Tensor) -> Tensor:
        losses = smoothed(outputs.flatten(0, 1), labels.repeat_interleave(spec.members))
        return losses.view(len(labels), spec.members).mean(dim=1)

    return measuring, mean_of_members


# ---- optimizer: by training.optimizer --------------------------------------------------------------------------------


def adam(
    parameter: nn.Parameter, learning_rate: float, settings: Training, decays: Tensor | None
) -> torch.optim.Optimizer:
    """Return Adam (Kingma and Ba 2015)."""
    return torch.optim.Adam([parameter], lr=learning_rate, weight_decay=settings.weight_decay)


class PartlyDecaying(torch.optim.AdamW):
    """AdamW of one flat parameter, of which only some weights decay."""

    def __init__(self, parameter: nn.Parameter, learning_rate: float, decay: float, decays: Tensor) -> None:
        super().__init__([parameter], lr=learning_rate, weight_decay=decay)
        self._decays = decays

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Let the weights decay that may, then take Adam's step."""
        (group,) = self.param_groups
        decay, group["weight_decay"] = group["weight_decay"], 0.0
        group["params"][0].mul_(1 - group["lr"] * decay * self._decays)
        super().step(closure)
        group["weight_decay"] = decay


def adamw(
    parameter: nn.Parameter, learning_rate: float, settings: Training, decays: Tensor | None
) -> torch.optim.Optimizer:
    """Return Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""
    if decays is None:
        return torch.optim.AdamW([parameter], lr=learning_rate, weight_decay=settings.weight_decay)
    return PartlyDecaying(parameter, learning_rate, settings.weight_decay, decays)


def sgd(
    parameter: nn.Parameter, learning_rate: float, settings: Training, decays: Tensor | None
) -> torch.optim.Optimizer:
    """Return stochastic gradient descent with momentum 0.9."""
    return torch.optim.SGD([parameter], lr=learning_rate, momentum=0.9, weight_decay=settings.weight_decay)


OPTIMIZERS: dict[str, Callable[[nn.Parameter, float, Training, Tensor | None], torch.optim.Optimizer]] = {
    "adam": adam,
    "adamw": adamw,
    "sgd": sgd,
}


def make_optimizer(
    settings: Training, parameter: nn.Parameter, learning_rate: float, decays: Tensor | None = None
) -> torch.optim.Optimizer:
    """Return the optimizer that `training.optimizer` names, for all weights as one flat parameter.

    ``decays`` is 1 for each weight that `adamw` lets decay, else 0; with None all decay.
    """
    return OPTIMIZERS[settings.optimizer](parameter, learning_rate, settings, decays)


def decaying(net: nn.Module) -> Tensor:
    """Return 1 for each weight of ``net`` that may decay, else 0, as one vector.

    Biases, learned vectors and members' own factors do not.
    """
    kinds = nn.Linear | SharedLinear | OwnLinear | PeriodicEmbedding
    matrices = {id(layer.weight) for layer in net.modules() if isinstance(layer, kinds)}
    return torch.cat([torch.full_like(p, float(id(p) in matrices)).flatten() for p in net.parameters()]).detach()


def clip_gradient(parameter: nn.Parameter, settings: Training) -> None:
    """Shorten the gradient of all weights to `training.gradient_clipping` if it is longer."""
    if settings.gradient_clipping is not None:
        nn.utils.clip_grad_norm_([parameter], settings.gradient_clipping)


# ---- learning rate: training.schedule, after training.warmup_epochs -------------------------------------------------


def constant(length: Length, steps_per_epoch: int) -> Schedule:
    """Keep the learning rate as it is."""
    return lambda step, losses: length.peak


def plateau(length: Length, steps_per_epoch: int) -> Schedule:
    """Multiply the learning rate by 0.3 after every 8 epochs without a lower validation loss."""

    def learning_rate(step: int, losses: Sequence[float]) -> float:
        rate, lowest, waited = length.peak, math.inf, 0
        for loss in losses:
            waited = 0 if loss < lowest else waited + 1
            lowest = min(lowest, loss)
            if waited == _PLATEAU_EPOCHS:
                rate, waited = rate * _PLATEAU_FACTOR, 0
        return rate

    return learning_rate


def cosine(length: Length, steps_per_epoch: int) -> Schedule:
    """Let the learning rate fall to 0 along half a cosine (Loshchilov and Hutter 2017)."""
    steps = steps_per_epoch * length.epochs
    return lambda step, losses: length.peak * _half_cosine(step / steps)


def one_cycle(length: Length, steps_per_epoch: int) -> Schedule:
    """Let the learning rate rise over the first 30 % of the steps from 1/25 of its peak, then fall to 0.

    Smith and Topin 2018, "Super-Convergence", with cosines as in torch's OneCycleLR.
    """
    steps = steps_per_epoch * length.epochs
    rise = _CYCLE_RISE * steps

    def learning_rate(step: int, losses: Sequence[float]) -> float:
        if step < rise:
            return length.peak * (1 - (1 - _CYCLE_START) * _half_cosine(step / rise))
        return length.peak * _half_cosine((step - rise) / (steps - rise))

    return learning_rate


def _half_cosine(done: float) -> float:
    """Return what falls from 1 at 0 to 0 at 1."""
    return (1 + math.cos(math.pi * min(1.0, done))) / 2


SCHEDULES: dict[str, Callable[[Length, int], Schedule]] = {
    "constant": constant,
    "plateau": plateau,
    "cosine": cosine,
    "one_cycle": one_cycle,
}


def make_schedule(settings: Training, length: Length, steps_per_epoch: int) -> Schedule:
    """Return `training.schedule`, with a linear rise to its peak over `training.warmup_epochs` before it.

    The rise starts at the unscaled rate (Goyal et al. 2017, "gradual warmup"), or at 0 if no scaling raises the rate.
    """
    after, peak = SCHEDULES[settings.schedule](length, steps_per_epoch), length.peak
    start = settings.learning_rate if peak > settings.learning_rate else 0.0
    warmup_steps = settings.warmup_epochs * steps_per_epoch

    def learning_rate(step: int, losses: Sequence[float] = ()) -> float:
        done = step + 1
        return after(step, losses) if done >= warmup_steps else start + (peak - start) * done / warmup_steps

    return learning_rate
