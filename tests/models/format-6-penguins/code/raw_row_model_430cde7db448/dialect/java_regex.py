"""Java's regular expressions, written for Python's `re`: what both understand in the same way, all else is refused.

Three things make Java differ beside its syntax. It searches in UTF-16, so that a search may start within a character
beyond U+FFFF: what could match there is refused. It keeps what a group matched in a repetition that failed: the text of
such a group is refused. And what can match the empty text is not repeated in the same way.
A repetition of a group that varies, as (a|b)* or (a+)+, is refused too: Java goes a call deeper for each turn, up to
a stack overflow (java.util.regex.Pattern.Loop), and where turns are ambiguous both try each of the ways there are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from .entry import NotAllowed
from .java_characters import ANY, DOT, Characters, Reader, character, read_escape, read_set

_END = r"(?=(?:\r\n|(?<!\r)\n|[\r\u0085\u2028\u2029])?\Z)"
"""Java's $: the end, or the line end there."""
_QUOTED = re.compile(r"\\Q(.*?)(?:\\E|\Z)|\\.", re.DOTALL)
_FLAGS = re.compile(r"\(\?([is]+)\)")
_COUNT = re.compile(r"\{([0-9]{1,4})(,?)([0-9]{0,4})\}")
_NAME = re.compile(r"\(\?<([a-zA-Z][a-zA-Z0-9]*)>")
_REFERENCE = re.compile(r"\\(?:([1-9])(?![0-9])|k<([a-zA-Z][a-zA-Z0-9]*)>)")
_MOST = 1000
_MOST_TURNS = 10  # of a group that varies, in all of its repetitions within each other together
_ENDLESS = 3  # what has no small limit counts as so many turns: each turn around it multiplies the ways by the length
_DEEPEST = 30


@dataclass(frozen=True)
class Pattern:
    """A pattern of Java, ready to search in Python."""

    compiled: re.Pattern[str]
    names: dict[str, int]
    """The numbers of the groups that have names."""
    unclear: frozenset[int]
    """Groups whose text is not the same in Java."""
    empty: bool
    """Whether it can match the empty text."""
    looks_back: bool
    """Whether it asks what stands before it: ^, \\A or a look behind."""

    def group(self, number: int) -> int:
        """Return the number of a group whose text is wanted.

        Raises:
            NotAllowed: there is no such group, or its text is not the same in Java.
        """
        if not 0 <= number <= self.compiled.groups:
            raise NotAllowed(f"the pattern has no group {number}")
        if number in self.unclear:
            raise NotAllowed(
                f"the text of group {number} is not allowed: the group stands in a repetition or look ahead"
            )
        return number


def translate(pattern: str) -> Pattern:
    """Return the pattern for Python.

    Raises:
        NotAllowed: Java refuses the pattern, or may find something else than Python.
    """
    translator = _Translator(_QUOTED.sub(_unquoted, pattern))
    whole = translator.alternatives()
    if translator.reader.next():
        raise NotAllowed(") without ( is not allowed in a pattern")
    translator.check(whole)
    return Pattern(
        re.compile(whole.text, re.ASCII),
        translator.names,
        frozenset(translator.unclear),
        whole.empty,
        translator.starts or translator.looks_behind,
    )


def _unquoted(match: re.Match[str]) -> str:
    r"""Return \Q...\E as a pattern, and any other escape as it is."""
    if match[1] is None:
        return match[0]
    return "".join(c if c.isalpha() or not c.isascii() else f"\\x{ord(c):02x}" for c in match[1])


@dataclass(frozen=True)
class _Part:
    """A part of a pattern, in Python's syntax."""

    text: str
    empty: bool = False
    """Whether it can match the empty text."""
    characters: Characters | None = None
    """The set, if the part is one character."""
    varies: bool = False
    """Whether it can match in several ways, or texts of several lengths in UTF-16."""
    turns: int = 1  # how often what varies in it is repeated at most


def _joined(parts: list[_Part], glue: str, empty: bool, varies: bool = False) -> _Part:
    varies = varies or any(part.varies for part in parts)
    turns = max((part.turns for part in parts), default=1)
    return _Part(glue.join(part.text for part in parts), empty, varies=varies, turns=turns)


