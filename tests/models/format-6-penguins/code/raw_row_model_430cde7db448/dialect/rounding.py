"""Numbers rounded, cut and sorted into buckets."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal

from .entry import Function, NotAllowed, entry, literal_of, takes
from .tree import Node
from .types import DECIMALS, FLOATING, WHOLE, decimal_type, to_float32, wrap

_SATURATES = "DOUBLE beyond BIGINT gives the nearest BIGINT, and NaN 0; DECIMAL stays DECIMAL"
_DIGITS = "digits: a literal; keeps NaN and infinity; whole numbers wrap around"
_MOST_DIGITS_OF_FLOATS = 15


def to_long(value: float) -> int:
    """Return Java's cast of a whole double to BIGINT."""
    if math.isnan(value):
        return 0
    if -(2.0**63) < value < 2.0**63:
        return int(value)
    return 2**63 - 1 if value > 0 else -(2**63)


# ---- to whole numbers -----------------------------------------------------------------------------------------------


@entry("Ceil", "ceil(number[, digits])", "ceiling(number[, digits])", edge=_SATURATES)
def _ceil(node: Node) -> Function:
    return _to_whole(node, math.ceil, ROUND_CEILING)


@entry("Floor", "floor(number[, digits])", edge=_SATURATES)
def _floor(node: Node) -> Function:
    return _to_whole(node, math.floor, ROUND_FLOOR)


def _to_whole(node: Node, whole: Callable[[float], int], rounding: str) -> Function:
    kind = node.arguments[0].type
    if decimal_type(kind) is not None:
        return lambda a: _quantized(a, 0, rounding)
    takes(node, ("double", "bigint"))
    if kind == "bigint":
        return lambda a: a
    return lambda a: to_long(whole(a)) if math.isfinite(a) else to_long(a)


@entry("Rint", "rint(number)", edge="half to even; keeps NaN, infinity and -0.0")
def _rint(node: Node) -> Function:
    takes(node, "double")
    return lambda a: math.copysign(float(round(a)), a) if math.isfinite(a) else a


# ---- to some digits -------------------------------------------------------------------------------------------------


@entry("Round", "round(number[, digits])", edge=f"half away from 0; {_DIGITS}")
def _round(node: Node) -> Function:
    return _rounded(node, ROUND_HALF_UP)


@entry("BRound", "bround(number[, digits])", edge=f"half to even; {_DIGITS}")
def _bround(node: Node) -> Function:
    return _rounded(node, ROUND_HALF_EVEN)


@entry("RoundCeil")
def _round_ceil(node: Node) -> Function:
    return _rounded(node, ROUND_CEILING)


@entry("RoundFloor")
def _round_floor(node: Node) -> Function:
    return _rounded(node, ROUND_FLOOR)


def _rounded(node: Node, rounding: str) -> Function:
    kind = node.arguments[0].type
    digits = literal_of(node, 1, "the number of digits")
    if digits is None or abs(digits) > 38:
        raise NotAllowed("the number of digits must lie between -38 and 38")
    if (size := decimal_type(kind)) is not None:
        return _rounded_decimal(size, digits, rounding)
    if kind in FLOATING:
        return _rounded_float(kind, digits, rounding)
    takes(node, tuple(WHOLE))
    if digits >= 0:
        return lambda a, _: a
    bits = WHOLE[kind]
    return lambda a, _: wrap(int(_quantized(Decimal(a), digits, rounding)), bits)


def _rounded_decimal(size: tuple[int, int], digits: int, rounding: str) -> Function:
    precision, scale = size
    if digits >= 0:
        return lambda a, _: _quantized(a, min(digits, scale), rounding)
    if precision - scale == 38 or digits == -38:
        raise NotAllowed("Spark fails where the result has more than 38 digits")
    return lambda a, _: _quantized(_quantized(a, digits, rounding), 0, rounding)


def _rounded_float(kind: str, digits: int, rounding: str) -> Function:
    if not 0 <= digits <= _MOST_DIGITS_OF_FLOATS:
        # Java prints the last digits of some numbers otherwise than Python, and Spark rounds what Java prints
        raise NotAllowed(f"the number of digits of {kind.upper()} must lie between 0 and {_MOST_DIGITS_OF_FLOATS}")
    nearest: Callable[[Decimal], float] = nearest_float32 if kind == "float" else float

    def rounded(value: float, _: int) -> float:
        if not math.isfinite(value):
            return value
        # a whole number has no digits to lose, but -0.0 becomes 0.0
        return value + 0.0 if value.is_integer() else nearest(_quantized(Decimal(repr(value)), digits, rounding))

    return rounded


def _quantized(value: Decimal, digits: int, rounding: str) -> Decimal:
    """Return the value with so many digits after the point; Java knows no negative zero."""
    return DECIMALS.plus(value.quantize(Decimal((0, (1,), -digits)), rounding, DECIMALS))


def nearest_float32(value: Decimal) -> float:
    """Return the float32 nearest to an exact value; by way of a double alone it would be rounded twice."""
    double = float(value)
    near = to_float32(double)
    other = 2 * double - near
    if math.isfinite(near) and near != other == to_float32(other) and Decimal(double) != value:
        # the double lies in the middle of two float32, the value does not
        return max(near, other) if value > Decimal(double) else min(near, other)
    return near


# ---- buckets --------------------------------------------------------------------------------------------------------


@entry("WidthBucket", "width_bucket(number, low, high, count)",
       null="NULL if an argument is NULL or not finite (the number: NaN), low equals high, or count is not positive",
       edge="0 before low, count + 1 from high on")  # fmt: skip
def _width_bucket(node: Node) -> Function:
    takes(node, "double", "double", "double", "bigint")

    def bucket(value: float, low: float, high: float, count: int) -> int | None:
        if not 0 < count < 2**63 - 1 or math.isnan(value) or low == high:
            return None
        if not math.isfinite(low) or not math.isfinite(high):
            return None
        width, distance = abs(high - low), value - low if low < high else low - value
        if distance < 0:
            return 0
        if value >= high if low < high else value <= high:
            return count + 1
        return wrap(to_long(float(count) * distance / width) + 1, 64)

    return bucket
