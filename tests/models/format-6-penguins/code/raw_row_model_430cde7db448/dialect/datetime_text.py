"""Casts between text and DATE or TIMESTAMP, which follow one fixed form."""

from __future__ import annotations

import re

from .calendar import date_of, days_of
from .casts import cast
from .entry import Function, NotAllowed
from .tree import COLUMN, LITERAL, Node
from .types import fits

SECOND = 1_000_000
DAY = 86_400 * SECOND
LARGEST_OFFSET = 18 * 3600
"""Java knows no offset from UTC of more seconds."""

_BLANKS = "".join(map(chr, [*range(33), 127]))
_DATE = re.compile(r"([+-]?\d{4,7})(?:-(\d{1,2})(?:-(\d{1,2})(?:[ T].*)?)?)?", re.ASCII | re.DOTALL)
_TIMESTAMP = re.compile(
    r"([+-]?\d{4,6})(?:-(\d{1,2})(?:-(\d{1,2})"
    r"(?:[ T](\d{1,2})(?::(\d{1,2})(?::(\d{1,2})(?:\.(\d*))?(\D.*)?)?)?)?)?)?",
    re.ASCII | re.DOTALL,
)
_OFFSET = re.compile(r"([+-])(?:(\d)|(\d\d)(?:(\d\d)(\d\d)?|:(\d\d)(?::(\d\d))?)?)", re.ASCII)
_NO_OFFSET = {"UTC", "GMT", "UT", "UCT", "Zulu", "Universal", "Greenwich", "GMT0"}
_AMERICAN = {"EST": -5, "MST": -7, "HST": -10}
_NOW = ("epoch", "now", "today", "tomorrow", "yesterday")


def year_text(year: int) -> str:
    """Return a year with at least four digits, and with a sign before year 0 and after 9999."""
    return f"{year:05d}" if year < 0 else f"+{year}" if year > 9999 else f"{year:04d}"


def date_text(days: int) -> str:
    """Return a date as Spark prints it."""
    year, month, day = date_of(days)
    return f"{year_text(year)}-{month:02d}-{day:02d}"


def timestamp_text(micros: int) -> str:
    """Return a timestamp as Spark prints it: the fraction of the second without zeros at its end."""
    days, rest = divmod(micros, DAY)
    seconds, fraction = divmod(rest, SECOND)
    time = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{date_text(days)} {time}" + (f".{fraction:06d}".rstrip("0") if fraction else "")


def valid_days(year: int, month: int, day: int) -> int | None:
    """Return the days of a date, None where the calendar lacks it."""
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    days = days_of(year, month, day)
    return days if date_of(days)[2] == day else None


def text_to_date(text: str) -> int | None:
    """Return the date that a text begins with, None where it has not the form."""
    match = _DATE.fullmatch(text.strip(_BLANKS))
    if match is None:
        return None
    days = valid_days(int(match[1]), int(match[2] or 1), int(match[3] or 1))
    return days if days is not None and fits(days, "int") else None


def text_to_timestamp(text: str) -> int | None:
    """Return the timestamp that a text names, None where it has not the form, or a zone whose clock changes."""
    match = _TIMESTAMP.fullmatch(text.strip(_BLANKS))
    if match is None:
        return None
    days = valid_days(int(match[1]), int(match[2] or 1), int(match[3] or 1))
    hour, minute, second = int(match[4] or 0), int(match[5] or 0), int(match[6] or 0)
    offset = zone_offset(match[8]) if match[8] else 0
    if days is None or offset is None or hour > 23 or minute > 59 or second > 59:
        return None
    seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset
    micros = seconds * SECOND + int((match[7] or "")[:6].ljust(6, "0"))
    return micros if fits(micros, "bigint") else None


def zone_offset(zone: str) -> int | None:
    """Return the seconds that a zone is ahead of UTC, None where the name is unknown or the clock changes."""
    zone = zone.strip(_BLANKS[:33])
    zone = re.sub(r"([+-])(\d):", r"\g<1>0\2:", zone, count=1, flags=re.ASCII)
    zone = re.sub(r"([+-])(\d\d):(\d)$", r"\1\2:0\3", zone, count=1, flags=re.ASCII)
    if zone in _AMERICAN:
        return _AMERICAN[zone] * 3600
    if zone in _NO_OFFSET or zone == "Z":
        return 0
    if zone.startswith("Etc/"):
        return _etc_offset(zone[4:])
    for prefix in ("UTC", "GMT", "UT", ""):
        if zone.startswith(prefix) and (match := _OFFSET.fullmatch(zone[len(prefix) :])):
            return _seconds(match)
    return None


def _seconds(match: re.Match[str]) -> int | None:
    sign, digit, hours, minutes, seconds, other_minutes, other_seconds = match.groups()
    minute, second = int(minutes or other_minutes or 0), int(seconds or other_seconds or 0)
    if minute > 59 or second > 59:
        return None
    offset = int(digit or hours) * 3600 + minute * 60 + second
    if offset > LARGEST_OFFSET:
        return None
    return -offset if sign == "-" else offset


def _etc_offset(name: str) -> int | None:
    """Return the offset of a zone of the folder Etc, where `GMT+3` lies 3 hours behind UTC."""
    if name in _NO_OFFSET - {"UT"} or name == "GMT-0":
        return 0
    match = re.fullmatch(r"GMT([+-])(0|[1-9]\d?)", name, re.ASCII)
    if match is None or int(match[2]) > (12 if match[1] == "+" else 14):
        return None
    return int(match[2]) * (-3600 if match[1] == "+" else 3600)


def refuse_special_words(node: Node) -> None:
    """Raise NotAllowed for a constant that Spark may replace by today's date, as 'now'."""
    text = node.arguments[0]
    if any(below.op == COLUMN for below in text.walk()):
        return
    if text.op != LITERAL:
        raise NotAllowed("of a constant text is allowed for a literal only")
    if str(text.value).strip(_BLANKS).lower().startswith(_NOW):
        raise NotAllowed(f"of the word '{text.value}' is not allowed")


@cast("string", "date")
def _text_to_date(node: Node) -> Function:
    refuse_special_words(node)
    return text_to_date


@cast("string", "timestamp")
def _text_to_timestamp(node: Node) -> Function:
    refuse_special_words(node)
    return text_to_timestamp


@cast("date", "string")
def _date_to_text(node: Node) -> Function:
    return date_text


@cast("timestamp", "string")
def _timestamp_to_text(node: Node) -> Function:
    return timestamp_text
