"""Spark's types, and the Python values that stand for theirs.

| Spark | Python |
|---|---|
| BOOLEAN | bool |
| TINYINT, SMALLINT, INT, BIGINT | int |
| FLOAT | float that a float32 holds |
| DOUBLE | float |
| DECIMAL(p,s) | decimal.Decimal with exactly s digits after the point |
| STRING | str |
| BINARY | bytes |
| DATE | int: days since 1970-01-01, in the proleptic Gregorian calendar |
| TIMESTAMP, TIMESTAMP_NTZ | int: microseconds since 1970-01-01 00:00 UTC |
| ARRAY<t> | list |
| INTERVAL of days and time | int: microseconds |
| INTERVAL of years and months | int: months |
| NULL of any type | None |
"""

from __future__ import annotations

import decimal
import re
import struct
from decimal import Decimal
from typing import Any

WHOLE = {"tinyint": 8, "smallint": 16, "int": 32, "bigint": 64}
"""The bits of each type of whole numbers."""
FLOATING = ("float", "double")
PLAIN = ("boolean", *WHOLE, *FLOATING, "string", "binary", "date", "timestamp", "timestamp_ntz", "void")

DECIMALS = decimal.Context(prec=200, rounding=decimal.ROUND_HALF_UP, Emin=-999_999, Emax=999_999)
"""Wide enough that no step in between rounds; results are rounded by :func:`to_decimal`."""


def decimal_type(kind: str) -> tuple[int, int] | None:
    """Return precision and scale of a DECIMAL, None for another type."""
    match = re.fullmatch(r"decimal\((\d+),(-?\d+)\)", kind)
    return (int(match[1]), int(match[2])) if match else None


def is_number(kind: str) -> bool:
    """Tell whether values of the type are numbers."""
    return kind in WHOLE or kind in FLOATING or decimal_type(kind) is not None


def element_type(kind: str) -> str | None:
    """Return the type of an ARRAY's elements, None for another type."""
    match = re.fullmatch(r"array<(.*)>", kind)
    return match[1] if match else None


def is_known(kind: str) -> bool:
    """Tell whether values of the type can be computed here."""
    element = element_type(kind)
    if kind in PLAIN or kind.startswith("interval ") or decimal_type(kind):
        return True
    return element is not None and is_known(element)


def wrap(value: int, bits: int) -> int:
    """Return a whole number as two's complement of so many bits holds it, as Java's arithmetic does."""
    half = 1 << (bits - 1)
    return (value + half) % (1 << bits) - half


def fits(value: int, kind: str) -> bool:
    """Tell whether a whole number lies within its type."""
    half = 1 << (WHOLE[kind] - 1)
    return -half <= value < half


def to_float32(value: float) -> float:
    """Return the nearest float32, infinity beyond the largest, as Java's cast does."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def to_decimal(value: Decimal, precision: int, scale: int) -> Decimal | None:
    """Return ``value`` rounded half up to ``scale`` digits, None where it has more than ``precision`` digits then."""
    if value and value.adjusted() >= precision - scale:
        return None
    rounded = value.quantize(Decimal((0, (1,), -scale)), context=DECIMALS)
    return rounded if len(rounded.as_tuple().digits) <= precision or not rounded else None


def literal_value(value: Any, kind: str) -> Any:
    """Return a literal's value as Python holds it; JSON holds decimals and special floats as text."""
    if value is None:
        return None
    if kind in FLOATING:
        return to_float32(float(value)) if kind == "float" else float(value)
    if decimal_type(kind):
        return Decimal(value)
    if kind == "binary":
        return bytes.fromhex(value)
    if (element := element_type(kind)) is not None:
        return [literal_value(item, element) for item in value]
    return value
