"""Casts between dates, timestamps and numbers. A number stands for the seconds since 1970."""

from __future__ import annotations

import math
from decimal import Decimal

from . import decimals
from .calendar import timestamp_or_null
from .casts import cast, is_try
from .datetime_text import DAY, SECOND
from .entry import Function
from .java_numbers import double_to_text
from .number_casts import size_of
from .rounding import to_long
from .tree import Node
from .types import DECIMALS, FLOATING, WHOLE, fits, to_float32, wrap

_LARGEST = 2**63 - 1


def double_to_timestamp(seconds: float) -> int | None:
    """Return the timestamp, the nearest that there is; None for NaN and infinities."""
    return to_long(seconds * 1e6) if math.isfinite(seconds) else None


def exact_to_timestamp(seconds: Decimal) -> int:
    """Return the microseconds, without a fraction."""
    return int(DECIMALS.scaleb(seconds, 6))


# ---- between dates and timestamps -----------------------------------------------------------------------------------


@cast(("timestamp", "timestamp_ntz"), "date")
def _timestamp_to_date(node: Node) -> Function:
    return lambda micros: micros // DAY


@cast("date", ("timestamp", "timestamp_ntz"))
def _date_to_timestamp(node: Node) -> Function:
    return lambda days: timestamp_or_null(days * DAY)


@cast("timestamp", "timestamp_ntz")
@cast("timestamp_ntz", "timestamp")
def _with_or_without_zone(node: Node) -> Function:
    return lambda micros: micros  # the session's zone is UTC


# ---- from timestamps and dates --------------------------------------------------------------------------------------


@cast("timestamp", tuple(WHOLE))
def _timestamp_to_whole(node: Node) -> Function:
    kind, strict = node.type, is_try(node)

    def convert(micros: int) -> int | None:
        seconds = micros // SECOND
        return None if strict and not fits(seconds, kind) else wrap(seconds, WHOLE[kind])

    return convert


@cast("timestamp", FLOATING)
def _timestamp_to_float(node: Node) -> Function:
    if node.type == "float":
        return lambda micros: to_float32(micros / 1e6)
    return lambda micros: micros / 1e6


@cast("timestamp", "decimal")
def _timestamp_to_decimal(node: Node) -> Function:
    precision, scale = size_of(node)
    # by way of the text of a DOUBLE, as in Spark
    return lambda micros: decimals.fitted(Decimal(double_to_text(micros / 1e6)), precision, scale)


@cast("timestamp", "boolean")
def _timestamp_to_boolean(node: Node) -> Function:
    return lambda micros: micros != 0


@cast("date", ("boolean", *WHOLE, *FLOATING, "decimal"))
def _date_to_number(node: Node) -> Function:
    return lambda days: None


# ---- to timestamps --------------------------------------------------------------------------------------------------


@cast("boolean", "timestamp")
def _boolean_to_timestamp(node: Node) -> Function:
    return int


@cast(tuple(WHOLE), "timestamp")
def _whole_to_timestamp(node: Node) -> Function:
    return lambda seconds: max(-_LARGEST - 1, min(_LARGEST, seconds * SECOND))


@cast(FLOATING, "timestamp")
def _float_to_timestamp(node: Node) -> Function:
    if not is_try(node):
        return double_to_timestamp

    def tried(seconds: float) -> int | None:
        return double_to_timestamp(seconds) if -(2.0**63) <= seconds * 1e6 <= 2.0**63 else None

    return tried


@cast("decimal", "timestamp")
def _decimal_to_timestamp(node: Node) -> Function:
    return lambda seconds: wrap(exact_to_timestamp(seconds), 64)
