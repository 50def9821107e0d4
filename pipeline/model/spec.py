"""What a packaged model's `model.json` holds: the shape of the network, raw columns, vocabularies; without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from .dialect.tree import Node
from .formats import FORMAT, upgrade

PROBABILITY = "probability_"
"""What the name of each class's output column starts with."""


@dataclass(frozen=True)
class NumericInput:
    """One numeric column; its input is float32(x - offset), and the network takes (input - shift) * scale."""

    column: str
    shift: float
    scale: float
    offset: float = 0.0
    """Subtracted in float64, before x is float32; 0 for a column that float32 holds."""
    fill: float | None = None
    """Stands for a missing value, counted from the offset; None: a row that lacks the value is refused."""
    indicator: bool = False
    """Whether the network also takes whether the value was missing."""
    is_clipped: bool = False
    """Whether the scaled value z then becomes z / √(1 + (z / 3)²), which never exceeds 3."""
    knots: tuple[float, ...] = ()
    """Values counted from the offset, rising. With them the network takes the straight line between their levels."""
    levels: tuple[float, ...] = ()
    """What the network takes of each knot, rising."""


@dataclass(frozen=True)
class CategoricalInput:
    """One categorical column of codes 0 … values - 1, and `values` for an unseen or a rare value: "other"."""

    column: str
    encoding: Literal["index", "onehot", "embedding"]
    values: int
    width: int
    """Inputs of the first layer that it takes: 1, the codes except "other", or the length of the learned vector."""
    missing: int | None = None
    """The code of a missing value: `values` + 1, or that of "other"; None: a row that lacks the value is refused."""
    hashed: bool = False
    """Whether the code is a hash of the value, modulo `values`."""

    @property
    def codes(self) -> int:
        """The number of different codes."""
        return max(self.values, self.missing or 0) + 1


@dataclass(frozen=True)
class Periodic:
    """Learned sines and cosines of each number."""

    frequencies: int
    scale: float
    """Standard deviation of the frequencies before the first step."""
    width: int
    """Inputs of the first layer that each number becomes, beside the number itself."""


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
    periodic: Periodic | None = None
    """How numbers are embedded; None: they are not."""
    members: int = 1
    """Networks in this one, which share most weights and answer with their mean; 1: a single network."""
    label_offset: float = 0.0
    """The label and its mean are counted from here; the prediction is the offset and the answer, added in float64."""


TEXT = "text"
"""The column of a field's text, from which :attr:`RawColumn.value` reads the value."""


@dataclass(frozen=True)
class RawColumn:
    """One column of the CSV."""

    name: str
    type: str
    """Spark's name of the declared type, in capitals."""
    needed: bool
    """Whether a feature is made from it; the label's column is not needed."""
    value: Node | None = None
    """The value of a field in its declared type, from its text; None in models of formats 1 and 2."""


HASH_VERSION = 2
"""Of the row hash that splits rows, in pipeline/data/split.py.

Version 1 took the columns in the order of the configuration, version 2 takes them by name.
"""


@dataclass(frozen=True)
class SplitRule:
    """What the settings of a training do not say of its split; with it, the gate finds the rows that a model knows."""

    version: int
    """Of the row hash; 1 in models of formats 1 to 4."""
    validation_from: float | None = None
    """The first moment of the validation rows, if time splits the rows."""
    test_from: float | None = None
    """The first moment of the test rows."""


@dataclass(frozen=True)
class ModelSpec:
    """A packaged model without its weights."""

    network: NetSpec
    raw: tuple[RawColumn, ...]
    vocabularies: dict[str, list[str]]
    classes: list[str]
    """Empty for regression."""
    encode_unknown: list[str]
    """Categorical features that encode an unseen value, instead of refusing the row."""
    missing: tuple[str, ...] = ("",)
    """The texts of a field that has no value."""
    features: dict[str, Node] = field(default_factory=dict)
    """What features.sql makes of the declared columns, by feature: DOUBLE for a number, STRING for a category."""
    temperature: float = 1.0
    """A classifier's outputs are divided by it before they become probabilities."""
    positive: str | None = None
    """Of two classes the one that is predicted where its probability is at least ``threshold``; None: the most probable
    class is predicted."""
    threshold: float = 0.5
    split: SplitRule = SplitRule(1)
    """Which rows the training knows."""
    former_options: tuple[str, ...] = ()
    """Options of Spark's CSV reader that a model of formats 1 and 2 was trained with and that are not honoured now."""
    select: str = ""
    """features.sql in DuckDB's dialect, in models of formats 1 and 2, which have no ``features``."""

    def to_json(self) -> str:
        """Return the description as the text of `model.json`, in today's format."""
        tree: dict[str, Any] = {"format": FORMAT}
        tree |= {
            name: value for name, value in vars(self).items() if name not in ("network", "raw", "features", "split")
        }
        tree["network"], tree["split"] = asdict(self.network), asdict(self.split)
        tree["raw"] = [
            {"name": c.name, "type": c.type, "needed": c.needed, "value": c.value.to_json() if c.value else None}
            for c in self.raw
        ]
        tree["features"] = {name: node.to_json() for name, node in self.features.items()}
        return json.dumps(tree, indent=1, ensure_ascii=False)

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
                "numeric": tuple(
                    NumericInput(**{**n, "knots": tuple(n["knots"]), "levels": tuple(n["levels"])})
                    for n in net["numeric"]
                ),
                "periodic": Periodic(**net["periodic"]) if net["periodic"] else None,
                "categorical": tuple(CategoricalInput(**c) for c in net["categorical"]),
                "hidden_sizes": tuple(net["hidden_sizes"]),
            }
        )
        raw = tuple(
            RawColumn(**{**c, "value": Node.from_json(c["value"]) if c.get("value") else None}) for c in fields["raw"]
        )
        features = {name: Node.from_json(node) for name, node in fields["features"].items()}
        return cls(
            **{
                **fields,
                "network": network,
                "raw": raw,
                "features": features,
                "split": SplitRule(**fields["split"]),
                "missing": tuple(fields["missing"]),
                "former_options": tuple(fields["former_options"]),
            }
        )
