"""The table of settings that the pages show, generated from the settings' own docstrings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import get_origin

from pydantic import BaseModel

from pipeline.config.base import section_of
from pipeline.config.presets import PRESETS
from pipeline.config.settings import Config


def reference(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    """Yield the rows of the table of settings in conf/README.md: key, default, meaning."""
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        section = section_of(field.annotation)
        if section is None or (not field.is_required() and field.default is None):
            default = "required" if field.is_required() else f"`{json.dumps(field.default)}`"
            yield f"| `{key}` | {default} | {' '.join(str(field.description).split())} |"
        if section is not None:
            item = "[]." if get_origin(field.annotation) is list else "."
            yield from reference(section, key + item)


def presets() -> Iterator[str]:
    """Yield the rows of the table of presets: key, and the value in each preset that sets anything."""
    named = [preset for preset in PRESETS.values() if preset]
    for section in named[0]:
        mark = "[]" if section == "features.numeric" else ""
        for key in dict.fromkeys(key for preset in named for key in preset[section]):
            values = [f"`{json.dumps(preset[section][key])}`" if key in preset[section] else "" for preset in named]
            yield f"| `{section}{mark}.{key}` | {' | '.join(values)} |"


def table() -> str:
    """Return the table of settings in Markdown."""
    return "\n".join(["| key | default | meaning |\n|---|---|---|", *reference()])
