"""What every section of the settings is made of, and how to look into one by its type annotations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from pipeline.config.written import Tree, fitting, members


class Settings(BaseModel):
    """What all sections share: unknown keys are errors, values are fixed once read."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, coerce_numbers_to_str=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _is_as_written(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[str(info.field_name)].annotation
        value = fitting(value, annotation)
        if isinstance(value, bool) and any(kind in (int, float) for kind in members(annotation)):
            raise ValueError(f"must be a number, not {str(value).lower()}")
        return value


def section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the section among an annotation's members, if there is one."""
    classes = (kind for kind in members(annotation) if isinstance(kind, type))
    return next((kind for kind in classes if issubclass(kind, BaseModel)), None)


Key = Sequence[int | str]
"""Where a setting is: the keys and list positions that lead to it."""


@dataclass(frozen=True)
class Origin:
    """A file, or a ``--set``, that settings were read from."""

    name: str
    """What a message calls it."""
    tree: Tree = field(default_factory=dict)
    """What the file holds."""
    path: Key = ()
    """The one key that a ``--set`` sets."""

    def depth(self, key: Key) -> int:
        """Return how many parts of ``key`` this states."""
        if self.path:  # it states all below its key, and a part of all above
            return len(key) if all(mine == part for mine, part in zip(self.path, key, strict=False)) else 0
        return depth(self.tree, key)


def origin_of(key: Key, origins: Sequence[Origin]) -> str:
    """Return the name of the last origin that states the setting ``key``, or else most parts of its key."""
    depths = [origin.depth(key) for origin in origins]
    return origins[max(i for i, parts in enumerate(depths) if parts == max(depths)) if any(depths) else 0].name


def depth(tree: Any, key: Key) -> int:
    """Return how many parts of ``key`` there are in what was read from YAML."""
    if not key:
        return 0
    first, *rest = key
    try:
        inner = tree[first]
    except (KeyError, IndexError, TypeError):
        return 0
    return 1 + depth(inner, rest)
