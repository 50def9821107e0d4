"""Lists: texts split into parts, their items, and lists of values."""

from __future__ import annotations

from collections.abc import Callable
from re import Pattern
from typing import Any

from .conditions import sort_key
from .entry import Function, NotAllowed, entry, literal_of, takes, written
from .patterns import repeated_pattern_of
from .tree import Node
from .types import element_type


@entry(
    "StringSplit", "split(text, pattern)", "split(text, pattern, limit)", edge="an empty pattern gives the characters"
)
def _split(node: Node) -> Function:
    limit = literal_of(node, 2, "the limit")
    if limit is None:
        return lambda *_: None
    if literal_of(node, 1, "the pattern") == "":
        return lambda text, *_: _characters(text, limit) if text else [""]
    pattern = repeated_pattern_of(node, 1)
    if pattern is None:
        return lambda *_: None
    return lambda text, *_: _parts(pattern, text, limit)


def _characters(text: str, limit: int) -> list[str]:
    return [*(text[:limit] if limit > 0 else text)]


def _parts(pattern: Pattern[str], text: str, limit: int) -> list[str]:
    """Split as Java's String.split does, without its rule for a limit of 0."""
    parts: list[str] = []
    index = 0
    for match in pattern.finditer(text):
        if limit > 0 and len(parts) == limit - 1:
            break
        if index == 0 and match.end() == 0:  # no empty first part before a match of no width
            continue
        parts.append(text[index : match.start()])
        index = match.end()
    return [*parts, text[index:]]


@entry(
    "GetArrayItem",
    "[]: list[i]",
    null="NULL if an argument is NULL, or there is no such item; the first has the number 0",
)
def _item(node: Node) -> Function:
    return lambda values, index: values[index] if 0 <= index < len(values) else None


@entry("ElementAt", "element_at(list, number)",
       null="NULL if an argument is NULL, or there is no such item", edge="the first is 1, the last -1")  # fmt: skip
def _element(node: Node) -> Function:
    if element_type(node.arguments[0].type) is None or literal_of(node, 1, "the number") == 0:
        raise NotAllowed("takes a list, and a number that is not 0")
    otherwise = "" if node.arguments[0].op == "StringSplitSQL" else None

    def element(values: list[Any], number: int) -> Any:
        if abs(number) > len(values):
            return otherwise
        return values[number - 1 if number > 0 else number]

    return element


@entry("Size", "size(list)", "cardinality(list)", null="-1 if the list is NULL; array_size: NULL", strict=False)
def _size(node: Node) -> Function:
    null = -1 if node.setting("legacySizeOfNull") == "True" else None
    return lambda values: null if values is None else len(values)


@entry("CreateArray", "array(a, b, …)", null="never; its items may be NULL", strict=False)
def _array(node: Node) -> Function:
    return lambda *values: [*values]


@entry(
    "ArrayContains",
    "array_contains(list, value)",
    null="NULL if an argument is NULL, or no item is equal and one is NULL",
)
def _contains(node: Node) -> Function:
    key: Callable[[Any], Any] = sort_key(node.arguments[1].type) or (lambda value: value)

    def contains(values: list[Any], wanted: Any) -> bool | None:
        if any(value is not None and key(value) == key(wanted) for value in values):
            return True
        return None if None in values else False

    return contains


@entry("ArrayJoin", "array_join(list, delimiter)", edge="NULL items are left out, or replaced by the third argument")
def _join(node: Node) -> Function:
    takes(node, "array<string>", "string", "string")

    def join(values: list[str | None], delimiter: str, replacement: str | None = None) -> str:
        texts = [replacement if value is None else value for value in values]
        return delimiter.join(text for text in texts if text is not None)

    return join


written("array_size(list)")
written("split_part(text, delimiter, number)", edge="'' beyond the last part")
