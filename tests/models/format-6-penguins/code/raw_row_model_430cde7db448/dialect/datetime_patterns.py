"""Patterns for dates and times, as `yyyy-MM-dd HH:mm:ss`: what Spark allows of the patterns of `java.time.format`."""

from __future__ import annotations

import itertools

from .datetime_fields import (
    CLOCK_HOUR,
    CLOCK_HOUR_OF_HALF,
    DAY_OF_MONTH,
    DAY_OF_WEEK,
    DAY_OF_YEAR,
    HALF,
    HOUR,
    HOUR_OF_HALF,
    MINUTE,
    MONTH,
    QUARTER,
    SECOND_OF_MINUTE,
    YEAR,
    fields_of,
    micros_of,
)  # fmt: skip
from .datetime_items import (
    FAILED,
    Fraction,
    Item,
    Literal,
    Number,
    Offset,
    Section,
    Sign,
    TwoDigitYear,
    Unreadable,
    Words,
)
from .entry import NotAllowed

_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December")  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_QUARTERS = ("1st quarter", "2nd quarter", "3rd quarter", "4th quarter")
_NUMBERS = {"d": DAY_OF_MONTH, "H": HOUR, "k": CLOCK_HOUR, "K": HOUR_OF_HALF, "h": CLOCK_HOUR_OF_HALF, "m": MINUTE,
            "s": SECOND_OF_MINUTE}  # fmt: skip
_WORDS = {"M": (MONTH, _MONTHS), "L": (MONTH, _MONTHS), "Q": (QUARTER, _QUARTERS), "q": (QUARTER, _QUARTERS),
          "E": (DAY_OF_WEEK, _DAYS)}  # fmt: skip
_UTC = {
    "z": "UTC", "zz": "UTC", "zzz": "UTC", "zzzz": "Coordinated Universal Time", "VV": "UTC", "O": "GMT",
    "OOOO": "GMT", "ZZZZ": "GMT",
}  # fmt: skip
_OFFSETS = {
    "X": Offset("Z", False, False, False), "XX": Offset("Z", False, True, False), "XXX": Offset("Z", True, True, False),
    "XXXX": Offset("Z", False, True, True), "XXXXX": Offset("Z", True, True, True),
    "x": Offset("+00", False, False, False), "xx": Offset("+0000", False, True, False),
    "xxx": Offset("+00:00", True, True, False), "xxxx": Offset("+0000", False, True, True),
    "xxxxx": Offset("+00:00", True, True, True),
    "Z": Offset("+0000", False, True, False), "ZZ": Offset("+0000", False, True, False),
    "ZZZ": Offset("+0000", False, True, False), "ZZZZZ": Offset("Z", True, True, True),
}  # fmt: skip
_NOT_READ = "EKLQqzVO"
"""Letters that Spark does not read, or that are not proven equal when read."""


class Pattern:
    """A pattern, ready to print timestamps or to read them."""

    def __init__(self, pattern: str, reading: bool) -> None:
        """Take the pattern apart.

        Raises:
            NotAllowed: Spark does not allow the pattern, or not all of it is proven equal to Spark.
        """
        self._section = _Builder(pattern, reading).section()

    def text(self, micros: int) -> str:
        """Return a timestamp as the pattern prints it."""
        return self._section.text(fields_of(micros))

    def micros(self, text: str) -> int | None:
        """Return the timestamp that a text names, None where it does not have the pattern's form."""
        fields: dict[str, int] = {}
        try:
            end = self._section.read(text, 0, fields)
        except Unreadable:
            return None
        return micros_of(fields) if end != FAILED and end == len(text) else None


