"""TabularNet: raw feature values in, logits (or a number) out; scaling and encodings are part of the network."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn


@dataclass(frozen=True)
class NumericInput:
    """One numeric column; the network sees (x - shift) * scale."""

    column: str
    shift: float
    scale: float


@dataclass(frozen=True)
class CategoricalInput:
    """One categorical column of codes 0 … values - 1, and `values` for a value that training never saw."""

    column: str
    encoding: Literal["index", "onehot", "embedding"]
    values: int
    width: int
    """Inputs of the first layer that it takes: 1, `values`, or the length of the learned vector."""


@dataclass(frozen=True)
class NetSpec:
    """All that is needed to build the network again."""

    numeric: tuple[NumericInput, ...]
    categorical: tuple[CategoricalInput, ...]
    hidden_sizes: tuple[int, ...]
    dropout: float
    outputs: int
    """Number of classes; 1 for regression."""
    label_mean: float
    label_std: float
    """Regression learns (label - mean) / std and answers in the label's own unit; 0 and 1 for classification."""


class TabularNet(nn.Module):
    """Fully connected layers with ReLU between them, over scaled numbers and encoded categories.

    Input: float32 (rows, numeric + categorical columns), the categories as codes. Output: float32 (rows, outputs):
    logits of the classes, or the predicted label in its own unit.
    """

    def __init__(self, spec: NetSpec) -> None:
        super().__init__()
        self.spec = spec
        # The scaling lives in the network, so no caller can forget it. A code with encoding `index` is a number too.
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.tensor([n.shift for n in spec.numeric], dtype=torch.float32))
        self.register_buffer("scale", torch.tensor([n.scale for n in spec.numeric], dtype=torch.float32))
        self.embeddings = nn.ModuleDict(
            # one vector more than values: the last one is for values that training never saw
            {c.column: nn.Embedding(c.values + 1, c.width) for c in spec.categorical if c.encoding == "embedding"}
        )
        sizes = [len(spec.numeric) + sum(c.width for c in spec.categorical), *spec.hidden_sizes]
        layers: list[nn.Module] = []
        for wide, narrow in itertools.pairwise(sizes):
            layers += [nn.Linear(wide, narrow), nn.ReLU()] + ([nn.Dropout(spec.dropout)] if spec.dropout else [])
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], spec.outputs))

    def forward(self, rows: Tensor) -> Tensor:
        """Return (rows, outputs) for float32 (rows, columns)."""
        numbers = len(self.spec.numeric)
        inputs = [(rows[:, :numbers] - self.shift) * self.scale]
        inputs += [self._encoded(c, rows[:, numbers + i]) for i, c in enumerate(self.spec.categorical)]
        out: Tensor = self.layers(torch.cat(inputs, dim=1) if len(inputs) > 1 else inputs[0])
        return out * self.spec.label_std + self.spec.label_mean if self.spec.outputs == 1 else out

    def _encoded(self, category: CategoricalInput, codes: Tensor) -> Tensor:
        if category.encoding == "index":
            return codes.unsqueeze(1)
        if category.encoding == "embedding":
            vectors: Tensor = self.embeddings[category.column](codes.long())
            return vectors
        one_hot = nn.functional.one_hot(codes.long(), category.values + 1)
        return one_hot[:, :-1].to(codes.dtype)  # a value that training never saw is all zeros


def weight_bytes(net: nn.Module) -> bytes:
    """Return the weights as a safetensors file: the same weights are always the same bytes, for no time is stored."""
    return bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}))


def describe_weights(net: nn.Module) -> str:
    """Return every layer's learned weights and biases as text: name, shape, values."""
    with np.printoptions(threshold=sys.maxsize, linewidth=120, precision=8):
        return "\n".join(
            f"{name} {tuple(weights.shape)}\n{weights.detach().cpu().numpy()}\n"
            for name, weights in net.named_parameters()
        )
