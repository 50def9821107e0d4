"""CAST and try_cast: one function for each pair of types, entered by the modules that know the types."""

from __future__ import annotations

from collections.abc import Callable

from .entry import Function, Make, NotAllowed, entry
from .tree import Node
from .types import FLOATING, decimal_type

CASTS: dict[tuple[str, str], Make] = {}
"""What makes the function of a cast, by the families of its two types."""
_ANY = ("boolean", "tinyint", "smallint", "int", "bigint", "float", "double", "decimal", "string", "date", "timestamp")


def family(kind: str) -> str:
    """Return the type without its parameters: `decimal` for every DECIMAL."""
    return "decimal" if decimal_type(kind) else kind


def cast(given: str | tuple[str, ...], wanted: str | tuple[str, ...]) -> Callable[[Make], Make]:
    """Enter the decorated function for casts from each of the given types to each of the wanted ones."""

    def register(make: Make) -> Make:
        for one in (given,) if isinstance(given, str) else given:
            for other in (wanted,) if isinstance(wanted, str) else wanted:
                CASTS[one, other] = make
        return make

    return register


def is_try(node: Node) -> bool:
    """Tell whether the cast is a try_cast, which gives NULL where a plain one changes the value."""
    return node.setting("evalMode") == "TRY"


def _between_floats(node: Node) -> bool:
    return {node.arguments[0].type, node.type} <= set(FLOATING)


@entry("Cast", "cast: CAST(a AS type)", "try_cast: try_cast(a AS type)", null="NULL if a is NULL or is not of the type",
       edge="whole numbers wrap around or stop at the limit as in Java; try_cast gives NULL there",
       smooth=_between_floats)  # fmt: skip
def _cast(node: Node) -> Function:
    given, wanted = node.arguments[0].type, node.type
    if given == wanted:
        return lambda value: value
    pair = (family(given), family(wanted))
    if pair not in CASTS:
        raise NotAllowed(f"from {given.upper()} to {wanted.upper()} is not in the list")
    return CASTS[pair](node)


@cast("void", _ANY)
def _null(node: Node) -> Function:
    return lambda value: None