class _Builder:
    """Makes the parts of a pattern, from its first to its last character."""

    def __init__(self, pattern: str, reading: bool) -> None:
        self._pattern, self._reading = pattern, reading
        self._open = [Section()]
        self._has_day_of_year = False
        self._before: Number | None = None
        """The number that leaves digits to the numbers of fixed width right behind it."""

    def section(self) -> Section:
        """Return all parts as one."""
        parts = self._pattern.split("'")
        if len(parts) % 2 == 0 or "" in parts[1:-1]:
            raise self._refused("quotes must stand around text")
        for i, part in enumerate(parts):
            if i % 2:
                self._literal(part)
                continue
            for letter, run in itertools.groupby(part):
                self._run(letter, len(list(run)))
        while len(self._open) > 1:
            self._close()
        items = self._open[0].items
        if self._reading and self._has_day_of_year and not any(isinstance(i, Number) and i.name == YEAR for i in items):
            raise self._refused("'D' needs a year outside '[]'")
        return self._open[0]

    def _refused(self, why: str) -> NotAllowed:
        return NotAllowed(f"of the pattern '{self._pattern}' is not allowed: {why}")

    def _run(self, letter: str, count: int) -> None:
        """Add the part that stands for a character, so many times in a row."""
        if letter == "[":
            for _ in range(count):
                self._open.append(Section(optional=True))
            self._before = None
        elif letter == "]":
            for _ in range(count):
                self._close()
        elif letter.isascii() and letter.isalpha():
            self._add(self._item(letter, count), adjoins=letter == "S" and count == 1)
        elif letter in "{}#":
            raise self._refused(f"Java reserves '{letter}'")
        else:
            self._literal(letter * count)

    def _close(self) -> None:
        if len(self._open) == 1:
            raise self._refused("']' has no '[' before it")
        section = self._open.pop()
        if section.items:
            self._add(section)

    def _literal(self, text: str) -> None:
        if any((c.lower() != c.upper() and not c.isascii()) or ord(c) > 0xFFFF for c in text):
            raise self._refused(f"'{text}' is not ASCII")
        self._add(Literal(text))

    def _add(self, item: Item, adjoins: bool = False) -> None:
        """Add a part; a number leaves digits to the numbers of fixed width right behind it, if only such follow."""
        fixed = isinstance(item, Number) and item.least == item.most
        if self._before is not None and (fixed or adjoins):
            self._before.following += item.most if isinstance(item, Number) else 1
        else:
            number = item if isinstance(item, Number) else None
            if self._before is not None and number is not None:
                self._before.following = 0
            self._before = number
        self._open[-1].items.append(item)

    def _item(self, letter: str, count: int) -> Item:
        run = letter * count
        self._has_day_of_year |= letter == "D"
        item = None if self._reading and letter in _NOT_READ else _item(letter, count)
        if self._reading and (run in _UTC or (letter == "y" and count not in (2, 4))):
            item = None
        if item is None:
            use = " for reading text" if self._reading else ""
            raise self._refused(f"'{run}' is not in the list{use}")
        return item


def _item(letter: str, count: int) -> Item | None:
    """Return the part that stands for so many equal letters, None where Spark or the list lacks it."""
    run = letter * count
    if letter == "y" and count <= 6:
        if count == 2:
            return TwoDigitYear()
        return Number(YEAR, count, 19, Sign.IF_NEGATIVE if count < 4 else Sign.IF_WIDER)
    if letter == "D" and count <= 3:
        return Number(DAY_OF_YEAR, 1, 19, Sign.IF_NEGATIVE) if count == 1 else Number(DAY_OF_YEAR, count, 3, Sign.NEVER)
    if letter in _NUMBERS or (letter in "MLQq" and count <= 2):
        return _number(_NUMBERS.get(letter, MONTH if letter in "ML" else QUARTER), count)
    if letter in _WORDS and (count in (3, 4) or (letter == "E" and count < 3)):
        name, words = _WORDS[letter]
        if count < 4:
            words = tuple(f"Q{word[0]}" if name == QUARTER else word[:3] for word in words)
        return Words(name, words, 1)
    if letter == "S" and count <= 9:
        return Fraction(count)
    if run == "a":
        return Words(HALF, ("AM", "PM"), 0)
    if run in _UTC:
        return Literal(_UTC[run])
    return _OFFSETS.get(run)


def _number(name: str, count: int) -> Number | None:
    """Return a number of any width for one letter, of two digits for two."""
    if count > 2:
        return None
    return Number(name, 1, 19, Sign.IF_NEGATIVE) if count == 1 else Number(name, 2, 2, Sign.NEVER)
