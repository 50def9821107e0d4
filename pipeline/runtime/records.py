"""Whether a record that was read from a file holds what its type says, all the way down."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

_MOST = 2**62
"""No count, size or time in a record is greater."""
_LONGEST_TEXT = 2**20

Check = Callable[[str, Any], None]


class Unfit(ValueError):
    """A file holds what such a file cannot hold; the message names the field."""


def check_type(
    name: str, value: Any, kind: Any, own: Mapping[Any, Check] | None = None, *, finite: bool = True
) -> None:
    """Check a value against an annotation, with all that it holds, and against bounds.

    ``own`` has a check for each type that needs another one. Without ``finite``, NaN and infinities are numbers, too.

    Raises:
        Unfit: the value, or one in it, is not of its type or beyond all bounds.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)

    def inner(name: str, value: Any, kind: Any) -> None:
        check_type(name, value, kind, own, finite=finite)

    if own and kind in own:
        own[kind](name, value)
    elif dataclasses.is_dataclass(kind) and isinstance(kind, type):
        check_class(name, value, kind)
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            inner(f"{name}.{field.name}", getattr(value, field.name), hints[field.name])
    elif origin in (tuple, list):
        check_class(name, value, origin)
        for item in value:
            inner(name, item, arguments[0])
    elif origin is dict:
        check_class(name, value, dict)
        for key, item in value.items():
            inner(name, key, str)
            inner(f"{name} '{key[:60]}'", item, arguments[1])
    elif origin in (typing.Union, types.UnionType):
        if value is not None:
            inner(name, value, next(a for a in arguments if a is not type(None)))
    elif origin is typing.Literal:
        if value not in arguments:
            raise Unfit(f"{name} is none of {', '.join(map(str, arguments))}")
    elif kind is float:
        if type(value) not in (int, float) or (finite and not math.isfinite(value)):
            raise Unfit(f"{name} is no {'finite ' if finite else ''}number")
    else:
        check_class(name, value, kind)
        check_bounds(name, value)


def check_class(name: str, value: Any, kind: type) -> None:
    """Raise Unfit unless ``value`` is exactly of this class; to Python, true is an int."""
    if type(value) is not kind:
        raise Unfit(f"{name} is {type(value).__name__}, not {kind.__name__}")


def check_bounds(name: str, value: Any) -> None:
    """Raise Unfit for a number below 0 or greater than any count, and for a text longer than any."""
    if type(value) is int and not 0 <= value <= _MOST:
        raise Unfit(f"{name} is {str(value)[:40]}, which is beyond all bounds")
    if type(value) is str and len(value) > _LONGEST_TEXT:
        raise Unfit(f"{name} is a text of {len(value):,} characters")
