"""Arithmetic of DECIMAL: results are exact until they are rounded, once and half up, to the digits of their type.

Spark cuts products and quotients to 39 digits before it rounds them to at most 38, which gives the same. Before 3.5.1
it rounded to 38 digits first, and then to those of the type (SPARK-45786): trees that such a Spark has made say so.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_HALF_UP, Context, Decimal

from .tree import Node
from .types import DECIMALS, to_decimal

LONGEST_QUOTIENT = 39
"""Digits of a whole quotient; Spark raises an error beyond."""


ROUNDED_FIRST = "rounded_first"
"""The setting of a product or quotient that is rounded to so many digits before it is rounded to those of its type."""


def rounded_first(
    node: Node, operation: Callable[[Decimal, Decimal], Decimal]
) -> Callable[[Decimal, Decimal], Decimal]:
    """Return the operation as the Spark that made the tree carries it out."""
    digits = node.setting(ROUNDED_FIRST)
    if not digits:
        return operation
    first = Context(prec=int(digits), rounding=ROUND_HALF_UP, Emin=DECIMALS.Emin, Emax=DECIMALS.Emax)
    return lambda a, b: first.plus(operation(a, b))


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
