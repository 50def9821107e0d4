"""The four operations, division without remainder, and signs."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from . import decimals
from .entry import Function, NotAllowed, entry, takes
from .precision import keeps_digits
from .tree import Node
from .types import DECIMALS, FLOATING, WHOLE, decimal_type, is_number, to_float32, wrap

_OVERFLOW = "whole numbers wrap around; a DECIMAL that is too large is NULL; FLOAT is rounded after each operation"
_BY_ZERO = "NULL if an argument is NULL, or b is 0"
_LOWEST = "the lowest whole number of a type stays as it is"


def _finish(node: Node) -> Callable[[Any], Any]:
    """Return what makes a value of the node's type of an exact, or a double, result."""
    if node.type in WHOLE:
        bits = WHOLE[node.type]
        return lambda value: wrap(value, bits)
    if node.type == "float":
        return to_float32
    if (size := decimal_type(node.type)) is not None:
        precision, scale = size
        return lambda value: decimals.fitted(value, precision, scale)
    return lambda value: value


def _numbers(node: Node) -> bool:
    """Raise NotAllowed unless all arguments are numbers as the node's type needs them; tell whether it is DECIMAL."""
    is_decimal = decimal_type(node.arguments[0].type) is not None
    for argument in node.arguments:
        same = decimal_type(argument.type) is not None if is_decimal else argument.type == node.arguments[0].type
        if not is_number(argument.type) or not same:
            raise NotAllowed(f"is not allowed for {argument.type.upper()}")
    return is_decimal


def _binary(node: Node, of_decimals: Callable[[Decimal, Decimal], Decimal], of_others: Function) -> Function:
    operation: Function = of_decimals if _numbers(node) else of_others
    if node.type == "double":
        return operation
    finish = _finish(node)
    return lambda a, b: finish(operation(a, b))


def _unless_zero(operation: Function) -> Function:
    return lambda a, b: operation(a, b) if b else None


@entry("Add", "+: a + b, +a", edge=_OVERFLOW, smooth=True)
def _add(node: Node) -> Function:
    return _binary(node, decimals.add, operator.add)


@entry("Subtract", "-: a - b, -a", edge=_OVERFLOW, smooth=True)
def _subtract(node: Node) -> Function:
    return _binary(node, decimals.subtract, operator.sub)


@entry("Multiply", "*: a * b", edge=_OVERFLOW, smooth=True)
def _multiply(node: Node) -> Function:
    return _binary(node, decimals.rounded_first(node, decimals.multiply), operator.mul)


@entry("Divide", "/: a / b", null=_BY_ZERO, edge="a DECIMAL that is too large is NULL",
       smooth=lambda node: keeps_digits(node.arguments[1]))  # fmt: skip
def _divide(node: Node) -> Function:
    return _unless_zero(_binary(node, decimals.rounded_first(node, decimals.divide), operator.truediv))


@entry("IntegralDivide", "div: a DIV b", null=_BY_ZERO, edge="cut towards 0; wraps around beyond BIGINT")
def _divide_whole(node: Node) -> Function:
    if not _numbers(node):
        takes(node, "bigint", "bigint")
        return _unless_zero(lambda a, b: wrap(_towards_zero(a, b), 64))
    digits = _quotient_digits(node)

    def divide(a: Decimal, b: Decimal) -> int | None:
        result = decimals.fitted(decimals.divide_whole(a, b), min(max(digits, 1), 38), 0)
        return None if result is None else wrap(int(result), 64)

    return _unless_zero(divide)


@entry("Remainder", "%: a % b", "mod(a, b)", null=_BY_ZERO, edge="has the sign of a; NaN if a is infinite")
def _remainder(node: Node) -> Function:
    return _unless_zero(_binary(node, decimals.remainder, _remainder_of(node)))


@entry("Pmod", "pmod(a, b)", null=_BY_ZERO, edge="not negative if b is positive; NaN if a is infinite")
def _positive_remainder(node: Node) -> Function:
    remainder = _remainder_of(node)
    # Java adds TINYINT and SMALLINT as INT
    bits = max(WHOLE.get(node.type, 0), 32)

    def add(a: Any, b: Any) -> Any:
        if node.type in FLOATING:
            return to_float32(a + b) if node.type == "float" else a + b
        return wrap(a + b, bits)

    def of_others(a: Any, b: Any) -> Any:
        rest = remainder(a, b)
        return remainder(add(rest, b), b) if rest < 0 else rest

    return _unless_zero(_binary(node, decimals.positive_remainder, of_others))


def _remainder_of(node: Node) -> Function:
    """Return Java's remainder of two numbers of the node's type, which may be DECIMAL."""
    if decimal_type(node.type) is not None:
        _quotient_digits(node)
        return decimals.remainder
    if node.type in FLOATING:
        return lambda a, b: math.nan if math.isinf(a) else math.fmod(a, b)
    return lambda a, b: a - b * _towards_zero(a, b)


def _towards_zero(a: int, b: int) -> int:
    return abs(a) // abs(b) if (a < 0) == (b < 0) else -(abs(a) // abs(b))


def _quotient_digits(node: Node) -> int:
    """Return how many digits the whole quotient of two DECIMALs can have."""
    a, b = (decimal_type(argument.type) or (0, 0) for argument in node.arguments)
    digits = a[0] - a[1] + b[1]
    if digits > decimals.LONGEST_QUOTIENT:
        raise NotAllowed(
            f"Spark fails where the quotient of {node.arguments[0].type.upper()} and {node.arguments[1].type.upper()} "
            f"has more than {decimals.LONGEST_QUOTIENT} digits; cast to smaller types"
        )
    return digits


@entry("UnaryMinus", "negative(number)", edge=_LOWEST, smooth=True)
def _negate(node: Node) -> Function:
    if _numbers(node):
        return DECIMALS.minus
    return operator.neg if node.type in FLOATING else lambda a: wrap(-a, WHOLE[node.type])


@entry("UnaryPositive", "positive(number)", smooth=True)
def _positive(node: Node) -> Function:
    _numbers(node)
    return lambda a: a


@entry("Abs", "abs(number)", edge=_LOWEST, smooth=True)
def _abs(node: Node) -> Function:
    if _numbers(node):
        return DECIMALS.abs
    return abs if node.type in FLOATING else lambda a: wrap(abs(a), WHOLE[node.type])


@entry("Signum", "sign(number)", "signum(number)", edge="-1.0, 0.0 or 1.0; keeps NaN and -0.0")
def _sign(node: Node) -> Function:
    takes(node, "double")
    return lambda a: a if not a or math.isnan(a) else math.copysign(1.0, a)
