"""Functions that search in a text by a regular expression."""

from __future__ import annotations

import re
from collections.abc import Callable

from .entry import Function, NotAllowed, entry, literal_of, takes, written
from .java_regex import Pattern, translate
from .tree import Node
from .utf16 import from_halves, length, to_halves

_SYNTAX = "the pattern is a literal in Java's syntax"
_NO_EMPTY = f"{_SYNTAX} and must not match the empty text"
_REFERENCE = re.compile(r"\$(?:\{([a-zA-Z][a-zA-Z0-9]*)\}|([0-9]+))")


def _pattern(node: Node, *, empty: bool = True) -> Pattern | None:
    """Return the pattern, the second argument; ``empty`` tells whether it may match the empty text."""
    takes(node, "string", "string")
    text = literal_of(node, 1, "the pattern")
    if text is None:
        return None
    pattern = translate(text)
    if pattern.empty and not empty:
        raise NotAllowed(f"the pattern {text!r} can match the empty text: write + instead of *")
    return pattern


def _never(*arguments: object) -> None:
    """Return NULL: an argument is a NULL literal."""


@entry("RLike", "rlike: text RLIKE 'pattern'", "regexp: text REGEXP 'pattern'", "regexp_like(text, pattern)",
       edge=f"{_SYNTAX}; true if it matches anywhere in the text")  # fmt: skip
def _rlike(node: Node) -> Function:
    pattern = _pattern(node)
    if pattern is None:
        return _never
    search = pattern.compiled.search
    return lambda text, pattern: search(text) is not None


def _group(node: Node, pattern: Pattern) -> int | None:
    """Return the number of the group that is wanted, the third argument."""
    number = literal_of(node, 2, "the group")
    return None if number is None else pattern.group(number)


@entry("RegExpExtract", "regexp_extract(text, pattern, group)",
       edge=f"{_SYNTAX}; '' if it does not match; the group is a literal")  # fmt: skip
def _extract(node: Node) -> Function:
    pattern = _pattern(node)
    group = None if pattern is None else _group(node, pattern)
    if pattern is None or group is None:
        return _never
    search = pattern.compiled.search

    def extract(text: str, _pattern: str, _number: int) -> str:
        match = search(text)
        return (match[group] or "") if match else ""

    return extract


written("regexp_substr(text, pattern)", null="NULL if an argument is NULL, or the pattern does not match", edge=_SYNTAX)


@entry("RegExpExtractAll", "regexp_extract_all(text, pattern, group)", edge=f"{_NO_EMPTY}; the group is a literal")
def _extract_all(node: Node) -> Function:
    pattern = _pattern(node, empty=False)
    group = None if pattern is None else _group(node, pattern)
    if pattern is None or group is None:
        return _never
    matches = pattern.compiled.finditer
    return lambda text, pattern, number: [match[group] or "" for match in matches(text)]


written("regexp_count(text, pattern)", edge=_NO_EMPTY)


@entry("RegExpInStr", "regexp_instr(text, pattern)",
       edge=f"{_SYNTAX}; 0 if it does not match; characters beyond U+FFFF count as two")  # fmt: skip
def _position(node: Node) -> Function:
    pattern = _pattern(node)
    if pattern is None:
        return _never
    search = pattern.compiled.search

    def position(text: str, _pattern: str, _number: int) -> int:
        match = search(text)
        return length(text[: match.start()]) + 1 if match else 0

    return position


# ---- replaced -------------------------------------------------------------------------------------------------------


@entry("RegExpReplace", "regexp_replace(text, pattern, replacement, position)",
       edge=f"{_NO_EMPTY}; in the replacement, a literal, $1 stands for a group and \\$ for a dollar sign")  # fmt: skip
def _replace(node: Node) -> Function:
    pattern = _pattern(node, empty=False)
    replacement = literal_of(node, 2, "the replacement")
    position = literal_of(node, 3, "the position")
    if pattern is None or replacement is None or position is None:
        return _never
    piece, compiled = _replacement(replacement, pattern), pattern.compiled
    if position == 1:
        return lambda text, pattern, replacement, position: compiled.sub(piece, text)
    if pattern.looks_back:
        raise NotAllowed("a position other than 1 is not allowed where the pattern has ^ or a look behind")
    return lambda text, pattern, replacement, position: _replace_from(position - 1, text, compiled, piece)


def _replacement(text: str, pattern: Pattern) -> Callable[[re.Match[str]], str]:
    """Return what makes the replacement of a match from Java's syntax."""
    parts: list[str | int] = []
    at = 0
    while at < len(text):
        if text[at] == "\\" and at + 1 < len(text):
            parts.append(text[at + 1])
            at += 2
        elif found := _REFERENCE.match(text, at):
            name, digits = found.groups()
            number = pattern.names.get(name, -1) if name else int(digits[0])
            used = 1
            # Java takes further digits as long as there is such a group
            while digits and used < len(digits) and number * 10 + int(digits[used]) <= pattern.compiled.groups:
                number = number * 10 + int(digits[used])
                used += 1
            parts.append(pattern.group(number))
            at = found.end() if name else at + 1 + used
        elif text[at] in "\\$":
            raise NotAllowed(f"{text[at]} in the replacement must precede a character or a group: write \\{text[at]}")
        else:
            parts.append(text[at])
            at += 1
    if not any(isinstance(part, int) for part in parts):
        fixed = "".join(map(str, parts))
        return lambda match: fixed
    return lambda match: "".join(part if isinstance(part, str) else match[part] or "" for part in parts)


def _replace_from(start: int, text: str, compiled: re.Pattern[str], piece: Callable[[re.Match[str]], str]) -> str:
    """Replace from a place on, which counts characters beyond U+FFFF as two and may lie within one."""
    if start >= length(text):
        return text
    halves = to_halves(text)
    if "\udc00" <= halves[start] <= "\udfff":
        before = from_halves(halves[: start - 1]) + halves[start - 1]
        text = before + halves[start] + from_halves(halves[start + 1 :])
    else:
        before = from_halves(halves[:start])
    pieces, at = [before], len(before)
    for match in compiled.finditer(text, at):
        pieces += [text[at : match.start()], piece(match)]
        at = match.end()
    return from_halves("".join(pieces) + text[at:])


# ---- split ----------------------------------------------------------------------------------------------------------


@entry("StringSplit", "split(text, pattern, limit)",
       edge=f"{_SYNTAX}; '' splits into characters; empty texts at the end are kept")  # fmt: skip
def _split(node: Node) -> Function:
    takes(node, "string", "string", "int")
    if literal_of(node, 1, "the pattern") == "":
        return _split_into_characters
    pattern = _pattern(node, empty=False)
    if pattern is None:
        return _never
    matches = pattern.compiled.finditer

    def split(text: str, _pattern: str, limit: int) -> list[str]:
        parts: list[str] = []
        start = 0
        for match in matches(text):
            if len(parts) == limit - 1:
                break
            parts.append(text[start : match.start()])
            start = match.end()
        return [*parts, text[start:]]

    return split


def _split_into_characters(text: str, pattern: str, limit: int) -> list[str]:
    if not text:
        return [""]
    return list(text)[:limit] if limit > 0 else list(text)
