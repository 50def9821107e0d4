"""Arithmetic of DECIMAL: results are exact until they are rounded, once and half up, to the digits of their type.

Spark cuts products and quotients to 39 digits before it rounds them to at most 38, which gives the same.
"""

from __future__ import annotations

from decimal import Decimal

from .types import DECIMALS, to_decimal

LONGEST_QUOTIENT = 39
"""Digits of a whole quotient; Spark raises an error beyond."""


def fitted(value: Decimal, precision: int, scale: int) -> Decimal | None:
    """Return the value as DECIMAL(precision, scale) holds it, None if it does not; Java knows no negative zero."""
    result = to_decimal(value, precision, scale)
    return result if result is None else DECIMALS.plus(result)


def add(a: Decimal, b: Decimal) -> Decimal:
    """Return the sum."""
    return DECIMALS.add(a, b)


def subtract(a: Decimal, b: Decimal) -> Decimal:
    """Return the difference."""
    return DECIMALS.subtract(a, b)


def multiply(a: Decimal, b: Decimal) -> Decimal:
    """Return the product."""
    return DECIMALS.multiply(a, b)


def divide(a: Decimal, b: Decimal) -> Decimal:
    """Return the quotient; ``b`` is not zero. Its 200 digits are enough: no longer run of 9s or 0s is possible."""
    return DECIMALS.divide(a, b)


def divide_whole(a: Decimal, b: Decimal) -> Decimal:
    """Return the quotient without its digits after the point; ``b`` is not zero."""
    return DECIMALS.divide_int(a, b)


def remainder(a: Decimal, b: Decimal) -> Decimal:
    """Return the remainder, which has the sign of ``a``; ``b`` is not zero."""
    return DECIMALS.remainder(a, b)


def positive_remainder(a: Decimal, b: Decimal) -> Decimal:
    """Return the remainder, which is not negative if ``b`` is positive; ``b`` is not zero."""
    rest = remainder(a, b)
    return remainder(add(rest, b), b) if rest < 0 else rest
