"""What a date and a time consist of, such as year, weekday and hour."""

from __future__ import annotations

from decimal import Decimal

from .calendar import date_of, days_of
from .datetime_text import DAY, SECOND
from .entry import Function, entry, written
from .tree import Node
from .types import DECIMALS

_HOUR, _MINUTE = 3600 * SECOND, 60 * SECOND


def weekday(days: int) -> int:
    """Return the day of the week: 0 is Monday."""
    return (days + 3) % 7  # 1970-01-01 was a Thursday


def week_of_year(days: int) -> tuple[int, int]:
    """Return year and week as ISO 8601 counts them: the first week has the year's first Thursday."""
    thursday = days - weekday(days) + 3
    year = date_of(thursday)[0]
    return year, (thursday - days_of(year, 1, 1)) // 7 + 1


def seconds_of(micros: int) -> Decimal:
    """Return microseconds as seconds with 6 digits after the point."""
    return DECIMALS.scaleb(Decimal(micros), -6)


@entry("Year", "year(date)")
def _year(node: Node) -> Function:
    return lambda days: date_of(days)[0]


@entry("Quarter", "quarter(date)")
def _quarter(node: Node) -> Function:
    return lambda days: (date_of(days)[1] + 2) // 3


@entry("Month", "month(date)")
def _month(node: Node) -> Function:
    return lambda days: date_of(days)[1]


@entry("DayOfMonth", "day(date)", "dayofmonth(date)")
def _day(node: Node) -> Function:
    return lambda days: date_of(days)[2]


@entry("DayOfWeek", "dayofweek(date)", edge="1 is Sunday, 7 is Saturday")
def _day_of_week(node: Node) -> Function:
    return lambda days: (weekday(days) + 1) % 7 + 1


@entry("WeekDay", "weekday(date)", edge="0 is Monday, 6 is Sunday")
def _weekday(node: Node) -> Function:
    return weekday


@entry("DayOfYear", "dayofyear(date)")
def _day_of_year(node: Node) -> Function:
    return lambda days: days - days_of(date_of(days)[0], 1, 1) + 1


@entry("WeekOfYear", "weekofyear(date)", edge="ISO 8601")
def _week(node: Node) -> Function:
    return lambda days: week_of_year(days)[1]


@entry("YearOfWeek")
def _year_of_week(node: Node) -> Function:
    return lambda days: week_of_year(days)[0]


@entry("Hour", "hour(timestamp)")
def _hour(node: Node) -> Function:
    return lambda micros: micros % DAY // _HOUR


@entry("Minute", "minute(timestamp)")
def _minute(node: Node) -> Function:
    return lambda micros: micros % _HOUR // _MINUTE


@entry("Second", "second(timestamp)")
def _second(node: Node) -> Function:
    return lambda micros: micros % _MINUTE // SECOND


@entry("SecondWithFraction")
def _second_with_fraction(node: Node) -> Function:
    return lambda micros: seconds_of(micros % _MINUTE)


written("extract: extract(field FROM date)", edge="fields as in date_part")
written(
    "date_part(field, date)", edge="year, yearofweek, quarter, month, week, day, dayofweek, dow, doy, hour, minute, …"
)
written("datepart(field, date)", edge="as date_part")
