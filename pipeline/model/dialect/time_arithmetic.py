"""Timestamps: differences, units added, seconds since 1970, and casts between dates, timestamps and numbers."""

from __future__ import annotations

import math
from decimal import Decimal

from .calendar import date_of
from .casts import cast, is_try
from .date_arithmetic import LENGTHS, add_months, months_literal
from .datetime_text import DAY, SECOND
from .entry import Function, NotAllowed, entry, literal_of, written
from .tree import LITERAL, Node
from .types import WHOLE, fits, to_float32, wrap

_UNITS = {**LENGTHS, "day": DAY, "week": 7 * DAY}
_MONTHS = {"month": 1, "quarter": 3, "year": 12}
_MANY = 10_000 * 366 * DAY  # micros: the result stays within what Spark can hold
_LARGEST = 2**63 - 1
_FLOATS = ("float", "double")


def _cut(value: int, unit: int) -> int:
    """Return a quotient without its fraction, as Java divides whole numbers."""
    return -(-value // unit) if value < 0 else value // unit


def _months_until(start: int, end: int) -> int:
    """Return the whole months between two timestamps, as java.time counts them."""
    first, last = start // DAY, end // DAY
    if last > first and end % DAY < start % DAY:
        last -= 1
    elif last < first and end % DAY > start % DAY:
        last += 1
    (year1, month1, day1), (year2, month2, day2) = date_of(first), date_of(last)
    return _cut(32 * (12 * (year2 - year1) + month2 - month1) + day2 - day1, 32)


@entry("TimestampDiff", "timestampdiff(unit, start, end)", edge="whole units")
def _difference(node: Node) -> Function:
    unit = node.setting("unit").lower()
    if unit in _UNITS:
        return lambda start, end: _cut(end - start, _UNITS[unit])
    if unit in _MONTHS:
        return lambda start, end: _cut(_months_until(start, end), _MONTHS[unit])
    raise NotAllowed(f"does not know the unit {unit}")


@entry("TimestampAdd", "timestampadd(unit, n, timestamp)", edge="a literal number of units")
def _add(node: Node) -> Function:
    unit, number = node.setting("unit").lower(), literal_of(node, 0, "the number of units")
    if unit in _MONTHS:
        months_literal(node, 0)
        return lambda count, micros: _plus_months(micros, count * _MONTHS[unit])
    if unit not in _UNITS or abs(number or 0) * _UNITS[unit] > _MANY:
        raise NotAllowed(f"does not take {number} {unit}s")
    return lambda count, micros: micros + count * _UNITS[unit]


def _plus_months(micros: int, months: int) -> int:
    return add_months(micros // DAY, months) * DAY + micros % DAY


@entry("TimeAdd")
def _add_interval(node: Node) -> Function:
    interval = literal_of(node, 1, "an interval")
    if abs(interval or 0) > _MANY:
        raise NotAllowed("does not take an interval of more than 10,000 years")
    return lambda micros, more: micros + more


@entry("TimestampAddYMInterval")
def _add_year_months(node: Node) -> Function:
    if node.arguments[1].op != LITERAL:
        raise NotAllowed("an interval must be a literal")
    months_literal(node, 1)
    return _plus_months


@entry("SubtractTimestamps")
def _subtract(node: Node) -> Function:
    return lambda end, start: end - start


@entry("ExtractANSIIntervalDays")
def _days(node: Node) -> Function:
    return lambda micros: _cut(micros, DAY)


@entry("UnixSeconds", "unix_seconds(timestamp)")
def _unix_seconds(node: Node) -> Function:
    return lambda micros: micros // SECOND


@entry("UnixMillis", "unix_millis(timestamp)")
def _unix_millis(node: Node) -> Function:
    return lambda micros: micros // 1000


@entry("UnixMicros", "unix_micros(timestamp)")
def _unix_micros(node: Node) -> Function:
    return lambda micros: micros


@entry("SecondsToTimestamp", "timestamp_seconds(number)", edge="NULL for NaN and infinities; no BIGINT or DECIMAL")
def _from_seconds(node: Node) -> Function:
    kind = node.arguments[0].type
    if kind in _FLOATS:
        return _double_to_timestamp
    if kind not in ("tinyint", "smallint", "int"):
        raise NotAllowed(f"is not allowed for {kind.upper()}: Spark fails for large numbers")
    return lambda seconds: seconds * SECOND


@entry("MillisToTimestamp", "timestamp_millis(number)", edge="no BIGINT")
def _from_millis(node: Node) -> Function:
    if node.arguments[0].type not in ("tinyint", "smallint", "int"):
        raise NotAllowed(f"is not allowed for {node.arguments[0].type.upper()}: Spark fails for large numbers")
    return lambda millis: millis * 1000


@entry("MicrosToTimestamp", "timestamp_micros(number)")
def _from_micros(node: Node) -> Function:
    return lambda micros: micros


def _double_to_timestamp(seconds: float) -> int | None:
    if not math.isfinite(seconds):
        return None
    return (
        max(-_LARGEST - 1, min(_LARGEST, int(seconds * 1e6)))
        if math.isfinite(seconds * 1e6)
        else (_LARGEST if seconds > 0 else -_LARGEST - 1)
    )


@cast("timestamp", "date")
def _timestamp_to_date(node: Node) -> Function:
    return lambda micros: micros // DAY


@cast("date", "timestamp")
def _date_to_timestamp(node: Node) -> Function:
    return lambda days: days * DAY


@cast("timestamp", tuple(WHOLE))
def _timestamp_to_whole(node: Node) -> Function:
    kind, strict = node.type, is_try(node)

    def convert(micros: int) -> int | None:
        seconds = micros // SECOND
        return None if strict and not fits(seconds, kind) else wrap(seconds, WHOLE[kind])

    return convert


@cast("timestamp", _FLOATS)
def _timestamp_to_float(node: Node) -> Function:
    if node.type == "float":
        return lambda micros: to_float32(micros / 1e6)
    return lambda micros: micros / 1e6


@cast("timestamp", "boolean")
def _timestamp_to_boolean(node: Node) -> Function:
    return lambda micros: micros != 0


@cast("boolean", "timestamp")
def _boolean_to_timestamp(node: Node) -> Function:
    return int


@cast(tuple(WHOLE), "timestamp")
def _whole_to_timestamp(node: Node) -> Function:
    return lambda seconds: max(-_LARGEST - 1, min(_LARGEST, seconds * SECOND))


@cast(_FLOATS, "timestamp")
def _float_to_timestamp(node: Node) -> Function:
    return _double_to_timestamp


@cast("decimal", "timestamp")
def _decimal_to_timestamp(node: Node) -> Function:
    return lambda seconds: wrap(int(Decimal(seconds).scaleb(6)), 64)


@cast("date", ("boolean", *WHOLE, *_FLOATS, "decimal"))
def _date_to_number(node: Node) -> Function:
    return lambda days: None


written("timestamp_diff: datediff(unit, start, end)", edge="whole units, as timestampdiff")
