"""JSON texts cut into tokens, as Spark's parser (Jackson 2.15) reads them.

It allows single quotes and control characters within quotes. It stops at the end of the first list or object: what
follows is not read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .utf16 import to_halves

_SPACES = re.compile(r"[ \t\r\n]*")
_QUOTED = {
    quote: re.compile(rf"{quote}([^{quote}\\]*(?:\\(?:u.{{4}}|[\"\\/bfnrt'])[^{quote}\\]*)*){quote}", re.DOTALL)
    for quote in "\"'"
}
_ESCAPE = re.compile(r"\\(?:u(.{4})|(.))", re.DOTALL)
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE][+-]?([0-9]+))?")
_WORD = re.compile("true|false|null")
_CONTROLS = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r"}
_HEXADECIMAL = frozenset(b"0123456789abcdefABCDEF")
_DEEPEST = 1000
_MOST_DIGITS = 1000
LONGEST = 20_000_000
"""The most halves of UTF-16 that Jackson takes in a name, and in a text if it looks into it."""
_CLOSING = {"[": "]", "{": "}"}


@dataclass(slots=True)
class Token:
    """One token: `[`, `]`, `{`, `}`, `name`, `text`, `number` or `word`."""

    kind: str
    text: str = ""
    """What it says: a name or text without quotes and escapes, a number or a word as it is written."""
    end: int = 0
    """Of an opening token: the index of the closing one."""


class BrokenError(Exception):
    """The text is not JSON."""


def tokens_of(text: str) -> list[Token]:
    """Return the tokens of the list or object that a text begins with, none if it is another value.

    Names and texts are in halves of UTF-16.

    Raises:
        BrokenError: Jackson refuses the text.
    """
    return _Cutter(to_halves(text)).tokens()


class _Cutter:
    """Cuts a text from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._tokens: list[Token] = []
        self._open: list[int] = []

    def tokens(self) -> list[Token]:
        if self._next() not in _CLOSING:
            return []
        self._value()
        while self._open:
            opening = self._tokens[self._open[-1]]
            first = self._tokens[-1] is opening
            symbol = self._next()
            if symbol == _CLOSING[opening.kind]:
                opening.end = len(self._tokens)
                self._tokens.append(Token(symbol))
                self._open.pop()
                self._at += 1
                continue
            if not first:
                self._expect(",")
            if opening.kind == "{":
                name = self._quoted()
                if len(name) > LONGEST:
                    raise BrokenError
                self._tokens.append(Token("name", name))
                self._expect(":")
            self._value()
        return self._tokens

    def _next(self) -> str:
        """Return the next character that is no space, '' at the end."""
        self._at = self._match(_SPACES).end()
        return self._text[self._at : self._at + 1]

    def _expect(self, symbol: str) -> None:
        if self._next() != symbol:
            raise BrokenError
        self._at += 1

    def _match(self, expression: re.Pattern[str]) -> re.Match[str]:
        match = expression.match(self._text, self._at)
        if match is None:
            raise BrokenError
        self._at = match.end()
        return match

    def _value(self) -> None:
        symbol = self._next()
        if symbol in _CLOSING:
            self._open.append(len(self._tokens))
            self._tokens.append(Token(symbol))
            self._at += 1
            if len(self._open) > _DEEPEST:
                raise BrokenError
        elif symbol in _QUOTED:
            self._tokens.append(Token("text", self._quoted()))
        elif symbol == "-" or symbol.isdecimal():
            self._tokens.append(Token("number", self._number()))
        else:
            self._tokens.append(Token("word", self._match(_WORD)[0]))

    def _number(self) -> str:
        match = self._match(_NUMBER)
        whole, *others = match.groups()
        # behind a 0, Jackson counts a part that lacks as -1
        lacking = -1 if whole == "0" and any(others) else 0
        if len(whole) + sum(len(part) if part else lacking for part in others) > _MOST_DIGITS:
            raise BrokenError
        return match[0]

    def _quoted(self) -> str:
        """Return a text in quotes without quotes and escapes."""
        quote = self._next()
        if quote not in _QUOTED:
            raise BrokenError
        inside = self._match(_QUOTED[quote])[1]
        return _ESCAPE.sub(_unescaped, inside) if "\\" in inside else inside


def _unescaped(match: re.Match[str]) -> str:
    if match[1] is None:
        return _CONTROLS.get(match[2], match[2])
    # Jackson looks at the lowest 8 bits of each character
    digits = bytes(ord(character) & 0xFF for character in match[1])
    if not _HEXADECIMAL.issuperset(digits):
        raise BrokenError
    return chr(int(digits, 16))
