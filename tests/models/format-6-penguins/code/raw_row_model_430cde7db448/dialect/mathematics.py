"""Roots, powers, logarithms and trigonometry: DOUBLE in, DOUBLE out, as Java's Math and StrictMath define them."""

from __future__ import annotations

import math
from typing import Any

from .entry import Function, entry, takes
from .precision import arguments_keep_digits, is_not_negative, keeps_digits, literal_number
from .tree import Node

_OUTSIDE = "NaN where it is not defined"
_RADIANS = "in radians; NaN for an infinite number"
_HIGHEST_SMOOTH_POWER = 16


def _of(function: Function, beyond: float = math.nan) -> Function:
    """Return the function, NaN where it is not defined and ``beyond`` where it overflows."""

    def total(value: float) -> Any:
        try:
            return function(value)
        except ValueError:
            return math.nan
        except OverflowError:
            return beyond

    return total


def _over(dividend: float, divisor: float) -> float:
    """Return Java's quotient."""
    if divisor:
        return dividend / divisor
    if not dividend or math.isnan(dividend) or math.isnan(divisor):
        return math.nan
    return math.copysign(math.inf, dividend) * math.copysign(1.0, divisor)


def _ln(value: float) -> float:
    """Return Java's logarithm."""
    if value > 0:
        return math.log(value)
    return -math.inf if value == 0 else math.nan


# ---- constants, roots and powers ------------------------------------------------------------------------------------


@entry("Pi", "pi()", null="never")
def _pi(node: Node) -> Function:
    return lambda: math.pi


@entry("EulerNumber", "e()", null="never")
def _e(node: Node) -> Function:
    return lambda: math.e


@entry("Sqrt", "sqrt(number)", edge="NaN below 0", smooth=arguments_keep_digits)
def _sqrt(node: Node) -> Function:
    takes(node, "double")
    return _of(math.sqrt)


@entry("Cbrt", "cbrt(number)", inexact=True, smooth=arguments_keep_digits)
def _cbrt(node: Node) -> Function:
    takes(node, "double")
    return math.cbrt


@entry("Hypot", "hypot(a, b)", edge="sqrt(a² + b²); infinite if one is", inexact=True, smooth=arguments_keep_digits)
def _hypot(node: Node) -> Function:
    takes(node, "double", "double")
    return math.hypot


@entry("Exp", "exp(number)", inexact=True, smooth=arguments_keep_digits)
def _exp(node: Node) -> Function:
    takes(node, "double")
    return _of(math.exp, math.inf)


@entry("Expm1", "expm1(number)", edge="exp(number) - 1", inexact=True, smooth=arguments_keep_digits)
def _expm1(node: Node) -> Function:
    takes(node, "double")
    return _of(math.expm1, math.inf)


def _power_is_smooth(node: Node) -> bool:
    exponent = literal_number(node.arguments[1])
    return exponent is not None and abs(exponent) <= _HIGHEST_SMOOTH_POWER and keeps_digits(node.arguments[0])


@entry("Pow", "pow(base, exponent)", "power(base, exponent)", edge="NaN for a base below 0 and a broken exponent",
       inexact=True, smooth=_power_is_smooth)  # fmt: skip
def _pow(node: Node) -> Function:
    takes(node, "double", "double")

    def power(base: float, exponent: float) -> float:
        if abs(base) == 1 and not math.isfinite(exponent):
            return math.nan
        is_odd = math.isfinite(exponent) and abs(math.fmod(exponent, 2)) == 1
        endless = math.copysign(math.inf, base) if is_odd else math.inf
        try:
            return math.pow(base, exponent)
        except OverflowError:
            return endless
        except ValueError:
            return endless if base == 0 else math.nan

    return power


@entry("Factorial", "factorial(number)", null="NULL for NULL, below 0 and above 20")
def _factorial(node: Node) -> Function:
    takes(node, "int")
    return lambda a: math.factorial(a) if 0 <= a <= 20 else None


# ---- logarithms -----------------------------------------------------------------------------------------------------

_NULL_LOG = "NULL for NULL, 0 and below"


