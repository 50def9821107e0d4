"""Time zones: from_utc_timestamp and to_utc_timestamp, by the rules of the package tzdata.

The machine's own files are not read: a model's answer must not depend on them.
"""

from __future__ import annotations

import importlib.resources
import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from .calendar import date_of, days_of
from .datetime_text import DAY, LARGEST_OFFSET, SECOND
from .entry import Function, NotAllowed, entry, literal_of
from .tree import Node

_OFFSET = re.compile(r"(?:UTC|GMT|UT)?([+-])(\d{1,2}):?(\d{2})?", re.ASCII)
_EPOCH = datetime(1970, 1, 1)
_CYCLE_YEARS = 400  # the calendar repeats, weekdays included
OTHERWISE_IN_JAVA: frozenset[str] = frozenset()
"""Regions whose rules in Java 17.0.9 differ from the package's between 1900 and 2100."""


def offset_function(name: str) -> Function:
    """Return the function from local or UTC microseconds to the zone's offset from UTC in microseconds.

    Raises:
        NotAllowed: there is no such zone, or Java has other rules for it.
    """
    if name in ("UTC", "GMT", "Z", "Etc/UTC", "Etc/GMT"):
        return lambda micros, is_local: 0
    if match := _OFFSET.fullmatch(name):
        hours, minutes = int(match[2]), int(match[3] or 0)
        seconds = hours * 3600 + minutes * 60
        if minutes > 59 or seconds > LARGEST_OFFSET:
            raise NotAllowed(f"does not know the zone '{name}'")
        fixed = (seconds if match[1] == "+" else -seconds) * SECOND
        return lambda micros, is_local: fixed
    zone = _region(name)
    return lambda micros, is_local: _offset(zone, micros, is_local)


def _region(name: str) -> ZoneInfo:
    if "/" not in name or name in OTHERWISE_IN_JAVA or not re.fullmatch(r"[A-Za-z0-9_+/-]+", name):
        raise NotAllowed(f"does not know the zone '{name}'; give one like Europe/Paris or +01:00")
    file = importlib.resources.files("tzdata").joinpath("zoneinfo", *name.split("/"))
    if not file.is_file():
        raise NotAllowed(f"does not know the zone '{name}'; give one like Europe/Paris or +01:00")
    with file.open("rb") as content:
        return ZoneInfo.from_file(content, name)


def _offset(zone: ZoneInfo, micros: int, is_local: bool) -> int:
    days, rest = divmod(micros, DAY)
    year, month, day = date_of(days)
    if not 2 <= year <= 9998:
        near = year % _CYCLE_YEARS + (9_200 if year > 9998 else 400)
        days = days_of(near, month, day)
    when = _EPOCH + timedelta(days=days, microseconds=rest)
    if is_local:  # in a gap and where the hour is twice, both Java and Python take the offset of before
        offset = when.replace(tzinfo=zone, fold=0).utcoffset()
    else:
        offset = when.replace(tzinfo=UTC).astimezone(zone).utcoffset()
    assert offset is not None
    return offset // timedelta(microseconds=1)


@entry("FromUTCTimestamp", "from_utc_timestamp(timestamp, zone)", edge="a literal zone, such as Europe/Paris or +01:00")
def _from_utc(node: Node) -> Function:
    offset = _literal_zone(node)
    return lambda micros, _: micros + offset(micros, False)


@entry(
    "ToUTCTimestamp",
    "to_utc_timestamp(timestamp, zone)",
    edge="an hour that is skipped or there twice: by the offset before",
)
def _to_utc(node: Node) -> Function:
    offset = _literal_zone(node)
    return lambda micros, _: micros - offset(micros, True)


def _literal_zone(node: Node) -> Function:
    name = literal_of(node, 1, "the zone")
    return offset_function(name) if name is not None else lambda micros, is_local: 0