def _turns(part: _Part, most: int | None) -> int:
    """Return how often what varies in a part is repeated in all."""
    if part.characters or not part.varies or most == 1:
        return part.turns
    if most is None or most * part.turns > _MOST_TURNS:
        raise NotAllowed(
            f"a group with |, ?, +, *, {{1,2}} or \\1 in it, or with a character such as [^x] or ., can be repeated at "
            f"most {_MOST_TURNS} times in a pattern, {_MOST_TURNS // _ENDLESS} times with + or *; (a|b)* is [ab]*"
        )
    return most * part.turns


@dataclass
class _Translator:
    """Reads a pattern of Java from left to right."""

    pattern: str
    groups: int = 0
    closed: set[int] = field(default_factory=set)
    names: dict[str, int] = field(default_factory=dict)
    unclear: set[int] = field(default_factory=set)
    referred: set[int] = field(default_factory=set)
    wide: bool = False
    """Whether a character beyond U+FFFF can match outside a look ahead."""
    starts: bool = False
    """Whether the pattern has ^."""
    looks_behind: bool = False
    excludes_behind: bool = False
    looking: int = 0
    depth: int = 0

    def __post_init__(self) -> None:
        self.reader = Reader(self.pattern)
        flags = self.reader.match(_FLAGS)
        self.ignore_case = flags is not None and "i" in flags[1]
        self.dot = ANY if flags and "s" in flags[1] else DOT

    def check(self, whole: _Part) -> None:
        """Refuse what can be judged only when all has been read."""
        if self.referred & self.unclear:
            raise NotAllowed("a reference to a group in a repetition or look ahead is not allowed in a pattern")
        if self.excludes_behind and (self.wide or whole.empty):
            raise NotAllowed(
                "(?<!...) is not allowed where the pattern can match the empty text or any character: [^x], \\D, ."
            )

    def alternatives(self) -> _Part:
        """Read up to the end of the group or pattern."""
        self.depth += 1
        if self.depth > _DEEPEST:
            raise NotAllowed(f"a pattern with more than {_DEEPEST} groups within each other is not allowed")
        parts = [self._sequence()]
        while self.reader.accept("|"):
            parts.append(self._sequence())
        self.depth -= 1
        return _joined(parts, "|", any(part.empty for part in parts), varies=len(parts) > 1)

    def _sequence(self) -> _Part:
        parts = []
        while self.reader.next() not in ("", "|", ")"):
            groups = self.groups
            parts.append(self._repeated(self._atom(), groups))
        return _joined(parts, "", all(part.empty for part in parts))

    def _atom(self) -> _Part:
        reader = self.reader
        if found := reader.match(_REFERENCE):
            return self._reference(found)
        symbol = reader.take()
        if symbol == "(":
            reader.at -= 1
            return self._group()
        if symbol == "[":
            return self._characters(read_set(reader, self.ignore_case))
        if symbol == ".":
            return self._characters(self.dot)
        if symbol == "^" or (symbol == "\\" and reader.accept("A")):
            if self.looking:
                raise NotAllowed("^ in a look ahead is not allowed in a pattern")
            self.starts = True
            return _Part(r"\A", empty=True)
        if symbol == "$" or (symbol == "\\" and reader.accept("Z")):
            return _Part(_END, empty=True)
        if symbol == "\\":
            if reader.accept("z"):
                return _Part(r"\Z", empty=True)
            found_set = read_escape(reader, self.ignore_case)
            return self._characters(found_set if isinstance(found_set, Characters) else self._one(found_set))
        if symbol in "*+?{":
            raise NotAllowed(f"{symbol} must follow what it repeats: write \\{symbol} for the character")
        return self._characters(self._one(ord(symbol)))

    def _one(self, code: int) -> Characters:
        return character(code, self.ignore_case)

    def _characters(self, characters: Characters) -> _Part:
        self.wide = self.wide or characters.holds_wide
        return _Part(str(characters), characters=characters, varies=characters.holds_wide)

    def _reference(self, found: re.Match[str]) -> _Part:
        number = int(found[1]) if found[1] else self.names.get(found[2], 0)
        if number not in self.closed or self.ignore_case:
            raise NotAllowed(f"{found[0]} must name a group that stands before it, in a pattern without (?i)")
        self.referred.add(number)
        return _Part(f"(?:\\{number})", empty=True, varies=True)

    def _group(self) -> _Part:
        reader = self.reader
        for opening, ahead in (("(?=", True), ("(?!", True), ("(?<=", False), ("(?<!", False)):
            if reader.accept(opening):
                return self._lookaround(opening, ahead)
        if reader.accept("(?:"):
            return self._closed("(?:", self.alternatives())
        if reader.accept("(?>"):
            groups = self.groups
            part = self._closed("(?>", self.alternatives())
            self.unclear |= set(range(groups + 1, self.groups + 1))
            return part
        named = reader.match(_NAME)
        if not named:
            reader.take()
            if reader.next() == "?":
                raise NotAllowed("(? is allowed in a pattern as (?: (?= (?! (?<= (?<! (?> (?<name>, and (?i) in front")
        self.groups += 1
        number = self.groups
        part = self._closed("(", self.alternatives())
        if named:
            if named[1] in self.names:
                raise NotAllowed(f"two groups named {named[1]} are not allowed in a pattern")
            self.names[named[1]] = number
        self.closed.add(number)
        return part

    def _closed(self, opening: str, inner: _Part) -> _Part:
        if not self.reader.accept(")"):
            raise NotAllowed("( without ) is not allowed in a pattern")
        return replace(inner, text=f"{opening}{inner.text})", characters=None)

    def _lookaround(self, opening: str, ahead: bool) -> _Part:
        """Read a look ahead or behind, which matches no character itself."""
        wide, groups = self.wide, self.groups
        self.looking += 1
        inner = self.alternatives() if ahead else self._behind(opening == "(?<!")
        self.looking -= 1
        self.wide = wide
        self.unclear |= set(range(groups + 1, self.groups + 1))
        return _Part(self._closed(opening, inner).text, empty=True)

    def _behind(self, excluded: bool) -> _Part:
        """Read what must stand before a place, or must not: single characters."""
        self.looks_behind = True
        self.excludes_behind = self.excludes_behind or excluded
        parts = []
        while self.reader.next() not in ("", ")"):
            parts.append(part := self._atom())
            if part.characters is None or self.reader.next() in ("*", "+", "?", "{", "|"):
                raise NotAllowed("a look behind is allowed for single characters only, as (?<!\\d) or (?<=id=)")
        wide = any(part.characters and part.characters.holds_wide for part in parts)
        if not parts or (wide and (excluded or len(parts) > 1)):
            raise NotAllowed("a look behind for any character, as [^x] or \\D or ., is not allowed")
        return _Part("".join(part.text for part in parts))

    def _repeated(self, part: _Part, groups: int) -> _Part:
        """Read how often a part is repeated; ``groups`` is the number of groups before it."""
        reader = self.reader
        symbol = reader.next()
        if not symbol or symbol not in "*+?{":
            return part
        least, most, text = self._count()
        mode = reader.take() if reader.next() in ("?", "+") and reader.next() else ""
        if part.empty:
            raise NotAllowed("what can match the empty text cannot be repeated in a pattern")
        if part.characters is None:
            if mode == "+":
                raise NotAllowed("a possessive repetition of a group is not allowed in a pattern")
            if (least, most) != (0, 1):
                self.unclear |= set(range(groups + 1, self.groups + 1))
        is_endless = most is None or most > _MOST_TURNS > least
        varies, turns = part.varies or least != most, max(_turns(part, most), _ENDLESS if is_endless else 1)
        return _Part(f"{part.text}{text}{mode}", least == 0, varies=varies, turns=turns)

    def _count(self) -> tuple[int, int | None, str]:
        """Return the least and the largest number of repetitions, and how Python writes them."""
        reader = self.reader
        if found := reader.match(_COUNT):
            least = int(found[1])
            most = int(found[3]) if found[3] else None if found[2] else least
            if (found[3] and not found[2]) or max(least, most or 1) > _MOST or most == 0 or (most or least) < least:
                raise NotAllowed(f"{found[0]} is not allowed in a pattern: the counts must lie between 1 and {_MOST}")
            return least, most, f"{{{least},{'' if most is None else most}}}"
        symbol = reader.take()
        if symbol == "{":
            raise NotAllowed("{ must begin a count as {2} or {1,3} in a pattern: write \\{ for the character")
        return {"*": (0, None, "*"), "+": (1, None, "+"), "?": (0, 1, "?")}[symbol]
