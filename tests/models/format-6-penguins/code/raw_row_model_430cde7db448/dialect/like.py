"""LIKE: texts compared with a pattern of literal characters, `_` for any character and `%` for any characters."""

from __future__ import annotations

import re

from .entry import Function, NotAllowed, entry, literal_of, takes, written
from .letters import lower
from .tree import Node

_EDGE = "the pattern is a literal; the whole text must match, and _ stands for any one character, line ends too"


@entry("Like", "like: text LIKE 'pattern' ESCAPE 'c'", edge=_EDGE)
def _like(node: Node) -> Function:
    takes(node, "string", "string")
    pattern = _pattern(node)
    if pattern is None:
        return lambda text, pattern: None
    matches = re.compile(_expression(pattern, node.setting("escapeChar", "\\")), re.DOTALL).fullmatch
    return lambda text, pattern: matches(text) is not None


written("ilike: text ILIKE 'pattern'", edge=f"{_EDGE}; both are compared in small letters")


def _pattern(node: Node) -> str | None:
    """Return the pattern: a literal, or a literal in small letters, as ILIKE has it."""
    small = node.arguments[1].op == "Lower"
    pattern: str | None = (
        literal_of(node.arguments[1], 0, "the pattern") if small else literal_of(node, 1, "the pattern")
    )
    return lower(pattern) if small and pattern is not None else pattern


def _expression(pattern: str, escape: str) -> str:
    """Return the regular expression of a pattern.

    Each `%` takes as little as it can and keeps it: what follows then has most room to match, so to try again is in
    vain. The last `%` takes what is left.
    """
    parts = [""]
    characters = iter(pattern)
    for character in characters:
        if character > "\uffff":
            raise NotAllowed("a pattern with characters beyond U+FFFF is not allowed")
        if character == escape:
            character = next(characters, "")
            if character not in ("_", "%", escape) or not character:
                raise NotAllowed(f"the escape character {escape!r} must precede _, % or itself")
            parts[-1] += re.escape(character)
        elif character == "%":
            parts.append("")
        else:
            parts[-1] += "." if character == "_" else re.escape(character)
    first, *middle = parts
    if not middle:
        return first
    *middle, last = middle
    return first + "".join(f"(?>.*?{part})" for part in middle if part) + ".*" + last
