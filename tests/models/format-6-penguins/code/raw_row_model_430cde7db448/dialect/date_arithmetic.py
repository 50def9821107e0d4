"""Days and months added to dates, differences of dates, and the first and last days of periods."""

from __future__ import annotations

import math

from .calendar import date_of, date_or_null, days_of, timestamp_or_null
from .datetime_text import DAY, SECOND, valid_days
from .entry import Function, NotAllowed, entry, literal_of
from .tree import LITERAL, Node
from .types import WHOLE, wrap

_MANY_MONTHS = 120_000  # 10,000 years: the result stays within what Spark can hold
_TOO_FAR = "a result that no date holds is NULL (in Spark: an error)"
_LEVELS = {
    "YEAR": "year", "YYYY": "year", "YY": "year", "QUARTER": "quarter", "MONTH": "month", "MON": "month", "MM": "month",
    "WEEK": "week", "DAY": "day", "DD": "day", "HOUR": "hour", "MINUTE": "minute", "SECOND": "second",
    "MILLISECOND": "millisecond", "MICROSECOND": "microsecond",
}  # fmt: skip
LENGTHS = {"hour": 3600 * SECOND, "minute": 60 * SECOND, "second": SECOND, "millisecond": 1000, "microsecond": 1}
"""The parts of a day in microseconds."""
_DAY_NAMES = {"MONDAY": 0, "TUESDAY": 1, "WEDNESDAY": 2, "THURSDAY": 3, "FRIDAY": 4, "SATURDAY": 5, "SUNDAY": 6}


def add_months(days: int, months: int) -> int:
    """Return the date so many months later, at most on that month's last day."""
    year, month, day = date_of(days)
    year, month = divmod(12 * year + month - 1 + months, 12)
    last = days_of(year, month + 2, 1) if month < 11 else days_of(year + 1, 1, 1)
    return min(days_of(year, month + 1, day), last - 1)


def largest_count(node: Node, position: int, what: str) -> int:
    """Return the largest absolute value of an argument whose range is known: a literal, TINYINT or SMALLINT.

    Raises:
        NotAllowed: the argument is anything else, so that Spark may fail for some value.
    """
    argument = node.arguments[position]
    if argument.op == LITERAL:
        return abs(int(literal_of(node, position, what) or 0))
    if argument.op == "Cast" and argument.type in ("int", "bigint"):
        argument = argument.arguments[0]
    if argument.type not in ("tinyint", "smallint"):
        raise NotAllowed(f"{what} must be a literal, or a TINYINT or SMALLINT")
    return int(2 ** (WHOLE[argument.type] - 1))


def check_months(node: Node, position: int, months: int = 1) -> None:
    """Raise NotAllowed where the argument may be so many times the months that Spark fails for usual dates."""
    if largest_count(node, position, "the number to add") * months > _MANY_MONTHS:
        raise NotAllowed(f"by more than {_MANY_MONTHS:,} months is not allowed")


def truncated(days: int, level: str) -> int:
    """Return the first day of the year, quarter, month or week (from Monday on) of a date."""
    year, month, _ = date_of(days)
    if level == "week":
        return _next(wrap(days - 7, 32), 0)
    first = {"year": 1, "quarter": month - (month - 1) % 3, "month": month}[level]
    return days_of(year, first, 1)


@entry("DateAdd", "date_add(date, days)", edge="wraps around")
def _add(node: Node) -> Function:
    return lambda days, more: wrap(days + more, 32)


@entry("DateSub", "date_sub(date, days)", edge="wraps around")
def _subtract(node: Node) -> Function:
    return lambda days, fewer: wrap(days - fewer, 32)


@entry("DateDiff", "datediff(end, start)", "date_diff(end, start)", edge="wraps around")
def _difference(node: Node) -> Function:
    return lambda end, start: wrap(end - start, 32)


@entry("AddMonths", "add_months(date, months)",
       edge=f"at most the month's last day; months are a literal, TINYINT or SMALLINT; {_TOO_FAR}")  # fmt: skip
def _add_months(node: Node) -> Function:
    return months_adder(node)


def months_adder(node: Node) -> Function:
    """Return the function that adds the second argument, months, to a date."""
    check_months(node, 1)
    return lambda days, months: date_or_null(add_months(days, months))


