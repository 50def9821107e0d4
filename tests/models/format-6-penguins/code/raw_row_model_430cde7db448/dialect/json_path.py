"""Values read from JSON texts by a path."""

from __future__ import annotations

import math
import re

from .entry import Function, NotAllowed, entry, literal_of, takes
from .java_numbers import double_to_text
from .json_tokens import LONGEST, BrokenError, Token, tokens_of
from .tree import Node
from .utf16 import from_halves, is_whole, to_halves

_STEP = re.compile(r"\.([^\s.\[\]'\"?*]+)|\['([^\s'?*][^'?*]*)'\]|\[([0-9]{1,9})\]", re.ASCII)
_ESCAPED = re.compile(r'["\\\x00-\x1f\ud800-\udfff]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
_MOST_STEPS = 100

Step = str | int


@entry("GetJsonObject", "get_json_object(text, path)",
       null="NULL if an argument is NULL, the text is no JSON, or nothing is there, or null under a name",
       edge="the path is a literal of names and indices, as $.a[0]['b']; lists and objects are written without spaces, "
            "numbers with a point as DOUBLE")  # fmt: skip
def _get(node: Node) -> Function:
    takes(node, "string", "string")
    path = literal_of(node, 1, "the path")
    if path is None:
        return lambda text, path: None
    steps = _steps(path)

    def get(text: str, _path: str) -> str | None:
        try:
            tokens = tokens_of(text)
        except BrokenError:
            return None
        found = _find(tokens, 0, steps) if tokens else None
        return None if found is None else _printed(tokens, found)

    return get


def _steps(path: str) -> list[Step]:
    """Return the names and indices of a path."""
    steps: list[Step] = []
    at = 1
    while match := _STEP.match(path, at):
        name = match[1] or match[2]
        steps.append(int(match[3]) if name is None else to_halves(name))
        at = match.end()
    if not path.startswith("$") or at < len(path) or not steps:
        raise NotAllowed(f"the path {path!r} is not allowed: write names and indices, as $.a[0]['b']")
    if len(steps) > _MOST_STEPS:
        raise NotAllowed(f"a path of more than {_MOST_STEPS} names and indices is not allowed")
    return steps


def _find(tokens: list[Token], at: int, steps: list[Step]) -> int | None:
    """Return the index of the token that the path leads to from the value at ``at``."""
    if not steps:
        return at
    value, step = tokens[at], steps[0]
    if value.kind == "[" and isinstance(step, int):
        inner = at + 1
        for _ in range(step):
            if inner == value.end:
                return None
            inner = _behind(tokens, inner)
        return None if inner == value.end else _find(tokens, inner, steps[1:])
    if value.kind != "{" or isinstance(step, int):
        return None
    name = at + 1
    while name != value.end:
        if tokens[name].text == step and not _is_null(tokens[name + 1]):
            found = _find(tokens, name + 1, steps[1:])
            if found is not None:  # else the same name may come again
                return found
        name = _behind(tokens, name + 1)
    return None


def _is_null(token: Token) -> bool:
    return token.kind == "word" and token.text == "null"


def _behind(tokens: list[Token], at: int) -> int:
    """Return the index behind a value."""
    return (tokens[at].end or at) + 1


def _printed(tokens: list[Token], at: int) -> str | None:
    """Return a value as text: a text as it is, and all else as JSON; NULL if Jackson cannot write the value."""
    value = tokens[at : (tokens[at].end or at) + 1]
    if any(token.kind == "text" and len(token.text) > LONGEST for token in value):
        return None
    if tokens[at].kind == "text":
        # Of two second halves in a row, Spark writes bytes that are not UTF-8. No text here can hold them: it is NULL.
        return from_halves(tokens[at].text) if is_whole(tokens[at].text) else None
    parts, before = [], ""
    for token in value:
        if before not in ("", "[", "{", "name") and token.kind not in ("]", "}"):
            parts.append(",")
        parts.append(_json(token))
        before = token.kind
    return "".join(parts)


def _json(token: Token) -> str:
    """Return a token as Jackson writes it."""
    if token.kind == "number":
        return _number(token.text)
    if token.kind == "word":
        return token.text
    if token.kind in ("name", "text"):
        return f'"{_ESCAPED.sub(_escape, token.text)}"' + (":" if token.kind == "name" else "")
    return token.kind


def _escape(match: re.Match[str]) -> str:
    return _SHORT.get(match[0]) or f"\\u{ord(match[0]):04X}"


def _number(text: str) -> str:
    if not set(text) & set(".eE"):
        return "0" if text == "-0" else text
    value = float(text)
    printed = double_to_text(value)
    return printed if math.isfinite(value) else f'"{printed}"'
