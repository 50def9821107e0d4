r"""The sets of characters of Java's regular expressions: `[a-z]`, `\d`, `\p{Alpha}`, `.`, written for Python.

Java reads a text as UTF-16: a character beyond U+FFFF is two halves there. So a set must hold all of these characters
or none, and no half alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .entry import NotAllowed

FIRST_HALF = 0xD800
LARGEST = 0xFFFF


@dataclass(frozen=True)
class Characters:
    """A set of characters."""

    inside: str
    """What stands between Python's brackets."""
    wide: bool = False
    """Whether the brackets hold the characters beyond U+FFFF."""
    negated: bool = False
    """Whether the set is all that the brackets do not hold."""

    def __str__(self) -> str:
        """Return the set as a regular expression of Python."""
        return f"[{'^' if self.negated else ''}{self.inside}]"

    @property
    def holds_wide(self) -> bool:
        """Tell whether the set holds the characters beyond U+FFFF."""
        return self.wide != self.negated


_LINE_ENDS = r"\n\r\x85\u2028\u2029"
DOT = Characters(_LINE_ENDS, negated=True)
ANY = Characters(r"\s\S", wide=True)
# Python's \d, \w and \s are Java's under re.ASCII
_SHORT = {
    "d": Characters(r"\d"), "w": Characters(r"\w"), "s": Characters(r"\s"), "D": Characters(r"\D", wide=True),
    "W": Characters(r"\W", wide=True), "S": Characters(r"\S", wide=True),
    "h": Characters(r" \t\xa0\u1680\u180e\u2000-\u200a\u202f\u205f\u3000"),
    "v": Characters(r"\n\x0b\f\r\x85\u2028\u2029"),
}  # fmt: skip
_PUNCTUATION = r"!-/:-@\[-`{-~"
_NAMED = {
    "Lower": "a-z", "Upper": "A-Z", "ASCII": r"\x00-\x7f", "Alpha": "a-zA-Z", "Digit": "0-9", "Alnum": "a-zA-Z0-9",
    "Punct": _PUNCTUATION, "Graph": "!-~", "Print": " -~", "Blank": r" \t", "Cntrl": r"\x00-\x1f\x7f",
    "XDigit": "0-9a-fA-F", "Space": r"\s",
}  # fmt: skip
_CONTROLS = {"t": 0x09, "n": 0x0A, "r": 0x0D, "f": 0x0C, "a": 0x07, "e": 0x1B}
_CODE = re.compile(r"x([0-9a-fA-F]{2})|x\{([0-9a-fA-F]{1,6})\}|u([0-9a-fA-F]{4})|0([0-3][0-7]{2}|[0-7]{1,2})")
_IS_NAMED = re.compile(r"([pP])\{(\w+)\}", re.ASCII)


class Reader:
    """A pattern and the place up to which it has been read."""

    def __init__(self, pattern: str) -> None:
        """Start at the beginning."""
        self.pattern = pattern
        self.at = 0

    def next(self, after: int = 0) -> str:
        """Return the next character, or one after it; '' at the end."""
        return self.pattern[self.at + after : self.at + after + 1]

    def take(self) -> str:
        """Return the next character and go on."""
        self.at += 1
        return self.pattern[self.at - 1 : self.at]

    def accept(self, text: str) -> bool:
        """Go on behind ``text`` if it comes next."""
        found = self.pattern.startswith(text, self.at)
        self.at += len(text) * found
        return found

    def match(self, expression: re.Pattern[str]) -> re.Match[str] | None:
        """Go on behind what the expression matches here."""
        found = expression.match(self.pattern, self.at)
        if found:
            self.at = found.end()
        return found


def character(code: int, ignore_case: bool) -> Characters:
    """Return the set of one character; Java's (?i) knows the letters of ASCII only."""
    return Characters(_range(code, code, ignore_case))


def read_escape(reader: Reader, ignore_case: bool) -> Characters | int:
    """Return the set, or the code of the one character, that a backslash and what follows stand for."""
    if found := reader.match(_CODE):
        octal = found[4]
        return int(octal, 8) if octal else int(found[1] or found[2] or found[3], 16)
    if found := reader.match(_IS_NAMED):
        if found[2] not in _NAMED or (ignore_case and found[2] in ("Lower", "Upper")):
            raise NotAllowed(rf"\{found[0]} is not allowed in a pattern: Java and Python know different characters")
        return Characters(_NAMED[found[2]], negated=found[1] == "P")
    symbol = reader.take()
    if symbol in _SHORT:
        return _SHORT[symbol]
    if symbol in _CONTROLS:
        return _CONTROLS[symbol]
    if not symbol or (symbol.isascii() and symbol.isalnum()):
        raise NotAllowed(rf"\{symbol} is not allowed in a pattern{_INSTEAD.get(symbol, '')}")
    return ord(symbol)


_INSTEAD = {"b": ": write (?<![A-Za-z0-9_]) or (?![A-Za-z0-9_])"}


def read_set(reader: Reader, ignore_case: bool) -> Characters:
    """Return the set that stands in brackets; the opening one has been read."""
    negated = reader.accept("^")
    if reader.next() == "]":
        raise NotAllowed(r"] as the first character of [...] is not allowed: write \]")
    parts, wide = [], False
    while not reader.accept("]"):
        if reader.next() == "[" or reader.pattern.startswith("&&", reader.at):
            raise NotAllowed(r"[ and && within [...] are not allowed in a pattern: write \[ and \&")
        one = _one(reader, ignore_case)
        if isinstance(one, Characters):
            if one.negated or (reader.next() == "-" and reader.next(1) != "]"):
                raise NotAllowed(r"\P, or a range that begins with a set, is not allowed within [...]")
            parts.append(one.inside)
            wide = wide or one.wide
        else:
            parts.append(_range(one, _end_of_range(reader, one, ignore_case), ignore_case))
    return Characters("".join(parts), wide, negated)


def _one(reader: Reader, ignore_case: bool) -> Characters | int:
    """Return the next item within brackets."""
    symbol = reader.take()
    if not symbol:
        raise NotAllowed("[ without ] is not allowed in a pattern")
    return read_escape(reader, ignore_case) if symbol == "\\" else ord(symbol)


def _end_of_range(reader: Reader, start: int, ignore_case: bool) -> int:
    """Return the last code of a range within brackets, the first one where there is no range."""
    if reader.next() != "-" or reader.next(1) == "]":
        return start
    reader.take()
    end = -1 if reader.next() in ("[", "-") else _one(reader, ignore_case)
    if isinstance(end, Characters) or end < start:
        raise NotAllowed("a range within [...] must go from one character to a later one")
    return end


def _range(start: int, end: int, ignore_case: bool) -> str:
    """Return what stands for a range between Python's brackets."""
    if end >= FIRST_HALF and (end > LARGEST or start < 0xE000):
        raise NotAllowed(
            "characters beyond U+FFFF, and ranges from below U+E000 to above, are not allowed in a pattern"
        )
    text = _escaped(start) if start == end else f"{_escaped(start)}-{_escaped(end)}"
    if ignore_case:
        letters = (chr(code) for code in range(start, min(end, 0x7F) + 1))
        text += "".join(letter.swapcase() for letter in letters if letter.isalpha())
    return text


def _escaped(code: int) -> str:
    """Return a character as it may stand anywhere in Python's brackets."""
    symbol = chr(code)
    return symbol if symbol.isascii() and symbol.isalnum() else f"\\u{code:04x}"
