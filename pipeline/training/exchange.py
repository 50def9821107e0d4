"""How the ranks talk to each other."""

from __future__ import annotations

import itertools
import math

import horovod.torch as hvd
import torch
from torch import Tensor, nn


class Exchange:
    """One message per step between the ranks: all gradients, and behind them what the ranks must agree on.

    The parameters of the net are views of one vector, and their gradients of another, so nothing is packed or unpacked,
    the optimizer has one parameter to step, and the order of summation cannot change from run to run. (Horovod's
    DistributedOptimizer sends the same sums, but has no place for the rest: one more message a step would be needed
    for the ranks to stop together.)
    """

    def __init__(self, net: nn.Module) -> None:
        parameters = list(net.parameters())
        ends = list(itertools.accumulate(p.numel() for p in parameters))
        self.parameter = nn.Parameter(torch.empty(ends[-1], device=parameters[0].device))
        """All of the net's parameters, and their gradients."""
        self._flat = torch.zeros(ends[-1] + 2, device=parameters[0].device)
        self._handle = 0
        for parameter, end in zip(parameters, ends, strict=True):
            place = slice(end - parameter.numel(), end)
            self.parameter.data[place] = parameter.data.flatten()
            parameter.data = self.parameter.data[place].view_as(parameter)
            parameter.grad = self._flat[place].view_as(parameter)
        self.parameter.grad = self._flat[: ends[-1]]

    def clear(self) -> None:
        """Forget the last step's gradients."""
        self._flat.zero_()

    def start(self, loss: Tensor, wants_to_stop: bool) -> None:
        """Begin to add up over the ranks; there is time for other work until :meth:`finish`."""
        self._flat[-2] = loss
        self._flat[-1] = float(wants_to_stop)
        self._handle = hvd.allreduce_async_(self._flat, op=hvd.Sum, name="step")

    def finish(self) -> tuple[bool, bool]:
        """Wait for the sums; return whether all is finite everywhere, and whether any rank wants to stop."""
        hvd.synchronize(self._handle)
        total, stops = torch.stack([self._flat.sum(), self._flat[-1]]).tolist()
        return math.isfinite(total), stops > 0
