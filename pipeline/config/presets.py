"""Presets: settings that go well together, for what a use case does not set itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.config.written import Tree, Written

DEFAULT: dict[str, Tree] = {
    "features.numeric": {"scaling": "quantile"},
    "model": {"hidden_sizes": [256, 256], "dropout": 0.2, "numeric_embedding": "periodic", "frequency_scale": 0.5},
    "training": {
        "epochs": "auto",
        "batch_size": "auto",
        "optimizer": "adamw",
        "learning_rate": 0.001,
        "lr_scaling": "sqrt",
        "schedule": "plateau",
        "weight_decay": 0.03,
        "gradient_clipping": 1.0,
        "early_stopping": {"patience": 16, "min_delta": 0.0},
    },
}
STRONG: dict[str, Tree] = {**DEFAULT, "model": {**DEFAULT["model"], "members": 8}}
_OF_THE_OPTIMIZER = ("learning_rate", "weight_decay")  # of another optimizer these would be wrong
PRESETS: dict[str, dict[str, Tree]] = {"default": DEFAULT, "strong": STRONG, "none": {}}
"""Of each preset the settings by section; `none` leaves each setting at its own default."""


def fill(tree: Mapping[str, Any]) -> Tree:
    """Return the tree of settings with what its preset adds; what the tree sets itself stays."""
    filled = dict(tree)
    model = tree.get("model")
    name = str(model.get("preset", "default")) if isinstance(model, Mapping) else "default"
    for key, values in PRESETS.get(name, {}).items():
        section, _, items = key.partition(".")
        there = filled.get(section)
        if items and isinstance(there, Mapping) and isinstance(there.get(items), list):
            filled[section] = {**there, items: [_filled_item(item, values) for item in there[items]]}
        elif not items:
            filled[section] = _filled(there, values)
    return filled


def _filled(section: Any, values: Tree) -> Any:
    """Return a section with what a preset adds to it, and to the sections in it."""
    if section is None or (isinstance(section, Written) and section.value is None):  # an empty section
        return values
    if not isinstance(section, Mapping):
        return section
    if section.get("optimizer", values.get("optimizer")) != values.get("optimizer"):
        values = {name: value for name, value in values.items() if name not in _OF_THE_OPTIMIZER}
    inner = {n: _filled(section[n], v) for n, v in values.items() if isinstance(v, dict) and n in section}
    return {**values, **section, **inner}


def _filled_item(item: Any, values: Tree) -> Any:
    """Return an item of a list of features, which may be a bare name."""
    if isinstance(item, Mapping):
        return {**values, **item}
    return {**values, "column": item} if isinstance(item, str | Written) else item
