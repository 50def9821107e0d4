"""Functions that read and print dates and times by a pattern."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .datetime_patterns import Pattern
from .datetime_text import DAY, SECOND
from .entry import Function, NotAllowed, entry, literal_of, takes, written
from .tree import Node
from .types import fits, wrap

_NOT_OF_THE_FORM = "NULL if an argument is NULL, or if the text does not have the form"
_TOO_FAR = "a result beyond the years ±290,000 is NULL (in Spark: an error)"
_BY_PATTERN = f"text is read strictly: 31 February and 24:00 give NULL; {_TOO_FAR}"
_TEXT_TO_TIMESTAMP = (
    "the zone is UTC, unless the text ends in another, as `Z`, `+01:00` or `Etc/GMT+1`; a zone whose clock changes, as "
    "`Europe/Paris`, gives NULL (in Spark: the time of that zone), and so does a time alone (in Spark: today)"
)
_TEXT_TO_DATE = "what follows the date after a blank or `T` is ignored"


def _pattern(node: Node, reading: bool) -> Pattern:
    pattern = literal_of(node, 1, "the pattern")
    if pattern is None:
        raise NotAllowed("the pattern must not be NULL")
    return Pattern(pattern, reading)


def _micros(node: Node) -> Callable[[Any], int | None]:
    """Return the function that gives the timestamp of the first argument: a text, a date or a timestamp."""
    takes(node, ("string", "date", "timestamp"))
    read = _pattern(node, reading=True).micros
    kind = node.arguments[0].type
    if kind == "string":
        return read
    if kind == "date":
        return lambda days: days * DAY if fits(days * DAY, "bigint") else None
    return lambda micros: micros


@entry("GetTimestamp", "to_timestamp(text, pattern)", "try_to_timestamp(text, pattern)", null=_NOT_OF_THE_FORM,
       edge=f"{_BY_PATTERN}; without a pattern {_TEXT_TO_TIMESTAMP}")  # fmt: skip
def _get_timestamp(node: Node) -> Function:
    if node.type != "timestamp":
        raise NotAllowed(f"is not allowed with the result {node.type.upper()}")
    micros_of = _micros(node)
    return lambda value, _: micros_of(value)


@entry("UnixTimestamp", "unix_timestamp(text or time, pattern)", null=_NOT_OF_THE_FORM, edge=_BY_PATTERN)
@entry("ToUnixTimestamp", "to_unix_timestamp(text or time, pattern)", null=_NOT_OF_THE_FORM, edge=_BY_PATTERN)
def _unix_timestamp(node: Node) -> Function:
    micros_of = _micros(node)

    def seconds(value: Any, _: str) -> int | None:
        micros = micros_of(value)
        if micros is None:
            return None
        # Java's division drops the fraction, also of times before 1970
        return micros // SECOND if micros >= 0 else -(-micros // SECOND)

    return seconds


@entry(
    "FromUnixTime", "from_unixtime(seconds, pattern)", edge="seconds that no TIMESTAMP holds wrap around, as in Java"
)
def _from_unixtime(node: Node) -> Function:
    text = _pattern(node, reading=False).text
    return lambda seconds, _: text(wrap(seconds * SECOND, 64))


@entry("DateFormatClass", "date_format(time, pattern)")
def _date_format(node: Node) -> Function:
    text = _pattern(node, reading=False).text
    return lambda micros, _: text(micros)


written("to_date(text, pattern)", _NOT_OF_THE_FORM, f"{_BY_PATTERN}; without a pattern {_TEXT_TO_DATE}")
written("timestamp(text)", _NOT_OF_THE_FORM, _TEXT_TO_TIMESTAMP)
written("date(text)", _NOT_OF_THE_FORM, _TEXT_TO_DATE)
