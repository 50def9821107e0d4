"""A mistake in the settings, as pydantic reports it, in one sentence for the user."""

from __future__ import annotations

import reprlib
from typing import Any

from pydantic import BaseModel, ValidationError

from pipeline.config.base import Key, section_of
from pipeline.config.settings import Config
from pipeline.runtime.errors import nearest

_SHORT = reprlib.Repr()  # YAML's anchors can make a list of billions out of a few lines
_SHORT.maxlevel = 2

_NUMBER_OR_AUTO = "a whole number of at least 1, or auto"
_UNIONS = {
    ("run", "num_proc"): _NUMBER_OR_AUTO,
    ("training", "epochs"): _NUMBER_OR_AUTO,
    ("training", "batch_size"): _NUMBER_OR_AUTO,
    ("features", "numeric", "missing"): "median, mean, drop, refuse or a number",
    ("label", "threshold"): "a number between 0 and 1, f1, recall>=0.8 or precision>=0.9",
    ("training", "class_weights"): "none, balanced or a weight above 0 by class",
}
"""What a setting may be that has several kinds of values."""


def explain(error: ValidationError) -> tuple[str, Key]:
    """Return the first mistake of a validation in one sentence, with the number of the others, and its key."""
    mistakes = error.errors()
    first = next((m for m in mistakes if m["type"] == "extra_forbidden"), mistakes[0])
    loc = first["loc"]
    if union := _union_at(loc):  # pydantic reports every member that did not fit
        mistakes = [m for m in mistakes if m["loc"][: len(union)] != union] + [first]
        loc = union
    others = len({m["loc"] for m in mistakes}) - 1
    rest = f" (and {others} more mistake{'s' if others > 1 else ''})" if others > 0 else ""
    sentence = _sentence(first)
    # a check of several sections, in Config, begins its sentence with the key
    key = loc or tuple(sentence.split(maxsplit=1)[0].split("."))
    return " ".join((sentence + rest).split()), key  # a key may hold a line break


def _sentence(mistake: Any) -> str:
    """Say one mistake, as pydantic lists it."""
    loc, value = mistake["loc"], _SHORT.repr(mistake["input"])
    union = _union_at(loc)
    key = ".".join(str(part) for part in union or loc)
    if union:
        return f"{key}: must be {_UNIONS[_names(union)]}, not {value}"
    match mistake["type"]:
        case "extra_forbidden":
            return f"unknown key '{key}'{nearest(str(loc[-1]), keys(_section_at(loc[:-1])))}"
        case "missing":
            return f"{key}: is missing"
        case "literal_error":
            choices = [c.strip(" '") for c in mistake["ctx"]["expected"].replace(" or ", ",").split(",")]
            return f"{key}: {value} is not one of {', '.join(choices)}{nearest(value[1:-1], choices)}"
        case "value_error":
            return f"{key + ': ' if key else ''}{mistake['ctx']['error']}"
    message = mistake["msg"]
    return f"{key}: {message[0].lower()}{message[1:]}" + ("" if ", not " in message else f", not {value}")


def _union_at(loc: tuple[int | str, ...]) -> tuple[int | str, ...] | None:
    """Return the part of ``loc`` that is a setting of several kinds, None if it is another setting."""
    return next((loc[:end] for end in range(2, len(loc) + 1) if _names(loc[:end]) in _UNIONS), None)


def _names(loc: Key) -> tuple[str, ...]:
    return tuple(part for part in loc if isinstance(part, str))


def keys(section: type[BaseModel] | None) -> list[str]:
    """Return the names of a section's settings, as a user writes them."""
    return [field.alias or name for name, field in section.model_fields.items()] if section else []


def _section_at(key: Key) -> type[BaseModel] | None:
    """Return the section that a key belongs to."""
    section: type[BaseModel] | None = Config
    for part in key:
        if isinstance(part, int) or section is None:
            continue
        field = next((f for name, f in section.model_fields.items() if part in (name, f.alias)), None)
        section = section_of(field.annotation) if field else None
    return section
