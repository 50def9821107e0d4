"""Time zones: from_utc_timestamp and to_utc_timestamp, by the rules of the Java that trained the model.

Rules change whenever a parliament decides so. A model's answer must not depend on the rules that a machine happens to
have, so the rules of each zone travel with the tree (data/zone_rules.py reads them from Java).
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise

from .calendar import date_of, days_of, timestamp_or_null
from .datetime_text import DAY, SECOND
from .entry import Function, NotAllowed, entry, literal_of
from .tree import Node

RULES = "rules"
"""The setting that holds a zone's rules: the first offset, then pairs of a UTC second and the offset from it on."""
CYCLE_YEARS = 400
"""After so many years the calendar repeats, weekdays included, and with it every rule."""
LAST_YEAR = 2500
"""The rules list the changes up to the end of this year; later years are as those of the cycle before."""
_ONLY_RECUR = 2100
"""From this year on no zone has other changes than those that recur; Asia/Gaza has until 2086, for Ramadan."""


def offsets(rules: str) -> tuple[Callable[[int], int], Callable[[int], int]]:
    """Return the functions from UTC and from local microseconds to the offset from UTC, all in microseconds."""
    first, *changes = json.loads(rules)
    before = [first, *(offset for _, offset in changes)]
    utc = [second for second, _ in changes]
    # In a gap and where an hour is there twice, java.time takes the offset of before the change.
    local = [second + max(pair) for second, pair in zip(utc, pairwise(before), strict=True)]

    last_year = date_of(utc[-1] // 86_400)[0] if utc else 0
    recur = last_year > _ONLY_RECUR  # otherwise the last offset stays

    def offset_at(thresholds: Sequence[int]) -> Callable[[int], int]:
        def offset(micros: int) -> int:
            second = (_within(micros, last_year) if recur else micros) // SECOND
            return int(before[bisect_right(thresholds, second)]) * SECOND

        return offset

    return offset_at(utc), offset_at(local)


def _within(micros: int, last_year: int) -> int:
    """Return the same moment of a year that the rules list, of which ``last_year`` is the last."""
    days, rest = divmod(micros, DAY)
    year, month, day = date_of(days)
    if year <= last_year:
        return micros
    cycles = (year - last_year - 1) // CYCLE_YEARS + 1
    return days_of(year - cycles * CYCLE_YEARS, month, day) * DAY + rest


@entry("FromUTCTimestamp", "from_utc_timestamp(timestamp, zone)", edge="a literal zone, such as Europe/Paris")
def _from_utc(node: Node) -> Function:
    offset = offsets(_rules(node))[0]
    return lambda micros, _: timestamp_or_null(micros + offset(micros))


@entry("ToUTCTimestamp", "to_utc_timestamp(timestamp, zone)", edge="a skipped or doubled hour: the offset of before")
def _to_utc(node: Node) -> Function:
    offset = offsets(_rules(node))[1]
    return lambda micros, _: timestamp_or_null(micros - offset(micros))


def _rules(node: Node) -> str:
    literal_of(node, 1, "the zone")
    rules = node.setting(RULES)
    if not rules:
        raise NotAllowed("does not know the zone")
    return rules
