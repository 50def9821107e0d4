"""From a YAML file and ``--set key=value`` to validated settings, or one sentence that says what is wrong with them."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.config.settings import Config, members
from pipeline.runtime.errors import UserError, nearest, reason

MOVED = {
    "oversample": "split.oversample",
    "run.stall_timeout": "recovery.stall_timeout_s",
    "run.max_restarts": "recovery.max_restarts",
    "run.elastic": "recovery.elastic",
}
"""Settings that have another name today: the old name, the new one."""

_SHORT = reprlib.Repr()  # YAML's anchors can make a list of billions out of a few lines
_SHORT.maxlevel = 2


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read `path`, apply `overrides` (each `"a.b=value"`, the value in YAML), and validate.

    Raises:
        UserError: the file cannot be read, is not YAML, or does not fit; one sentence with file, key and nearest key.
    """
    file = Path(path)
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read: {reason(error)}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        raise UserError(f"{file}: is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{file}: must hold a mapping with the keys {', '.join(_keys(Config))}")
    for override in overrides:
        _override(tree, override)
    for old, new in MOVED.items():
        section, _, key = old.rpartition(".")
        if key in (_mapping(tree.get(section)) if section else tree):
            raise UserError(f"{file}: {old} is now {new}: write the setting under its new name")
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{file}: {' '.join(_explain(error).split())}") from None  # a key may hold a line break
    config._file = file
    return config


def _override(tree: dict[str, Any], override: str) -> None:
    """Set one dotted key in the tree read from YAML; list items by position (`features.numeric.0.scaling`)."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {override}: must look like --set training.epochs=5")
    for old, new in MOVED.items():
        if key == old or key.startswith(f"{old}."):
            raise UserError(f"--set {override}: {old} is now {new}: write --set {key.replace(old, new, 1)}={text}")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        raise UserError(f"--set {override}: '{text}' is not a YAML value") from None
    *parents, last = key.split(".")
    node: Any = tree
    for part in parents:
        if isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, dict):
            if node.get(part) is None:
                node[part] = {}
            node = node[part]
        else:
            raise UserError(f"--set {override}: '{part}' is not inside a mapping or list of the file")
    if isinstance(node, list) and last.isdigit() and int(last) < len(node):
        node[int(last)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise UserError(f"--set {override}: '{last}' is not inside a mapping or list of the file")


def _mapping(section: Any) -> dict[str, Any]:
    return section if isinstance(section, dict) else {}


def _explain(error: ValidationError) -> str:
    """Say the first mistake of a validation in one sentence, and how many more there are."""
    mistakes = error.errors()
    first = next((m for m in mistakes if m["type"] == "extra_forbidden"), mistakes[0])
    loc = first["loc"]
    key = ".".join(str(part) for part in loc)
    given = _SHORT.repr(first["input"])
    if loc[:2] == ("run", "num_proc"):  # a union: pydantic reports every member that did not fit
        mistakes = [m for m in mistakes if m["loc"][:2] != loc[:2]] + [first]
        said = f"run.num_proc: must be a whole number of at least 1, or auto, not {given}"
    elif first["type"] == "extra_forbidden":
        said = f"unknown key '{key}'{nearest(str(loc[-1]), _keys(_model_at(loc[:-1])))}"
    elif first["type"] == "missing":
        said = f"{key}: is missing"
    elif first["type"] == "literal_error":
        choices = [c.strip(" '") for c in first["ctx"]["expected"].replace(" or ", ",").split(",")]
        said = f"{key}: {given} is not one of {', '.join(choices)}{nearest(given[1:-1], choices)}"
    elif first["type"] == "value_error":
        said = f"{key + ': ' if key else ''}{first['ctx']['error']}"
    else:
        got = "" if ", not " in first["msg"] else f", not {given}"
        said = f"{key}: {first['msg'][0].lower()}{first['msg'][1:]}{got}"
    others = len({m["loc"] for m in mistakes}) - 1
    return said + (f" (and {others} more mistake{'s' if others > 1 else ''})" if others > 0 else "")


def _keys(model: type[BaseModel] | None) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _model_at(loc: Sequence[int | str]) -> type[BaseModel] | None:
    """Return the section that a location in the file belongs to."""
    model: Any = Config
    for part in loc:
        if isinstance(part, int):
            continue
        field = next((f for name, f in model.model_fields.items() if part in (name, f.alias)), None)
        model = section_of(field.annotation) if field else None
        if model is None:
            return None
    return model  # type: ignore[no-any-return]


def section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the section among an annotation's members, if there is one."""
    classes = (kind for kind in members(annotation) if isinstance(kind, type))
    return next((kind for kind in classes if issubclass(kind, BaseModel)), None)
