"""Days since 1970-01-01 and dates of the proleptic Gregorian calendar, for any year."""

from __future__ import annotations

from .types import fits

_DAYS_OF_400_YEARS = 146_097
_DAYS_BEFORE_1970 = 719_468
"""From March 1 of the year 0 to January 1, 1970."""


def days_of(year: int, month: int, day: int) -> int:
    """Return the days from 1970-01-01 to a date; the day may lie outside its month."""
    # the year is counted from March, so that the leap day is its last
    year_from_march, month_from_march = year - (month <= 2), (month - 3) % 12
    century = year_from_march // 100
    days_before = 365 * year_from_march + year_from_march // 4 - century + century // 4
    return days_before + (153 * month_from_march + 2) // 5 + day - 1 - _DAYS_BEFORE_1970


def date_of(days: int) -> tuple[int, int, int]:
    """Return year, month and day of the date that lies so many days after 1970-01-01."""
    era, day_of_era = divmod(days + _DAYS_BEFORE_1970, _DAYS_OF_400_YEARS)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    month = (month_from_march + 2) % 12 + 1
    return 400 * era + year_of_era + (month <= 2), month, day


def date_or_null(days: int) -> int | None:
    """Return the days, None where no DATE holds them: before the year -5,877,641 and after 5,881,580."""
    return days if fits(days, "int") else None


def timestamp_or_null(micros: int) -> int | None:
    """Return the microseconds, None where no TIMESTAMP holds them: before the year -290,308 and after 294,247."""
    return micros if fits(micros, "bigint") else None


def quotient(value: int, unit: int) -> int:
    """Return how often the unit fits into a value, without a fraction: towards 0, as Java divides whole numbers."""
    return -(-value // unit) if value < 0 else value // unit
