"""What a packaged model's `model.json` holds: the shape of the network, raw columns, vocabularies; without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from .formats import FORMAT, upgrade

PROBABILITY = "probability_"
"""What the name of each class's output column starts with."""


@dataclass(frozen=True)
class NumericInput:
    """One numeric column; the network takes (x - shift) * scale."""

    column: str
    shift: float
    scale: float


@dataclass(frozen=True)
class CategoricalInput:
    """One categorical column of codes 0 … values - 1, and `values` for an unseen value."""

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


@dataclass(frozen=True)
class RawColumn:
    """One column of the CSV, in DuckDB's words."""

    name: str
    type: str
    needed: bool
    """Whether a feature is made from it; the label's column is not needed."""


@dataclass(frozen=True)
class ModelSpec:
    """A packaged model without its weights."""

    network: NetSpec
    raw: tuple[RawColumn, ...]
    select: str
    """features.sql in DuckDB's dialect."""
    vocabularies: dict[str, list[str]]
    classes: list[str]
    """Empty for regression."""
    encode_unknown: list[str]
    """Categorical features that encode an unseen value, instead of refusing the row."""

    def to_json(self) -> str:
        """Return the description as the text of `model.json`, in today's format."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Return what `model.json` of this or an older format holds. Raises :class:`.formats.NewerFormat`."""
        return cls.from_tree(upgrade(json.loads(text), {})[0])

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> ModelSpec:
        """Return what `model.json` of today's format holds, read from JSON."""
        fields = {name: value for name, value in tree.items() if name != "format"}
        net = fields["network"]
        network = NetSpec(
            **{
                **net,
                "numeric": tuple(NumericInput(**n) for n in net["numeric"]),
                "categorical": tuple(CategoricalInput(**c) for c in net["categorical"]),
                "hidden_sizes": tuple(net["hidden_sizes"]),
            }
        )
        return cls(**{**fields, "network": network, "raw": tuple(RawColumn(**c) for c in fields["raw"])})
