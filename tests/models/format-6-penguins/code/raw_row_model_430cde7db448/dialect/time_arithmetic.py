"""Timestamps: differences, units added, seconds since 1970, and timestamps made of their parts."""

from __future__ import annotations

from decimal import Decimal

from .calendar import date_of, quotient, timestamp_or_null
from .date_arithmetic import LENGTHS, add_months, check_months, largest_count
from .datetime_text import DAY, SECOND, valid_days
from .entry import Function, NotAllowed, entry, takes, written
from .time_casts import double_to_timestamp, exact_to_timestamp
from .tree import Node
from .types import FLOATING, decimal_type, wrap

_UNITS = {**LENGTHS, "day": DAY, "dayofyear": DAY, "week": 7 * DAY}
_MONTHS = {"month": 1, "quarter": 3, "year": 12}
MANY = 10_000 * 366 * DAY  # micros: the result stays within what Spark can hold
_TOO_FAR = "a result that no timestamp holds is NULL (in Spark: an error)"
_SMALL = ("tinyint", "smallint", "int")


def _months_until(start: int, end: int) -> int:
    """Return the whole months between two timestamps, as java.time counts them."""
    first, last = start // DAY, end // DAY
    if last > first and end % DAY < start % DAY:
        last -= 1
    elif last < first and end % DAY > start % DAY:
        last += 1
    (year1, month1, day1), (year2, month2, day2) = date_of(first), date_of(last)
    return quotient(32 * (12 * (year2 - year1) + month2 - month1) + day2 - day1, 32)


@entry("TimestampDiff", "timestampdiff(unit, start, end)", edge=f"whole units, cut towards 0; {_TOO_FAR}")
def _difference(node: Node) -> Function:
    unit = node.setting("unit").lower()
    if unit in _UNITS:
        return lambda start, end: timestamp_or_null(quotient(end - start, _UNITS[unit]))
    if unit in _MONTHS:
        return lambda start, end: quotient(_months_until(start, end), _MONTHS[unit])
    raise NotAllowed(f"does not know the unit {unit}")


@entry("TimestampAdd", "timestampadd(unit, n, timestamp)", "dateadd(unit, n, timestamp)",
       edge=f"n is a literal, TINYINT or SMALLINT; {_TOO_FAR}")  # fmt: skip
def _add(node: Node) -> Function:
    unit = node.setting("unit").lower()
    if unit in _MONTHS:
        months = _MONTHS[unit]
        check_months(node, 0, months)
        return lambda count, micros: plus_months(micros, count * months)
    if unit not in _UNITS:
        raise NotAllowed(f"does not know the unit {unit}")
    length = _UNITS[unit]
    if largest_count(node, 0, "the number to add") * length > MANY:
        raise NotAllowed("by more than 10,000 years is not allowed")
    return lambda count, micros: timestamp_or_null(micros + count * length)


def plus_months(micros: int, months: int) -> int | None:
    """Return the timestamp so many months later, at the same time of the day."""
    return timestamp_or_null(add_months(micros // DAY, months) * DAY + micros % DAY)


@entry("UnixSeconds", "unix_seconds(timestamp)")
def _unix_seconds(node: Node) -> Function:
    return lambda micros: micros // SECOND


@entry("UnixMillis", "unix_millis(timestamp)")
def _unix_millis(node: Node) -> Function:
    return lambda micros: micros // 1000


@entry("UnixMicros", "unix_micros(timestamp)")
def _unix_micros(node: Node) -> Function:
    return lambda micros: micros


@entry("SecondsToTimestamp", "timestamp_seconds(number)",
       edge="NULL for NaN and infinities; no BIGINT, where Spark may fail: cast it to TIMESTAMP")  # fmt: skip
def _from_seconds(node: Node) -> Function:
    kind = node.arguments[0].type
    if kind in FLOATING:
        return double_to_timestamp
    if (size := decimal_type(kind)) is not None:
        precision, scale = size
        if scale > 6 or precision - scale > 12:
            raise NotAllowed(
                f"is not allowed for {kind.upper()}: it may not fit into a TIMESTAMP, and Spark fails then"
            )
        return exact_to_timestamp
    if kind not in _SMALL:
        raise NotAllowed(f"is not allowed for {kind.upper()}: Spark fails for large numbers; cast it to TIMESTAMP")
    return lambda seconds: seconds * SECOND


@entry("MillisToTimestamp", "timestamp_millis(number)",
       edge="no BIGINT, where Spark may fail: write timestamp_micros(number * 1000)")  # fmt: skip
def _from_millis(node: Node) -> Function:
    kind = node.arguments[0].type
    if kind not in _SMALL:
        raise NotAllowed(
            f"is not allowed for {kind.upper()}: Spark fails for large numbers; write timestamp_micros(number * 1000)"
        )
    return lambda millis: millis * 1000


@entry("MicrosToTimestamp", "timestamp_micros(number)")
def _from_micros(node: Node) -> Function:
    return lambda micros: micros


@entry("MakeTimestamp", "make_timestamp(year, month, day, hour, minute, second)",
       "make_timestamp_ntz(year, month, day, hour, minute, second)",
       "make_timestamp_ltz(year, month, day, hour, minute, second)",
       null="NULL if an argument is NULL, or there is no such time",
       edge=f"the second 60 is the next minute; {_TOO_FAR}")  # fmt: skip
def _make_timestamp(node: Node) -> Function:
    if len(node.arguments) > 6:
        raise NotAllowed("is not allowed with a zone")
    takes(node, "int", "int", "int", "int", "int", "decimal(16,6)")

    def make(year: int, month: int, day: int, hour: int, minute: int, seconds: Decimal) -> int | None:
        days = valid_days(year, month, day)
        second, fraction = divmod(exact_to_timestamp(seconds), SECOND)
        second = wrap(second, 32)
        if days is None or not (0 <= hour <= 23 and 0 <= minute <= 59 and 0 <= second <= 60):
            return None
        if second == 60 and fraction:
            return None
        return timestamp_or_null(days * DAY + ((hour * 60 + minute) * 60 + second) * SECOND + fraction)

    return make


written("timestamp_diff: datediff(unit, start, end)", edge="whole units, as timestampdiff")
