"""TabularNet: raw feature values in, logits (or a number) out; scaling and encodings are part of the network."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from .spec import CategoricalInput, NetSpec


class TabularNet(nn.Module):
    """Fully connected layers with ReLU between them, over scaled numbers and encoded categories.

    Input: float32 (rows, numeric + categorical columns), the categories as codes. Output: float32 (rows, outputs):
    logits of the classes, or the predicted label in its own unit.
    """

    def __init__(self, spec: NetSpec) -> None:
        super().__init__()
        self.spec = spec
        # The scaling lives in the network, so no caller can forget it.
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.tensor([n.shift for n in spec.numeric], dtype=torch.float32))
        self.register_buffer("scale", torch.tensor([n.scale for n in spec.numeric], dtype=torch.float32))
        self.embeddings = nn.ModuleDict(
            # one vector more than values: the last one is for unseen values
            {c.column: nn.Embedding(c.values + 1, c.width) for c in spec.categorical if c.encoding == "embedding"}
        )
        sizes = [len(spec.numeric) + sum(c.width for c in spec.categorical), *spec.hidden_sizes]
        hidden = (_hidden_layer(inputs, outputs, spec.dropout) for inputs, outputs in itertools.pairwise(sizes))
        self.layers = nn.Sequential(*itertools.chain(*hidden), nn.Linear(sizes[-1], spec.outputs))

    def forward(self, rows: Tensor) -> Tensor:
        """Return (rows, outputs) for float32 (rows, columns)."""
        out: Tensor = self.layers(self._inputs(rows))
        return out * self.spec.label_std + self.spec.label_mean if self.spec.outputs == 1 else out

    def _inputs(self, rows: Tensor) -> Tensor:
        """Return what the first layer takes: the scaled numbers, then each category's encoding."""
        first = len(self.spec.numeric)
        parts = [(rows[:, :first] - self.shift) * self.scale]
        parts += [self._encoded(c, rows[:, i]) for i, c in enumerate(self.spec.categorical, start=first)]
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]

    def _encoded(self, category: CategoricalInput, codes: Tensor) -> Tensor:
        """Return (rows, width) for codes (rows,)."""
        match category.encoding:
            case "index":  # the code is a number
                return codes.unsqueeze(1)
            case "embedding":
                vectors: Tensor = self.embeddings[category.column](codes.long())
                return vectors
            case "onehot":
                one_hot = nn.functional.one_hot(codes.long(), category.values + 1)
                return one_hot[:, :-1].to(codes.dtype)  # an unseen value is all zeros


def _hidden_layer(inputs: int, outputs: int, dropout: float) -> list[nn.Module]:
    return [nn.Linear(inputs, outputs), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]


def weight_bytes(net: nn.Module) -> bytes:
    """Return the weights as a safetensors file, which holds no time: the same weights are always the same bytes."""
    return bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}))


def describe_weights(net: nn.Module) -> str:
    """Return every layer's learned weights and biases as text: name, shape, values."""
    with np.printoptions(threshold=sys.maxsize, linewidth=120, precision=8):
        return "\n".join(
            f"{name} {tuple(weights.shape)}\n{weights.detach().cpu().numpy()}\n"
            for name, weights in net.named_parameters()
        )
