"""Comparisons, logic and choices between values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .entry import Function, NotAllowed, entry, written
from .tree import Node
from .types import FLOATING, element_type

NAN_IS_LARGEST = "NaN equals NaN and is larger than any number; -0.0 equals 0.0"


def sort_key(kind: str) -> Callable[[Any], Any] | None:
    """Return the function whose results compare in Spark's order, None where Python's order is the same."""
    if element_type(kind) is not None or kind.startswith("interval"):
        raise NotAllowed(f"values of the type {kind.upper()} cannot be compared here")
    return _float_key if kind in FLOATING else None


def _float_key(value: float) -> tuple[bool, float]:
    return (True, 0.0) if math.isnan(value) else (False, value)


def _comparison(node: Node, holds: Callable[[Any, Any], bool]) -> Function:
    key = sort_key(node.arguments[0].type)
    if key is None:
        return holds
    return lambda a, b: holds(key(a), key(b))


@entry("EqualTo", "=: a = b", "==: a == b", edge=NAN_IS_LARGEST)
def _equal(node: Node) -> Function:
    return _comparison(node, lambda a, b: a == b)


@entry("LessThan", "<: a < b", edge=NAN_IS_LARGEST)
def _less(node: Node) -> Function:
    return _comparison(node, lambda a, b: a < b)


@entry("LessThanOrEqual", "<=: a <= b", edge=NAN_IS_LARGEST)
def _less_or_equal(node: Node) -> Function:
    return _comparison(node, lambda a, b: a <= b)


@entry("GreaterThan", ">: a > b", edge=NAN_IS_LARGEST)
def _greater(node: Node) -> Function:
    return _comparison(node, lambda a, b: a > b)


@entry("GreaterThanOrEqual", ">=: a >= b", edge=NAN_IS_LARGEST)
def _greater_or_equal(node: Node) -> Function:
    return _comparison(node, lambda a, b: a >= b)


@entry("EqualNullSafe", "<=>: a <=> b", null="never: NULL equals NULL", edge=NAN_IS_LARGEST, strict=False)
def _same(node: Node) -> Function:
    equal = _equal(node)
    return lambda a, b: a is b if a is None or b is None else equal(a, b)


@entry("In", "in: a IN (b, c)", null="NULL if a is NULL, or if no value is equal and one is NULL", edge=NAN_IS_LARGEST,
       strict=False)  # fmt: skip
def _in(node: Node) -> Function:
    equal = _equal(node)

    def among(value: Any, *choices: Any) -> bool | None:
        if value is None:
            return None
        if any(choice is not None and equal(value, choice) for choice in choices):
            return True
        return None if None in choices else False

    return among


@entry("Not", "not: NOT a", "!: !a", "<>: a <> b", "!=: a != b")
def _not(node: Node) -> Function:
    return lambda a: not a


@entry("And", "and: a AND b", null="NULL, unless one of the two is false", strict=False)
def _and(node: Node) -> Function:
    return lambda a, b: False if a is False or b is False else None if a is None or b is None else True


@entry("Or", "or: a OR b", null="NULL, unless one of the two is true", strict=False)
def _or(node: Node) -> Function:
    return lambda a, b: True if a is True or b is True else None if a is None or b is None else False


@entry("IsNull", "isnull(a)", "is null: a IS NULL", null="never", edge="NaN is not NULL", strict=False, smooth=True)
def _is_null(node: Node) -> Function:
    return lambda a: a is None


@entry("IsNotNull", "isnotnull(a)", "is not null: a IS NOT NULL", null="never", edge="NaN is not NULL", strict=False,
       smooth=True)  # fmt: skip
def _is_not_null(node: Node) -> Function:
    return lambda a: a is not None


@entry("IsNaN", "isnan(number)", null="never: false", strict=False, smooth=True)
def _is_nan(node: Node) -> Function:
    return lambda a: a is not None and math.isnan(a)


@entry("NaNvl", "nanvl(number, other)", null="NULL if the number is NULL, or NaN and the other NULL", strict=False,
       smooth=True)  # fmt: skip
def _nanvl(node: Node) -> Function:
    return lambda a, b: b if a is not None and math.isnan(a) else a


@entry("If", "if(condition, a, b)", null="b if the condition is NULL", strict=False, smooth=True)
def _if(node: Node) -> Function:
    return lambda condition, a, b: a if condition else b


@entry("CaseWhen", "case: CASE WHEN condition THEN a ELSE b END", null="NULL if no condition is true and ELSE lacks",
       strict=False, smooth=True)  # fmt: skip
def _case(node: Node) -> Function:
    def choose(*values: Any) -> Any:
        for i in range(0, len(values) - 1, 2):
            if values[i]:
                return values[i + 1]
        return values[-1] if len(values) % 2 else None

    return choose


@entry("Coalesce", "coalesce(a, b, …)", "nvl(a, b)", "ifnull(a, b)", null="NULL if all are NULL",
       edge="NaN is not NULL", strict=False, smooth=True)  # fmt: skip
def _coalesce(node: Node) -> Function:
    return lambda *values: next((value for value in values if value is not None), None)


@entry("Greatest", "greatest(a, b, …)", null="NULL if all are NULL", edge="NaN is larger than any number", strict=False,
       smooth=True)  # fmt: skip
def _greatest(node: Node) -> Function:
    key = sort_key(node.type)
    return lambda *values: max((v for v in values if v is not None), key=key, default=None)


@entry("Least", "least(a, b, …)", null="NULL if all are NULL", edge="NaN is larger than any number", strict=False,
       smooth=True)  # fmt: skip
def _least(node: Node) -> Function:
    key = sort_key(node.type)
    return lambda *values: min((v for v in values if v is not None), key=key, default=None)


written("nvl2(a, b, c)", null="as its arguments: b if a is not NULL, else c")
written("nullif(a, b)", null="NULL if a is NULL or equals b", edge=NAN_IS_LARGEST)
written("between: a BETWEEN b AND c", edge=NAN_IS_LARGEST)
