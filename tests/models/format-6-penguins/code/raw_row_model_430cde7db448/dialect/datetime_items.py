"""The parts of a pattern for dates and times: each prints its part of a timestamp and reads it from text.

They follow the parser of `java.time.format` in its strict style: what a part can take, it takes and keeps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from .datetime_fields import NANO, OFFSET, YEAR, Fields

FAILED = -1
"""The position after a part that the text does not have."""
_SAME_LETTER = {"ı": "i", "ſ": "s", "K": "k", "İ": "i"}
"""What Java's comparison of single characters takes for an ASCII letter too."""
_DIGITS = frozenset("0123456789")


class Unreadable(Exception):
    """A text that Java's parser gives up at once, even within an optional section."""


class Sign(Enum):
    """When a number has a sign."""

    NEVER = "never"
    IF_NEGATIVE = "a minus if negative"
    IF_WIDER = "a minus if negative, a plus if wider than its least width"


class Item(ABC):
    """One part of a pattern."""

    @abstractmethod
    def text(self, fields: Fields) -> str:
        """Return what the part prints."""

    @abstractmethod
    def read(self, text: str, start: int, fields: Fields) -> int:
        """Read the part from ``text`` into ``fields``; return the position behind it, or FAILED."""


def _put(fields: Fields, name: str, value: int, end: int) -> int:
    """Keep a value that was read; a field that was read before must have the same value."""
    return end if fields.setdefault(name, value) == value else FAILED


def _digits(text: str, start: int, most: int) -> int:
    """Return the number of digits that stand at the position, at most so many."""
    end = start
    while end < len(text) and end - start < most and text[end] in _DIGITS:
        end += 1
    return end - start


@dataclass
class Number(Item):
    """Digits of a field."""

    name: str
    least: int
    most: int
    sign: Sign
    following: int = 0
    """How many digits the fixed numbers right behind this one need."""

    def text(self, fields: Fields) -> str:
        """Return the digits, with zeros before them up to the least width."""
        value = fields[self.name]
        digits = str(abs(value)).rjust(self.least, "0")
        plus = self.sign is Sign.IF_WIDER and len(digits) > self.least
        return ("-" if value < 0 else "+" if plus else "") + digits

    def read(self, text: str, start: int, fields: Fields) -> int:
        """Read the digits, but for those that the numbers behind need."""
        sign, begin = text[start : start + 1], start
        if sign in ("+", "-"):
            if self.sign is Sign.NEVER or (sign == "+" and self.sign is Sign.IF_NEGATIVE):
                return FAILED
            begin += 1
        count = _digits(text, begin, self.most + self.following)
        if count < self.least:
            return FAILED
        if self.following:
            count = min(count, max(self.least, count - self.following))
        value = int(text[begin : begin + count])
        if sign == "-" and value == 0:
            return FAILED
        if self.sign is Sign.IF_WIDER and sign != "-" and (count > self.least) != (sign == "+"):
            return FAILED
        return _put(fields, self.name, self.value(-value if sign == "-" else value), begin + count)

    def value(self, digits: int) -> int:
        """Return the field's value for the digits."""
        return digits


@dataclass
class TwoDigitYear(Number):
    """The last two digits of a year of the 21st century."""

    name: str = YEAR
    least: int = 2
    most: int = 2
    sign: Sign = Sign.NEVER

    def text(self, fields: Fields) -> str:
        """Return the last two digits."""
        return f"{abs(fields[YEAR]) % 100:02d}"

    def value(self, digits: int) -> int:
        """Return the year."""
        return 2000 + digits


@dataclass
class Fraction(Item):
    """Digits of the fraction of a second: exactly so many to print, and 1 to so many to read."""

    most: int

    def text(self, fields: Fields) -> str:
        """Return the first digits of the fraction."""
        return f"{fields[NANO]:09d}"[: self.most]

    def read(self, text: str, start: int, fields: Fields) -> int:
        """Read the digits."""
        count = _digits(text, start, self.most)
        if count == 0:
            return FAILED
        return _put(fields, NANO, int(text[start : start + count].ljust(9, "0")), start + count)


def starts_with(text: str, start: int, prefix: str) -> bool:
    """Tell whether ``prefix`` stands at the position, without regard to case as Java compares characters."""
    there = text[start : start + len(prefix)]
    return len(there) == len(prefix) and all(
        a == b or _SAME_LETTER.get(a, a.lower() if a.isascii() else a) == b.lower()
        for a, b in zip(there, prefix, strict=True)
    )


@dataclass
class Words(Item):
    """A word for each value of a field."""

    name: str
    words: tuple[str, ...]
    first: int
    """The value of the first word."""

    def text(self, fields: Fields) -> str:
        """Return the word."""
        return self.words[fields[self.name] - self.first]

    def read(self, text: str, start: int, fields: Fields) -> int:
        """Read one of the words."""
        for value, word in enumerate(self.words, self.first):
            if starts_with(text, start, word):
                return _put(fields, self.name, value, start + len(word))
        return FAILED


@dataclass
class Literal(Item):
    """Text that stands in the pattern itself."""

    literal: str

    def text(self, fields: Fields) -> str:
        """Return the text."""
        return self.literal

    def read(self, text: str, start: int, fields: Fields) -> int:
        """Read the text."""
        return start + len(self.literal) if starts_with(text, start, self.literal) else FAILED


@dataclass
class Offset(Item):
    """Hours and minutes that a clock is ahead of UTC."""

    none: str
    """What stands for no offset."""
    colon: bool
    minutes: bool
    """Whether the minutes must be there."""
    seconds: bool
    """Whether seconds may be there."""

    def text(self, fields: Fields) -> str:
        """Return the offset of UTC."""
        return self.none

    def read(self, text: str, start: int, fields: Fields) -> int:
        """Read the offset."""
        if starts_with(text, start, self.none):
            return _put(fields, OFFSET, 0, start + len(self.none))
        sign = text[start : start + 1]
        hours, end = self._two_digits(text, start + 1, False)
        if sign not in ("+", "-") or hours is None:
            return FAILED
        minutes, end = self._two_digits(text, end, self.colon)
        if minutes is None and self.minutes:
            return FAILED
        seconds = None
        if self.seconds:
            seconds, end = self._two_digits(text, end, self.colon)
        if hours > 23:
            raise Unreadable
        value = hours * 3600 + (minutes or 0) * 60 + (seconds or 0)
        return _put(fields, OFFSET, -value if sign == "-" else value, end)

    @staticmethod
    def _two_digits(text: str, start: int, colon: bool) -> tuple[int | None, int]:
        begin = start
        if colon:
            if text[start : start + 1] != ":":
                return None, start
            begin += 1
        if _digits(text, begin, 2) < 2 or text[begin] > "5":
            return None, start
        return int(text[begin : begin + 2]), begin + 2


@dataclass
class Section(Item):
    """Parts in a row; an optional section reads nothing where one of its parts is not there."""

    optional: bool = False
    items: list[Item] = field(default_factory=list)

    def text(self, fields: Fields) -> str:
        """Return what the parts print."""
        return "".join(item.text(fields) for item in self.items)

    def read(self, text: str, start: int, fields: Fields) -> int:
        """Read the parts one after the other."""
        found = dict(fields) if self.optional else fields
        position = start
        for item in self.items:
            position = item.read(text, position, found)
            if position == FAILED:
                return start if self.optional else FAILED
        fields.update(found)
        return position

    def walk(self) -> Iterator[Item]:
        """Yield all parts, also those of inner sections."""
        for item in self.items:
            yield item
            if isinstance(item, Section):
                yield from item.walk()
