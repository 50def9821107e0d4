"""Intervals: differences of dates and timestamps, what they consist of, and literal intervals added."""

from __future__ import annotations

from .calendar import quotient, timestamp_or_null
from .casts import cast
from .date_arithmetic import check_months, months_adder
from .date_fields import seconds_of
from .datetime_text import DAY, SECOND
from .entry import Function, NotAllowed, entry, literal_of, written
from .time_arithmetic import MANY, plus_months
from .tree import Node

_HOUR, _MINUTE = 3600 * SECOND, 60 * SECOND
_TOO_FAR = "a result that no interval or time holds is NULL (in Spark: an error)"


# ---- added ----------------------------------------------------------------------------------------------------------


@entry("TimeAdd")
def _add_interval(node: Node) -> Function:
    if abs(literal_of(node, 1, "an interval") or 0) > MANY:
        raise NotAllowed("by more than 10,000 years is not allowed")
    return lambda micros, more: timestamp_or_null(micros + more)


@entry("DateAddYMInterval")
def _add_months_to_date(node: Node) -> Function:
    literal_of(node, 1, "an interval")
    return months_adder(node)


@entry("TimestampAddYMInterval")
def _add_months_to_timestamp(node: Node) -> Function:
    literal_of(node, 1, "an interval")
    check_months(node, 1)
    return plus_months


# ---- differences ----------------------------------------------------------------------------------------------------


@entry("SubtractDates")
def _between_dates(node: Node) -> Function:
    return lambda end, start: timestamp_or_null((end - start) * DAY)


@entry("SubtractTimestamps")
def _between_timestamps(node: Node) -> Function:
    return lambda end, start: timestamp_or_null(end - start)


# ---- parts ----------------------------------------------------------------------------------------------------------


def _rest(micros: int, unit: int) -> int:
    """Return what is left after all whole units; it has the sign of the interval."""
    return micros - quotient(micros, unit) * unit


@entry("ExtractANSIIntervalDays")
def _days(node: Node) -> Function:
    return lambda micros: quotient(micros, DAY)


@entry("ExtractANSIIntervalHours")
def _hours(node: Node) -> Function:
    return lambda micros: quotient(_rest(micros, DAY), _HOUR)


@entry("ExtractANSIIntervalMinutes")
def _minutes(node: Node) -> Function:
    return lambda micros: quotient(_rest(micros, _HOUR), _MINUTE)


@entry("ExtractANSIIntervalSeconds")
def _seconds(node: Node) -> Function:
    return lambda micros: seconds_of(_rest(micros, _MINUTE))


@cast("interval day", ("int", "bigint"))
def _to_days(node: Node) -> Function:
    return lambda micros: quotient(micros, DAY)


@cast("interval day to second", "bigint")
def _to_seconds(node: Node) -> Function:
    return lambda micros: quotient(micros, SECOND)


@cast("interval day to second", "int")
def _to_int(node: Node) -> Function:
    raise NotAllowed("from an interval to INT is not allowed: Spark fails for long intervals; cast to BIGINT")


written("interval: date + INTERVAL '1' MONTH", edge=f"intervals are literals, or differences; {_TOO_FAR}")
