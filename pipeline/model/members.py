"""Several networks in one, which share most of their weights and answer with their mean.

Gorishniy, Kotelnikov and Babenko 2025, "TabM: Advancing tabular deep learning with parameter-efficient ensembling".
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class SharedLinear(nn.Module):
    """A layer whose weights all members share; each has factors of its own for inputs and outputs, and a bias."""

    def __init__(self, members: int, inputs: int, outputs: int, is_first: bool) -> None:
        """Begin as nn.Linear does. In the first layer each member's inputs have random signs, so the members differ."""
        super().__init__()
        bound = 1 / math.sqrt(max(1, inputs))
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        signs = 2.0 * torch.randint(2, (members, inputs)) - 1 if is_first else torch.ones(members, inputs)
        self.before = nn.Parameter(signs)
        self.after = nn.Parameter(torch.ones(members, outputs))
        self.bias = nn.Parameter(torch.empty(members, outputs).uniform_(-bound, bound))

    def forward(self, rows: Tensor) -> Tensor:
        """Return (rows, members, outputs) for (rows, members, inputs)."""
        return nn.functional.linear(rows * self.before, self.weight) * self.after + self.bias


class OwnLinear(nn.Module):
    """A layer of each member's own."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(max(1, inputs))
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, outputs).uniform_(-bound, bound))

    def forward(self, rows: Tensor) -> Tensor:
        """Return (rows, members, outputs) for (rows, members, inputs)."""
        return torch.bmm(rows.transpose(0, 1), self.weight).transpose(0, 1) + self.bias


def combined(outputs: Tensor) -> Tensor:
    """Return (rows, outputs) for those of the members, (rows, members, outputs): one number's mean, or logits.

    The softmax of the logits is the mean of the members' probabilities.
    """
    if outputs.shape[2] == 1:
        return outputs.mean(dim=1)
    return torch.logsumexp(torch.log_softmax(outputs, dim=2), dim=1) - math.log(outputs.shape[1])
