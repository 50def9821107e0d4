"""YAML that keeps what was written: `01234`, `no` and `2024-01-02` are a number, a truth and a date, or a text.

Only the setting knows which one is meant. So a value that is not text is read as :class:`Written`, and a section takes
the value or the text of it.
"""

from __future__ import annotations

import types
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

Tree = dict[str, Any]
"""What was read from YAML."""


@dataclass(frozen=True)
class Written:
    """A value without quotes that YAML takes for a number, a truth, a date or nothing."""

    value: Any
    text: str
    """What is written."""

    def __repr__(self) -> str:
        return repr(self.value)

    def as_text(self) -> str:
        """Return the text. Raises ValueError unless the value is written as Python writes it: 2024, 1.5, 2024-01-02."""
        if str(self.value) != self.text:
            raise ValueError(f"{self._meaning()}: quote it ('{self.text}') if it is a text")
        return self.text

    def as_option(self) -> Any:
        """Return the value of an option of Spark, which may be a text or not. Raises ValueError if that matters."""
        if self.value is None or str(self.value) == self.text:
            return self.value
        if isinstance(self.value, bool) and self.text.lower() in ("true", "false"):
            return self.value
        raise ValueError(f"{self._meaning()}: quote it ('{self.text}') if it is a text, else write {self._plain()}")

    def _meaning(self) -> str:
        return f"YAML reads {self.text} without quotes as {self._plain()}"

    def _plain(self) -> str:
        return "null" if self.value is None else str(self.value).lower()


class _Loader(yaml.SafeLoader):
    """Reads plain scalars that are not text as :class:`Written`, and the keys of mappings as they are written."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        mapping = super().construct_mapping(node, deep=deep)
        return {key.text if isinstance(key, Written) else key: value for key, value in mapping.items()}


def _written(loader: _Loader, node: Any) -> Written:
    value = yaml.SafeLoader.yaml_constructors[node.tag](loader, node)
    return Written(value, node.value)


for _kind in ("int", "float", "bool", "null", "timestamp"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _written)


def read(text: str) -> Any:
    """Return what YAML holds, with :class:`Written` in it. Raises yaml.YAMLError, or ValueError for 2024-02-30."""
    return yaml.load(text, _Loader)


def fitting(value: Any, annotation: Any) -> Any:
    """Return what a setting with this type annotation takes of ``value``: the text or the value of what is written.

    It looks one level deep into lists and mappings; sections below do the same for theirs.

    Raises:
        ValueError: text is expected, and YAML would change what is written.
    """
    kinds = [*members(annotation)]
    if isinstance(value, Written):
        if value.value is None and (type(None) in kinds or not value.text):
            return None
        return _of_kinds(value, kinds)
    if isinstance(value, list) and any(isinstance(item, Written) for item in value):
        # the items of a list of sections may be bare names
        has_names = str in kinds or any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds)
        item_kinds = [str] if has_names else kinds
        return [_of_kinds(item, item_kinds) if isinstance(item, Written) else item for item in value]
    if isinstance(value, dict) and (mapping := next((kind for kind in kinds if get_origin(kind) is dict), None)):
        is_option = str in members(get_args(mapping)[1])
        return {key: _entry(item, key, is_option) for key, item in value.items()}
    return value


def _of_kinds(written: Written, kinds: list[Any]) -> Any:
    is_text = str in kinds or (len(kinds) == 1 and get_origin(kinds[0]) is Literal)
    if float in kinds and isinstance(written.value, int | float) and not isinstance(written.value, bool):
        is_text = False  # a number or a text: `0.30` is a number
    return written.as_text() if is_text else written.value


def _entry(item: Any, key: Any, is_option: bool) -> Any:
    if not isinstance(item, Written):
        return item
    try:
        return item.as_option() if is_option else item.value
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def members(annotation: Any) -> list[Any]:
    """Return the plain types that an annotation is made of: of `list[A] | None`, A and NoneType."""
    if get_origin(annotation) in (list, Union, types.UnionType):
        return [kind for arg in get_args(annotation) for kind in members(arg)]
    if get_origin(annotation) is Annotated:
        return members(get_args(annotation)[0])
    return [annotation]
