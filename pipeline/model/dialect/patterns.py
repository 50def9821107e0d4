"""Functions with regular expressions."""

from __future__ import annotations

import re
from re import Match, Pattern

from .entry import Function, NotAllowed, entry, literal_of, takes, written
from .java_regex import can_be_empty, compiled
from .tree import Node


def pattern_of(node: Node, position: int) -> Pattern[str] | None:
    """Return an argument that must be a literal pattern; None for NULL."""
    takes(node, "string", "string")
    text = literal_of(node, position, "the pattern")
    return None if text is None else compiled(text)


def repeated_pattern_of(node: Node, position: int) -> Pattern[str] | None:
    """Return a pattern that is searched again and again.

    Between two searches for nothing Java goes on by half a character where it is beyond U+FFFF, so that such a pattern
    is refused.
    """
    pattern = pattern_of(node, position)
    if pattern is not None and can_be_empty(pattern.pattern, pattern.flags):
        raise NotAllowed("does not take a pattern that may fit nothing")
    return pattern


def _null(*arguments: object) -> None:
    return None


@entry("RLike", "rlike: text RLIKE pattern", "regexp: text REGEXP pattern", "regexp_like(text, pattern)",
       edge="of Java's patterns what means the same in Python; the rest is refused by name")  # fmt: skip
def _rlike(node: Node) -> Function:
    pattern = pattern_of(node, 1)
    if pattern is None:
        return _null
    return lambda text, _: pattern.search(text) is not None


@entry(
    "RegExpExtract", "regexp_extract(text, pattern, group)", edge="'' where nothing fits, or the group takes no part"
)
def _extract(node: Node) -> Function:
    pattern, group = pattern_of(node, 1), literal_of(node, 2, "the group")
    if pattern is None or group is None:
        return _null
    _check_group(pattern, group)

    def extract(text: str, *_: object) -> str:
        match = pattern.search(text)
        return (match[group] or "") if match else ""

    return extract


@entry("RegExpExtractAll")
def _extract_all(node: Node) -> Function:
    pattern, group = repeated_pattern_of(node, 1), literal_of(node, 2, "the group")
    if pattern is None or group is None:
        return _null
    _check_group(pattern, group)
    return lambda text, *_: [match[group] or "" for match in pattern.finditer(text)]


def _check_group(pattern: Pattern[str], group: int) -> None:
    if not 0 <= group <= pattern.groups:
        raise NotAllowed(f"has no group {group} in its pattern")


@entry("RegExpReplace", "regexp_replace(text, pattern, replacement)", edge="$1 is a group, \\ makes a letter plain")
def _replace(node: Node) -> Function:
    pattern, replacement = repeated_pattern_of(node, 1), literal_of(node, 2, "the replacement")
    start = literal_of(node, 3, "the position")
    if pattern is None or replacement is None or start is None:
        return _null
    if start != 1:
        raise NotAllowed("begins at position 1 only")
    parts = _replacement_parts(replacement, pattern)

    def replaced(match: Match[str]) -> str:
        return "".join(part if isinstance(part, str) else match[part] or "" for part in parts)

    return lambda text, *_: pattern.sub(replaced, text)


def _replacement_parts(replacement: str, pattern: Pattern[str]) -> list[str | int]:
    """Return the literal pieces and the groups of a replacement, as Java's Matcher reads it."""
    parts: list[str | int] = []
    position = 0
    while position < len(replacement):
        rest = replacement[position:]
        if rest[0] == "\\" and len(rest) > 1:
            parts.append(rest[1])
            position += 2
        elif rest[0] == "$" and (match := re.match(r"\$(\d+)", rest, re.ASCII)):
            digits = match[1][:1]
            if int(digits) > pattern.groups:
                raise NotAllowed(f"has no group {digits} in its pattern")
            while len(digits) < len(match[1]) and int(match[1][: len(digits) + 1]) <= pattern.groups:
                digits = match[1][: len(digits) + 1]
            parts.append(int(digits))
            position += 1 + len(digits)
        elif rest[0] in "\\$":
            raise NotAllowed(f"does not take '{rest[:2]}' in its replacement")
        else:
            parts.append(rest[0])
            position += 1
    return parts


@entry("RegExpInStr", "regexp_instr(text, pattern)", edge="0 where nothing fits")
def _position(node: Node) -> Function:
    pattern = pattern_of(node, 1)
    if pattern is None:
        return _null

    def find(text: str, *_: object) -> int:
        match = pattern.search(text)
        return match.start() + 1 if match else 0

    return find


written("regexp_count(text, pattern)")
written("regexp_substr(text, pattern)", null="NULL if an argument is NULL, or nothing fits")
