"""TabularNet: raw feature values in, logits (or a number) out; scaling and encodings are part of the network."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

if TYPE_CHECKING:  # a packaged model builds the network without these
    from pipeline.config import Config
    from pipeline.manifest import Manifest, NumericStats


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


def net_spec(config: Config, data: Manifest) -> NetSpec:
    """Return the network that this configuration asks for on this data."""
    stats = data.label.stats
    return NetSpec(
        numeric=tuple(_numeric_input(f.column, f.scaling, data.numeric[f.column]) for f in config.features.numeric),
        categorical=tuple(
            CategoricalInput(f.column, f.encoding, values, _width(f.encoding, values, f.dim))
            for f in config.features.categorical
            for values in [len(data.vocabularies[f.column])]
        ),
        hidden_sizes=tuple(config.model.hidden_sizes),
        dropout=config.model.dropout,
        outputs=len(data.label.classes) or 1,
        label_mean=stats.mean if stats else 0.0,
        label_std=(stats.std or 1.0) if stats else 1.0,
    )


def _numeric_input(column: str, scaling: str, stats: NumericStats) -> NumericInput:
    """Return the scaling of one column; one that holds a single value has nothing to scale by, it is shifted to 0."""
    if scaling == "none":
        return NumericInput(column, 0.0, 1.0)
    if scaling == "standard":
        return NumericInput(column, stats.mean, 1 / stats.std if stats.std else 1.0)
    span = stats.max - stats.min
    return NumericInput(column, stats.min, 1 / span if span else 1.0)


def _width(encoding: str, values: int, dim: int | None) -> int:
    if encoding == "index":
        return 1
    if encoding == "onehot":
        return values
    # the rule of thumb of fastai's tabular models (fastai.tabular.model.emb_sz_rule)
    return dim or min(600, round(1.6 * values**0.56))


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


def loss_sum(net: TabularNet, outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the loss summed over the rows: cross entropy, or the squared error in units of the label's deviation."""
    if net.spec.outputs > 1:
        return nn.functional.cross_entropy(outputs, labels, reduction="sum")
    return ((outputs.squeeze(1) - labels) / net.spec.label_std).square().sum()


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
