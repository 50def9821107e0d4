"""What the network makes of its numeric columns: missing values filled, scaled, and embedded if that is wanted."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .spec import NumericInput, Periodic

_CLIP = 3.0  # the smooth clip of RealMLP (Holzmüller et al. 2024): |z| stays below 3


class Numbers(nn.Module):
    """Raw numbers in, the first layer's inputs out.

    The scaling is part of the network, so no caller can forget it. It is fixed: no step changes it.
    """

    def __init__(self, numeric: tuple[NumericInput, ...]) -> None:
        super().__init__()
        self.fill: Tensor
        self.knots: Tensor
        self.levels: Tensor
        fills = [0.0 if n.fill is None else n.fill for n in numeric]
        self.register_buffer("fill", torch.tensor(fills, dtype=torch.float32), persistent=False)
        self.is_filled = any(n.fill is not None for n in numeric)
        self.indicators = [i for i, n in enumerate(numeric) if n.indicator]
        self._clipped = [i for i, n in enumerate(numeric) if n.is_clipped]
        self._mapped = [i for i, n in enumerate(numeric) if n.knots]
        most = max((len(n.knots) for n in numeric), default=0)
        # A row for each mapped column, filled up with its last knot.
        for name in ("knots", "levels"):
            rows = [getattr(numeric[i], name) for i in self._mapped]
            filled = [[*row, *[row[-1]] * (most - len(row))] for row in rows]
            self.register_buffer(name, torch.tensor(filled, dtype=torch.float32), persistent=False)

    def missing(self, numbers: Tensor) -> Tensor:
        """Return which of the numbers with an indicator are missing, as 0 and 1: (rows, indicators)."""
        return numbers[:, self.indicators].isnan().to(numbers.dtype)

    def filled(self, numbers: Tensor) -> Tensor:
        """Return the numbers (rows, columns) without a missing one."""
        return torch.where(numbers.isnan(), self.fill, numbers) if self.is_filled else numbers

    def bent(self, numbers: Tensor, scaled: Tensor) -> Tensor:
        """Return ``scaled`` (rows, columns) with the columns that a straight line does not scale; both are filled."""
        if not self._clipped and not self._mapped:
            return scaled
        scaled = scaled.clone()
        if self._clipped:
            z = scaled[:, self._clipped]
            scaled[:, self._clipped] = z / torch.sqrt(1 + (z / _CLIP).square())
        if self._mapped:
            scaled[:, self._mapped] = self._levels_of(numbers[:, self._mapped])
        return scaled

    def _levels_of(self, numbers: Tensor) -> Tensor:
        """Return the straight line between the levels of the two nearest knots; beyond the knots the last level."""
        values = numbers.T.contiguous()
        if self.knots.shape[1] < 2:
            return torch.zeros_like(numbers)
        above = torch.searchsorted(self.knots, values).clamp(1, self.knots.shape[1] - 1)
        low, high = self.knots.gather(1, above - 1), self.knots.gather(1, above)
        first, last = self.levels.gather(1, above - 1), self.levels.gather(1, above)
        share = ((values - low) / (high - low)).nan_to_num(0.0, 1.0, 0.0).clamp(0, 1)
        return torch.lerp(first, last, share).T


class PeriodicEmbedding(nn.Module):
    """Learned sines and cosines of each number, through a layer of the number's own.

    Gorishniy, Rubachev and Babenko 2022, "On Embeddings for Numerical Features in Tabular Deep Learning" (PLR).
    """

    def __init__(self, columns: int, settings: Periodic) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.randn(columns, settings.frequencies) * settings.scale)
        bound = 1 / math.sqrt(2 * settings.frequencies)  # as nn.Linear begins
        weight = torch.empty(columns, 2 * settings.frequencies, settings.width).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.empty(columns, settings.width).uniform_(-bound, bound))

    def forward(self, scaled: Tensor) -> Tensor:
        """Return (rows, columns * width) for scaled numbers (rows, columns)."""
        angles = 2 * math.pi * scaled.unsqueeze(2) * self.frequencies
        waves = torch.cat([angles.cos(), angles.sin()], dim=2)
        # a product of matrices for each column: (columns, rows, waves) x (columns, waves, width)
        embedded = torch.bmm(waves.transpose(0, 1), self.weight).transpose(0, 1) + self.bias
        return torch.relu(embedded).flatten(1)