@entry("LastDay", "last_day(date)")
def _last_day(node: Node) -> Function:
    return lambda days: wrap(add_months(truncated(days, "month"), 1) - 1, 32)


@entry("NextDay", "next_day(date, day)", null="NULL if an argument is NULL, or the name of the day is none",
       edge="a literal day, as `Mon` or `MONDAY`")  # fmt: skip
def _next_day(node: Node) -> Function:
    name = literal_of(node, 1, "the name of the day")
    lengths = (2, 3, 9)
    wanted = next((n for d, n in _DAY_NAMES.items() if name and name.upper() in {d[:k] for k in lengths}), None)
    if wanted is None:
        return lambda days, _: None

    return lambda days, _: _next(days, wanted)


def _next(days: int, wanted: int) -> int:
    """Return the first day of the week ``wanted`` (0 is Monday) after a date."""
    after_thursday = (wanted - 3) % 7  # day 0 was a Thursday
    # near the last dates of all both the difference and the sum wrap around, as in Spark
    return wrap(days + 1 + wrap(after_thursday - 1 - days, 32) % 7, 32)


@entry("TruncDate", "trunc(date, level)", null="NULL if an argument is NULL, or the level is none of dates",
       edge="a literal level: year, quarter, month or week")  # fmt: skip
def _truncate_date(node: Node) -> Function:
    level = _LEVELS.get((literal_of(node, 1, "the level") or "").upper())
    if level not in ("year", "quarter", "month", "week"):
        return lambda days, _: None
    if level == "quarter":
        return lambda days, _: date_or_null(truncated(days, level))
    return lambda days, _: wrap(truncated(days, level), 32)


@entry("TruncTimestamp", "date_trunc(level, timestamp)", null="NULL if an argument is NULL, or the level is none",
       edge="a literal level, from year to microsecond")  # fmt: skip
def _truncate_time(node: Node) -> Function:
    level = _LEVELS.get((literal_of(node, 0, "the level") or "").upper())
    if level is None:
        return lambda _, micros: None
    if level in ("year", "quarter", "month", "week"):
        return lambda _, micros: timestamp_or_null(truncated(micros // DAY, level) * DAY)
    length = LENGTHS.get(level, DAY)
    if length <= SECOND:
        return lambda _, micros: wrap(micros - micros % length, 64)
    return lambda _, micros: timestamp_or_null(micros - micros % length)


@entry(
    "MonthsBetween",
    "months_between(end, start, rounded)",
    edge="rounded to 8 digits unless the third argument is false",
)
def _months_between(node: Node) -> Function:
    rounded = literal_of(node, 2, "whether the result is rounded")

    def between(end: int, start: int, _: bool) -> float:
        (year1, month1, day1), (year2, month2, day2) = date_of(end // DAY), date_of(start // DAY)
        months = float(12 * (year1 - year2) + month1 - month2)
        if day1 == day2 or (_is_last_day(end // DAY) and _is_last_day(start // DAY)):
            return months
        seconds = (day1 - day2) * 86_400 + end % DAY // SECOND - start % DAY // SECOND
        exact = months + seconds / (31 * 86_400.0)
        return _round(exact * 1e8) / 1e8 if rounded else exact

    return between


def _is_last_day(days: int) -> bool:
    return date_of(days + 1)[2] == 1


def _round(value: float) -> int:
    """Return the nearest whole number, the larger of two, as Java's Math.round does."""
    whole = math.floor(value)
    return whole + (value - whole >= 0.5)


@entry("MakeDate", "make_date(year, month, day)", null="NULL if an argument is NULL, or there is no such date",
       edge=_TOO_FAR)  # fmt: skip
def _make_date(node: Node) -> Function:
    def make(year: int, month: int, day: int) -> int | None:
        days = valid_days(year, month, day)
        return None if days is None else date_or_null(days)

    return make


@entry("UnixDate", "unix_date(date)")
def _unix_date(node: Node) -> Function:
    return lambda days: days


@entry("DateFromUnixDate", "date_from_unix_date(days)")
def _from_unix_date(node: Node) -> Function:
    return lambda days: days
