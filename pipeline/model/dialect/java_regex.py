"""Java's regular expressions in Python's words: the part of the syntax that means the same in both.

Python's flag ASCII makes its classes those of Java. What differs is written otherwise
(`.`, `$`, `^`) or refused by name.
"""

from __future__ import annotations

import re
import string
import warnings
from re import Pattern

from .entry import NotAllowed

_LINE_END = r"\n\r\u0085\u2028\u2029"
_ANY = f"[^{_LINE_END}]"
# at the end of the text, or before the line's end that ends it, but not between \r and \n
_END = r"(?=(?:\r\n|(?<!\r)\n|[\r\u0085\u2028\u2029])?\Z)"
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "a": "\a", "e": "\x1b"}
_CLASSES = "dDwWsS"
_POSIX = {
    "Lower": "a-z", "Upper": "A-Z", "ASCII": r"\x00-\x7f", "Alpha": "a-zA-Z", "Digit": "0-9", "Alnum": "a-zA-Z0-9",
    "Punct": re.escape(string.punctuation), "Graph": r"\x21-\x7e", "Print": r"\x20-\x7e", "Blank": r" \t",
    "Cntrl": r"\x00-\x1f\x7f", "XDigit": "0-9a-fA-F", "Space": r" \t\n\x0b\f\r",
}  # fmt: skip
_QUANTIFIER = re.compile(r"(?:[?*+]|\{(\d+)(,(\d*))?\})[?+]?", re.ASCII)
_GROUPS = ("(?:", "(?=", "(?!", "(?>")


def compiled(pattern: str) -> Pattern[str]:
    """Return Python's regular expression with the meaning that Java gives to ``pattern``.

    Raises:
        NotAllowed: the two may differ, or Java does not accept the pattern.
    """
    translation = _Translation(pattern)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return re.compile(translation.text, translation.flags)
    except (re.error, Warning, OverflowError, RecursionError) as error:
        raise NotAllowed(f"does not understand the pattern '{pattern}': {error}") from None


def can_be_empty(pattern: str, flags: int = re.ASCII) -> bool:
    """Tell whether a pattern, in Python's words, may fit a text of no length."""
    return bool(re._parser.parse(pattern, flags).getwidth()[0] == 0)  # type: ignore[attr-defined]


