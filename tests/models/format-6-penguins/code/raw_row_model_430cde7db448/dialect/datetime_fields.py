"""What a date and a time consist of: taken apart to print them, put together after they were read."""

from __future__ import annotations

from collections.abc import Iterator

from .calendar import date_of, days_of
from .datetime_text import DAY, LARGEST_OFFSET, SECOND, valid_days
from .types import fits

YEAR, QUARTER, MONTH, DAY_OF_MONTH = "year", "quarter", "month", "day of month"
DAY_OF_YEAR, DAY_OF_WEEK = "day of year", "day of week"
HOUR, CLOCK_HOUR = "hour from 0", "hour from 1"
HALF, HOUR_OF_HALF, CLOCK_HOUR_OF_HALF = "half of day", "hour of half from 0", "hour of half from 1"
MINUTE, SECOND_OF_MINUTE, NANO, OFFSET = "minute", "second", "nanosecond", "offset"

Fields = dict[str, int]

_LIMITS = {
    MONTH: (1, 12), DAY_OF_MONTH: (1, 31), HOUR: (0, 23), CLOCK_HOUR: (1, 24), CLOCK_HOUR_OF_HALF: (1, 12),
    MINUTE: (0, 59), SECOND_OF_MINUTE: (0, 59), OFFSET: (-LARGEST_OFFSET, LARGEST_OFFSET),
}  # fmt: skip


def fields_of(micros: int) -> Fields:
    """Return everything that a pattern can print of a timestamp."""
    days, rest = divmod(micros, DAY)
    year, month, day = date_of(days)
    seconds, fraction = divmod(rest, SECOND)
    hour = seconds // 3600
    return {
        YEAR: year, QUARTER: (month + 2) // 3, MONTH: month, DAY_OF_MONTH: day,
        DAY_OF_YEAR: days - days_of(year, 1, 1) + 1, DAY_OF_WEEK: (days + 3) % 7 + 1,
        HOUR: hour, CLOCK_HOUR: hour or 24,
        HALF: hour // 12, HOUR_OF_HALF: hour % 12, CLOCK_HOUR_OF_HALF: hour % 12 or 12,
        MINUTE: seconds // 60 % 60, SECOND_OF_MINUTE: seconds % 60, NANO: fraction * 1000,
    }  # fmt: skip


def micros_of(fields: Fields) -> int | None:
    """Return the timestamp of the fields that a text gave; None where they contradict each other or the calendar.

    What lacks is the first it can be: January, the 1st, 00:00; the year is 1970 then.
    """
    if any(name in fields and not low <= fields[name] <= high for name, (low, high) in _LIMITS.items()):
        return None
    days = _days(fields)
    nanos = _nanos_of_day(fields)
    if days is None or nanos is None:
        return None
    micros = days * DAY + nanos // 1000 - fields.get(OFFSET, 0) * SECOND
    return micros if fits(micros, "bigint") else None


def _days(fields: Fields) -> int | None:
    year, month, day = fields.get(YEAR, 1970), fields.get(MONTH, 1), fields.get(DAY_OF_MONTH, 1)
    day_of_year = fields.get(DAY_OF_YEAR)
    if day_of_year is None:
        return valid_days(year, month, day)
    first = days_of(year, 1, 1)
    if {MONTH, DAY_OF_MONTH} <= fields.keys():
        days = valid_days(year, month, day)
        return days if days is not None and days - first + 1 == day_of_year else None
    if not 1 <= day_of_year <= days_of(year + 1, 1, 1) - first:
        return None
    days = first + day_of_year - 1
    _, month, day = date_of(days)
    return days if fields.get(MONTH, month) == month and fields.get(DAY_OF_MONTH, day) == day else None


def _nanos_of_day(fields: Fields) -> int | None:
    hours, minute, second = set(_hours(fields)), fields.get(MINUTE), fields.get(SECOND_OF_MINUTE)
    if len(hours) > 1:
        return None
    nano, half, clock = fields.get(NANO), fields.get(HALF), fields.get(CLOCK_HOUR_OF_HALF)
    # Java compares hour and half of the day only where no part of the time between hour and last part lacks
    complete = (second is None and nano is None) if minute is None else (second is not None or nano is None)
    if hours:
        hour = hours.pop()
        if complete and half is not None and half != hour // 12:
            return None
        if complete and clock is not None and clock % 12 != hour % 12:
            return None
    else:
        hour = clock % 12 if clock is not None else 12 if half == 1 else 0
    return ((hour * 60 + (minute or 0)) * 60 + (second or 0)) * 1_000_000_000 + (nano or 0)


def _hours(fields: Fields) -> Iterator[int]:
    """Yield the hours of the day that the fields name."""
    if HOUR in fields:
        yield fields[HOUR]
    if CLOCK_HOUR in fields:
        yield fields[CLOCK_HOUR] % 24
    if HALF in fields and CLOCK_HOUR_OF_HALF in fields:
        yield fields[HALF] * 12 + fields[CLOCK_HOUR_OF_HALF] % 12
