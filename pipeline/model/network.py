"""TabularNet: raw feature values in, logits (or a number) out; scaling and encodings are part of the network."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from .members import OwnLinear, SharedLinear, combined
from .numbers import Numbers, PeriodicEmbedding
from .spec import CategoricalInput, NetSpec


class TabularNet(nn.Module):
    """Fully connected layers with ReLU between them, over scaled numbers and encoded categories.

    Input: float32 (rows, numeric + categorical columns), each number counted from its offset, the categories as codes.
    A missing value is NaN.
    Output: float32 (rows, outputs): logits of the classes, or the predicted label in its own unit, counted from the
    label's offset.
    """

    def __init__(self, spec: NetSpec) -> None:
        super().__init__()
        self.spec = spec
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.tensor([n.shift for n in spec.numeric], dtype=torch.float32))
        self.register_buffer("scale", torch.tensor([n.scale for n in spec.numeric], dtype=torch.float32))
        self._numbers = Numbers(spec.numeric)
        self.periodic = PeriodicEmbedding(len(spec.numeric), spec.periodic) if spec.periodic else None
        self.embeddings = nn.ModuleDict(
            {
                _module_name(i, c.column): nn.Embedding(c.codes, c.width)
                for i, c in enumerate(spec.categorical)
                if c.encoding == "embedding"
            }
        )
        numbers = len(spec.numeric) + len(self._numbers.indicators)
        embedded = len(spec.numeric) * spec.periodic.width if spec.periodic else 0
        self.layers = _layers(spec, numbers + embedded + sum(c.width for c in spec.categorical))
        with torch.no_grad():
            # An indicator that is 0 in every training row must not speak when it is 1 for the first time.
            next(self.layers[0].parameters())[..., len(spec.numeric) : numbers] = 0

    def forward(self, rows: Tensor) -> Tensor:
        """Return (rows, outputs) for float32 (rows, columns)."""
        return self.combined(self.of_members(rows))

    def of_members(self, rows: Tensor) -> Tensor:
        """Return each member's outputs, (rows, members, outputs); (rows, outputs) of a network without members."""
        inputs, members = self._inputs(rows), self.spec.members
        if members > 1:
            inputs = inputs.unsqueeze(1).expand(-1, members, -1)
        out: Tensor = self.layers(inputs)
        return out * self.spec.label_std + self.spec.label_mean if self.spec.outputs == 1 else out

    def combined(self, outputs: Tensor) -> Tensor:
        """Return (rows, outputs) of what :meth:`of_members` returns."""
        return combined(outputs) if self.spec.members > 1 else outputs

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights; in models and checkpoints until version 0.2.0 an embedding is called as its column."""
        own = {
            f"embeddings.{c.column}.weight": f"embeddings.{_module_name(i, c.column)}.weight"
            for i, c in enumerate(self.spec.categorical)
        }
        today = self.state_dict()
        renamed = {name if name in today else own.get(name, name): tensor for name, tensor in state_dict.items()}
        return super().load_state_dict(renamed, strict=strict, assign=assign)

    def _inputs(self, rows: Tensor) -> Tensor:
        """Return what the first layer takes: scaled numbers, which are missing, their embeddings, the categories."""
        first = len(self.spec.numeric)
        given = rows[:, :first]
        numbers = self._numbers.filled(given)
        scaled = self._numbers.bent(numbers, (numbers - self.shift) * self.scale)
        parts = [scaled]
        if self._numbers.indicators:
            parts.append(self._numbers.missing(given))
        if self.periodic is not None:
            parts.append(self.periodic(scaled))
        parts += [self._encoded(i, c, rows[:, first + i]) for i, c in enumerate(self.spec.categorical)]
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]

    def _encoded(self, position: int, category: CategoricalInput, codes: Tensor) -> Tensor:
        """Return (rows, width) for codes (rows,) of the category at this position of the specification."""
        if category.missing is not None:
            codes = torch.where(codes.isnan(), float(category.missing), codes)
        match category.encoding:
            case "index":  # the code is a number
                return codes.unsqueeze(1)
            case "embedding":
                vectors: Tensor = self.embeddings[_module_name(position, category.column)](codes.long())
                return vectors
            case "onehot":  # "other" is all zeros
                one_hot = nn.functional.one_hot(codes.long(), category.codes).to(codes.dtype)
                kept = [one_hot[:, : category.values], one_hot[:, category.values + 1 :]]
                return torch.cat(kept, dim=1) if category.codes > category.values + 1 else kept[0]


def _module_name(position: int, column: str) -> str:
    """Return a name for a category's embedding: torch takes no dot in it, and nothing that a module has already."""
    return f"{position}_{re.sub(r'[^A-Za-z0-9_]', '_', column)}"


def _layers(spec: NetSpec, inputs: int) -> nn.Sequential:
    """Return the hidden layers and the last one."""
    layers: list[nn.Module] = []
    sizes = [inputs, *spec.hidden_sizes]
    for before, after in itertools.pairwise(sizes):
        shared = SharedLinear(spec.members, before, after, not layers) if spec.members > 1 else nn.Linear(before, after)
        layers += [shared, nn.ReLU(), *([nn.Dropout(spec.dropout)] if spec.dropout else [])]
    last = OwnLinear(spec.members, sizes[-1], spec.outputs) if spec.members > 1 else nn.Linear(sizes[-1], spec.outputs)
    return nn.Sequential(*layers, last)


def weight_bytes(net: nn.Module) -> bytes:
    """Return the weights as a safetensors file, which holds no time: the same weights are always the same bytes."""
    return bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}))


_MOST_AS_TEXT = 1_000_000
"""Weights of which :func:`describe_weights` writes every value: 17 bytes each."""


def describe_weights(net: nn.Module) -> str:
    """Return every layer's learned weights and biases as text: name, shape, values; of many weights no values."""
    named = {name: weights.detach().cpu().numpy() for name, weights in net.named_parameters()}
    total = sum(weights.size for weights in named.values())
    if total > _MOST_AS_TEXT:
        lines = [f"{name} {weights.shape}" for name, weights in named.items()]
        return "\n".join([f"{total:,} values are too many for a text: see weights.safetensors", *lines, ""])
    with np.printoptions(threshold=sys.maxsize, linewidth=120, precision=8):
        return "\n".join(f"{name} {weights.shape}\n{weights}\n" for name, weights in named.items())