@entry("Log", "ln(number)", null=_NULL_LOG, inexact=True)
def _log(node: Node) -> Function:
    takes(node, "double")
    return lambda a: None if a <= 0 else _ln(a)


@entry("Logarithm", "log([base, ]number)", null="NULL if an argument is NULL, 0 or below",
       edge="infinite or NaN for base 1", inexact=True)  # fmt: skip
def _logarithm(node: Node) -> Function:
    takes(node, "double", "double")
    return lambda base, a: None if base <= 0 or a <= 0 else _over(_ln(a), _ln(base))


@entry("Log2", "log2(number)", null=_NULL_LOG, inexact=True)
def _log2(node: Node) -> Function:
    takes(node, "double")
    return lambda a: None if a <= 0 else _ln(a) / math.log(2)


@entry("Log10", "log10(number)", null=_NULL_LOG, inexact=True)
def _log10(node: Node) -> Function:
    takes(node, "double")
    return lambda a: None if a <= 0 else math.log10(a)


@entry("Log1p", "log1p(number)", null="NULL for NULL, -1 and below", edge="ln(1 + number)", inexact=True,
       smooth=lambda node: is_not_negative(node.arguments[0]) and arguments_keep_digits(node))  # fmt: skip
def _log1p(node: Node) -> Function:
    takes(node, "double")
    return lambda a: None if a <= -1 else math.log1p(a)


# ---- angles ---------------------------------------------------------------------------------------------------------


@entry("ToDegrees", "degrees(radians)", smooth=True)
def _degrees(node: Node) -> Function:
    takes(node, "double")
    return lambda a: a * 57.29577951308232


@entry("ToRadians", "radians(degrees)", smooth=True)
def _radians(node: Node) -> Function:
    takes(node, "double")
    return lambda a: a * 0.017453292519943295


def _trigonometry(op: str, form: str, function: Function, edge: str, beyond: float = math.nan) -> None:
    """Enter a function of one DOUBLE whose last bit may differ."""

    @entry(op, form, edge=edge, inexact=True, smooth=arguments_keep_digits if op in _GENTLE else False)
    def make(node: Node) -> Function:
        takes(node, "double")
        return _of(function, beyond)


_GENTLE = {"Atan", "Tanh", "Cosh"}
"""A change in the argument's last bit changes no more than a few of the result's last bits."""

_trigonometry("Sin", "sin(angle)", math.sin, _RADIANS)
_trigonometry("Cos", "cos(angle)", math.cos, _RADIANS)
_trigonometry("Tan", "tan(angle)", math.tan, _RADIANS)
_trigonometry("Cot", "cot(angle)", lambda a: _over(1.0, math.tan(a)), _RADIANS)
_trigonometry("Sec", "sec(angle)", lambda a: _over(1.0, math.cos(a)), _RADIANS)
_trigonometry("Csc", "csc(angle)", lambda a: _over(1.0, math.sin(a)), _RADIANS)
_trigonometry("Asin", "asin(number)", math.asin, _OUTSIDE)
_trigonometry("Acos", "acos(number)", math.acos, _OUTSIDE)
_trigonometry("Atan", "atan(number)", math.atan, "")
_trigonometry("Cosh", "cosh(number)", math.cosh, "", math.inf)
_trigonometry("Tanh", "tanh(number)", math.tanh, "")


@entry("Sinh", "sinh(number)", inexact=True, smooth=arguments_keep_digits)
def _sinh(node: Node) -> Function:
    takes(node, "double")
    return lambda a: _of(math.sinh, math.copysign(math.inf, a))(a)


@entry("Atanh", "atanh(number)", edge=_OUTSIDE, inexact=True)
def _atanh(node: Node) -> Function:
    takes(node, "double")

    def log1p(a: float) -> float:
        return math.log1p(a) if not a <= -1 else -math.inf if a == -1 else math.nan

    return lambda a: 0.5 * (log1p(a) - log1p(-a))


@entry("Atan2", "atan2(y, x)", edge="-0.0 counts as 0.0", inexact=True)
def _atan2(node: Node) -> Function:
    takes(node, "double", "double")
    return lambda y, x: math.atan2(y + 0.0, x + 0.0)
