"""Lists of values: made, counted, searched, joined, and read at a place."""

from __future__ import annotations

from typing import Any

from .conditions import NAN_IS_LARGEST, sort_key
from .entry import NULL_IN_NULL_OUT, Function, NotAllowed, entry, literal_of, takes, written
from .tree import Node
from .types import WHOLE, element_type, wrap

_NOT_THERE = "NULL if an argument is NULL, or if there is no such value"


@entry("CreateArray", "array(a, b, …)", null="never; a NULL is an element", strict=False, smooth=True)
def _array(node: Node) -> Function:
    return lambda *values: list(values)


@entry("Size", "size(array)", "cardinality(array)", null="never: -1 for NULL", strict=False,
       smooth=True)  # fmt: skip
def _size(node: Node) -> Function:
    _list_of(node)
    # array_size and regexp_count give NULL for NULL
    of_null = None if node.setting("legacySizeOfNull") == "False" else -1
    return lambda values: of_null if values is None else len(values)


written("array_size(array)")


def _list_of(node: Node) -> str:
    """Return the type of the elements of the first argument, which must be a list."""
    element = element_type(node.arguments[0].type)
    if element is None:
        raise NotAllowed(f"is not allowed for {node.arguments[0].type.upper()}")
    return element


@entry("GetArrayItem", "[]: array[index]", "get(array, index)", null=_NOT_THERE, edge="indices count from 0",
       smooth=True)  # fmt: skip
def _item(node: Node) -> Function:
    takes(node, None, tuple(WHOLE))

    def item(values: list[Any], index: int) -> Any:
        index = wrap(index, 32)  # Spark takes the lowest 32 bits of a BIGINT
        return values[index] if 0 <= index < len(values) else None

    return item


@entry("ElementAt", "element_at(array, number)", "try_element_at(array, number)", null=_NOT_THERE, smooth=True,
       edge="the number is a literal and counts from 1, or from the end if it is negative")  # fmt: skip
def _element(node: Node) -> Function:
    takes(node, None, tuple(WHOLE))
    _list_of(node)
    number = literal_of(node, 1, "the number")
    if number in (0, -(2**31)):
        raise NotAllowed(f"the number must not be {number}: Spark fails")
    # split_part, and it alone, has '' for what is not there
    missing = "" if node.arguments[0].op == "StringSplitSQL" else None

    def element(values: list[Any], number: int) -> Any:
        return missing if abs(number) > len(values) else values[number - 1 if number > 0 else number]

    return element


@entry("ArrayContains", "array_contains(array, value)", edge=NAN_IS_LARGEST,
       null=f"{NULL_IN_NULL_OUT}, or if no element is equal and one is NULL")  # fmt: skip
def _contains(node: Node) -> Function:
    key = sort_key(_list_of(node))

    def contains(values: list[Any], wanted: Any) -> bool | None:
        wanted = key(wanted) if key else wanted
        if any(value is not None and (key(value) if key else value) == wanted for value in values):
            return True
        return None if None in values else False

    return contains


@entry("ArrayJoin", "array_join(array, separator, replacement)",
       edge="NULL elements are left out, or replaced if there is a replacement, a literal")  # fmt: skip
def _join(node: Node) -> Function:
    takes(node, "array<string>", "string", "string")
    if len(node.arguments) > 2 and literal_of(node, 2, "the replacement") is None:
        raise NotAllowed("the replacement must not be NULL")

    def join(values: list[str | None], separator: str, replacement: str | None = None) -> str:
        texts = (replacement if value is None else value for value in values)
        return separator.join(text for text in texts if text is not None)

    return join