class _Translation:
    """One pattern, read from left to right."""

    def __init__(self, pattern: str) -> None:
        self._pattern, self._position = pattern, 0
        self.flags = re.ASCII
        self._groups = 0
        if any(ord(character) > 0xFFFF for character in pattern):
            raise NotAllowed("does not take a character beyond U+FFFF in a pattern")
        if pattern.startswith("(?i)"):
            self.flags |= re.IGNORECASE
            self._position = 4
        self.text = self._alternatives()
        if self._position < len(pattern):
            raise NotAllowed(f"does not understand the pattern '{pattern}': a parenthesis is not opened")

    def _rest(self) -> str:
        return self._pattern[self._position :]

    def _alternatives(self) -> str:
        """Read up to the end or a closing parenthesis."""
        text = ""
        while self._position < len(self._pattern) and self._pattern[self._position] != ")":
            if self._pattern[self._position] == "|":
                self._position += 1
                text += "|"
            else:
                text += self._quantified()
        return text

    def _quantified(self) -> str:
        atom, can_repeat = self._atom()
        match = _QUANTIFIER.match(self._pattern, self._position)
        if match is None:
            return atom
        if not can_repeat:
            raise NotAllowed("does not take a quantifier behind ^, $ or a lookahead")
        self._position = match.end()
        repeats = not match[0].startswith("?") and not (match[1] in ("0", "1") and not match[2])
        if repeats and atom.startswith("(") and can_be_empty(atom, self.flags):
            raise NotAllowed("does not take a repetition of a group that may be empty")
        return atom + match[0]

    def _atom(self) -> tuple[str, bool]:
        """Return the next part, and whether a quantifier may follow."""
        character = self._pattern[self._position]
        if character == "(":
            return self._group()
        if character == "[":
            return self._class(), True
        if character == "\\":
            return self._escape()
        self._position += 1
        match character:
            case ".":
                return _ANY, True
            case "^":
                return r"\A", False
            case "$":
                return _END, False
            case "*" | "+" | "?" | "{":
                raise NotAllowed(f"does not understand '{character}' at this place of a pattern")
        return re.escape(character), True

    def _group(self) -> tuple[str, bool]:
        rest, opening, can_repeat = self._rest(), "(", True
        if rest.startswith("(?"):
            named = re.match(r"\(\?<([a-zA-Z][a-zA-Z0-9]*)>", rest, re.ASCII)
            if named:
                opening, length = f"(?P<{named[1]}>", named.end()
                self._groups += 1
            elif rest[:3] in _GROUPS:
                opening, length = rest[:3], 3
                can_repeat = rest[:3] not in ("(?=", "(?!")
            else:
                raise NotAllowed(f"does not take '{rest[:4]}' in a pattern")
        else:
            length = 1
            self._groups += 1
        self._position += length
        inside = self._alternatives()
        if self._position >= len(self._pattern):
            raise NotAllowed("does not understand the pattern: a parenthesis is not closed")
        self._position += 1
        return f"{opening}{inside})", can_repeat

    def _escape(self) -> tuple[str, bool]:
        """Read an escape outside a class."""
        rest = self._rest()
        if rest.startswith(r"\Q"):
            text, end, _ = rest[2:].partition(r"\E")
            self._position += 2 + len(text) + len(end)
            return ("(?:" + re.escape(text) + ")" if text else ""), len(text) == 1
        following = rest[1:2]
        if following in ("A", "z"):
            self._position += 2
            return {"A": r"\A", "z": r"\Z"}[following], False
        if following.isdigit() and following != "0":
            if self.flags & re.IGNORECASE or int(following) > self._groups or rest[2:3].isdigit():
                raise NotAllowed(f"does not take the reference '{rest[:3]}' in a pattern")
            self._position += 2
            return f"(?:\\{following})", True
        text = self._character_or_class()
        return (f"[{text}]" if len(text) > 1 and not text.startswith("\\") else text), True

    def _character_or_class(self) -> str:
        """Read an escape that is allowed inside a class, too; return it as Python writes it inside a class."""
        rest = self._rest()
        following = rest[1:2]
        if following in _CONTROLS:
            self._position += 2
            return re.escape(_CONTROLS[following])
        if following and following in _CLASSES:
            self._position += 2
            return f"\\{following}"
        if match := re.match(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4}))", rest):
            self._position += match.end()
            code = int(match[1] or match[2], 16)
            if 0xD800 <= code < 0xE000:
                raise NotAllowed("does not take half of a surrogate pair in a pattern")
            return re.escape(chr(code))
        if match := re.match(r"\\p\{(?:Is)?(\w+)\}", rest, re.ASCII):
            if match[1] not in _POSIX or "Is" in match[0] or self.flags & re.IGNORECASE:
                raise NotAllowed(f"does not take '{match[0]}' in a pattern")
            self._position += match.end()
            return _POSIX[match[1]]
        if following and (following in string.punctuation or following == " "):
            self._position += 2
            return re.escape(following)
        raise NotAllowed(f"does not take '{rest[:2]}' in a pattern")

    def _class(self) -> str:
        """Read a class in brackets."""
        rest = self._rest()
        negated = rest.startswith("[^")
        self._position += 2 if negated else 1
        text, first = "", True
        while True:
            here = self._rest()[:1]
            if not here:
                raise NotAllowed("does not understand the pattern: a bracket is not closed")
            if here == "]" and not first:
                self._position += 1
                return f"[{'^' if negated else ''}{text}]"
            if here in "[]" or self._rest().startswith("&&"):
                raise NotAllowed("does not take brackets or && within brackets of a pattern")
            text += self._class_item()
            first = False

    def _class_item(self) -> str:
        """Read one character, class or range within brackets."""
        start = self._class_character()
        rest = self._rest()
        if not rest.startswith("-") or rest[1:2] in ("]", ""):
            return start
        if rest[1:2] == "[" or len(start.lstrip("\\")) != 1 or (start[0] == "\\" and start[-1] in _CLASSES):
            raise NotAllowed("does not take such a range within brackets of a pattern")
        self._position += 1
        end = self._class_character()
        if len(end.lstrip("\\")) != 1 or (end[0] == "\\" and end[-1] in _CLASSES):
            raise NotAllowed("does not take such a range within brackets of a pattern")
        return f"{start}-{end}"

    def _class_character(self) -> str:
        character = self._pattern[self._position]
        if character == "\\":
            if self._rest().startswith((r"\Q", r"\E")):
                raise NotAllowed("does not take a quotation within brackets of a pattern")
            return self._character_or_class()
        self._position += 1
        return re.escape(character) if character.isascii() else character
