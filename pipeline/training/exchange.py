"""How the ranks talk to each other. Horovod carries the messages, and only this module knows that.

Two modules use Horovod for what is Horovod's alone: `elastic.py` (the mode in which ranks come and go) and
`placement.py` (the GPU that Spark assigned).
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import horovod.torch as hvd
import torch
from horovod.common.exceptions import HorovodInternalError
from torch import Tensor, nn

PeerLost = HorovodInternalError
"""Raised in a rank when another rank has ended, so that no message between them can be completed."""

Item = TypeVar("Item")


class Ranks:
    """All ranks of a training, as one of them sees them.

    Every rank must call the methods that exchange something in the same order. They raise PeerLost.
    """

    @classmethod
    def start(cls) -> Ranks:
        """Join the other ranks; returns when all have come."""
        hvd.init()
        return cls()

    @property
    def rank(self) -> int:
        """The number of this process among the ranks, from 0. Raises ValueError while the ranks have no numbers."""
        return int(hvd.rank())

    @property
    def size(self) -> int:
        """The number of ranks."""
        return int(hvd.size())

    def add_up(self, vector: Tensor, name: str) -> Tensor:
        """Return the sum over the ranks of a ``vector`` of the same length on each, on the CPU; ``name`` is unique."""
        total: Tensor = hvd.allreduce(vector.cpu(), op=hvd.Sum, name=name)
        return total

    def start_sum(self, vector: Tensor, name: str) -> int:
        """Begin to replace ``vector`` by its sum over the ranks; return a handle for :meth:`finish_sum`."""
        return int(hvd.allreduce_async_(vector, op=hvd.Sum, name=name))

    def finish_sum(self, handle: int) -> None:
        """Wait until the sum that has ``handle`` is there."""
        hvd.synchronize(handle)

    def gather(self, item: Item) -> list[Item]:
        """Return every rank's ``item``, by rank; all have the same type."""
        return list(hvd.allgather_object(item))

    def broadcast(self, tensors: Mapping[str, Tensor]) -> None:
        """Overwrite ``tensors`` with those of rank 0; names and shapes are the same on all ranks."""
        hvd.broadcast_parameters(dict(tensors), root_rank=0)

    def broadcast_object(self, item: Item) -> Item:
        """Return rank 0's ``item``, which pickle can take."""
        sent: Item = hvd.broadcast_object(item)
        return sent

    def barrier(self) -> None:
        """Wait until all ranks have come here."""
        hvd.barrier()

    def shut_down(self) -> None:
        """Leave the other ranks. Their next message raises PeerLost at once instead of waiting for this rank."""
        hvd.shutdown()


def current_rank(is_elastic: bool) -> int | None:
    """Return this process's rank, also before :meth:`Ranks.start`; None while elastic ranks get new numbers."""
    if not is_elastic:
        return int(os.environ["HOROVOD_RANK"])
    try:
        return int(hvd.rank())
    except ValueError:
        return None


class Agreed(NamedTuple):
    """What all ranks know after a step's message."""

    is_finite: bool
    """Whether all numbers of all ranks are finite."""
    is_stopping: bool
    """Whether any rank wants to stop."""
    weighs: bool
    """Whether any row of the step has a weight above 0."""


class Exchange:
    """One message per step between the ranks: all gradients, and behind them what the ranks must agree on.

    The parameters of the network are views of one vector, and their gradients are views of another. So nothing is
    packed or unpacked, the optimizer has one parameter, and the order of summation is the same in every run.
    Horovod's DistributedOptimizer sends the same sums, but it has no place for the rest: the ranks would need a second
    message per step to stop together.
    """

    def __init__(self, net: nn.Module, ranks: Ranks, is_weighted: bool = False) -> None:
        """Lay the parameters out. ``is_weighted`` says that the ranks must agree on the weight of each step's rows."""
        self._ranks, self._is_weighted = ranks, is_weighted
        parameters = list(net.parameters())
        ends = list(itertools.accumulate(p.numel() for p in parameters))
        self.parameter = nn.Parameter(torch.empty(ends[-1], device=parameters[0].device))
        """All of the network's parameters as one vector, and their gradients."""
        # The gradients, then the rows' weight if they have weights, the loss, and how many ranks want to stop.
        self._flat = torch.zeros(ends[-1] + 2 + is_weighted, device=parameters[0].device)
        self._handle = 0
        for parameter, end in zip(parameters, ends, strict=True):
            place = slice(end - parameter.numel(), end)
            self.parameter.data[place] = parameter.data.flatten()
            parameter.data = self.parameter.data[place].view_as(parameter)
            parameter.grad = self._flat[place].view_as(parameter)
        self.parameter.grad = self._flat[: ends[-1]]

    def clear(self) -> None:
        """Set the gradients of the step before to zero."""
        self._flat.zero_()

    def start(self, loss: Tensor, wants_to_stop: bool, weights: Tensor | None = None) -> None:
        """Begin to add up over the ranks; there is time for other work until :meth:`finish`.

        ``weights`` (rows,) are those of this rank's rows. The gradients are then of a sum over the rows, not a mean.
        """
        if weights is not None:
            self._flat[-3] = weights.sum()
        self._flat[-2] = loss
        self._flat[-1] = float(wants_to_stop)
        self._handle = self._ranks.start_sum(self._flat, "step")

    def finish(self) -> Agreed:
        """Wait for the sums; gradients of weighted rows are then divided by the weight of all ranks' rows."""
        self._ranks.finish_sum(self._handle)
        parts = [self._flat.sum(), self._flat[-1], *([self._flat[-3]] if self._is_weighted else [])]
        total, stops, *weight = torch.stack(parts).tolist()
        weighs = not weight or weight[0] > 0
        if weight and weighs:
            assert self.parameter.grad is not None
            self.parameter.grad.div_(weight[0])
        return Agreed(math.isfinite(total), stops > 0, weighs)
