"""Text made of text: joined, cut at its ends, replaced, filled up, repeated."""

from __future__ import annotations

from typing import Any

from .entry import NULL_IN_NULL_OUT, Function, NotAllowed, entry, literal_of, takes
from .tree import Node
from .types import element_type, wrap

LONGEST = 10_000
"""The largest literal that says how long a text becomes, or how often it is repeated."""
_ONLY_SPACES = "without characters to remove, only spaces (U+0020) are removed, no other white space"


def _literal_count(node: Node, position: int, what: str) -> int | None:
    """Return a literal count, no larger than :data:`LONGEST`."""
    count: int | None = literal_of(node, position, what)
    if count is not None and count > LONGEST:
        raise NotAllowed(f"{what} must be at most {LONGEST}")
    return count


@entry("Concat", "concat(a, b, …)", "||: a || b")
def _concat(node: Node) -> Function:
    if node.type == "string":
        return lambda *parts: "".join(parts)
    if node.type == "binary":
        return lambda *parts: b"".join(parts)
    if element_type(node.type) is not None:
        return lambda *parts: [item for part in parts for item in part]
    raise NotAllowed(f"is not allowed for {node.type.upper()}")


@entry("ConcatWs", "concat_ws(separator, a, b, …)", strict=False,
       null="NULL if the separator is; other NULLs are left out", edge="an ARRAY stands for its elements")  # fmt: skip
def _concat_ws(node: Node) -> Function:
    takes(node, *[("string", "array<string>")] * len(node.arguments))

    def join(separator: str | None, *parts: Any) -> str | None:
        if separator is None:
            return None
        texts = [text for part in parts for text in (part if isinstance(part, list) else [part])]
        return separator.join(text for text in texts if text is not None)

    return join


@entry("StringTrim", "trim(text)", "btrim(text, characters)", edge=_ONLY_SPACES)
def _trim(node: Node) -> Function:
    takes(node, "string", "string")
    return lambda text, characters=" ": text.strip(characters)


@entry("StringTrimLeft", "ltrim(text)", edge=_ONLY_SPACES)
def _trim_left(node: Node) -> Function:
    takes(node, "string", "string")
    return lambda text, characters=" ": text.lstrip(characters)


@entry("StringTrimRight", "rtrim(text)", edge=_ONLY_SPACES)
def _trim_right(node: Node) -> Function:
    takes(node, "string", "string")
    return lambda text, characters=" ": text.rstrip(characters)


@entry("StringReplace", "replace(text, search, replacement)", edge="nothing is replaced if search is empty")
def _replace(node: Node) -> Function:
    takes(node, "string", "string", "string")
    return lambda text, search, replacement: text.replace(search, replacement) if search else text


@entry("StringTranslate", "translate(text, from, to)",
       edge="characters of from that have no partner in to, or U+0000, are removed")  # fmt: skip
def _translate(node: Node) -> Function:
    takes(node, "string", "string", "string")

    def translate(text: str, given: str, wanted: str) -> str:
        table: dict[int, str] = {}
        for i, character in enumerate(given):
            table.setdefault(ord(character), wanted[i].replace("\0", "") if i < len(wanted) else "")
        return text.translate(table)

    return translate


@entry("StringRepeat", "repeat(text, count)", edge=f"the count is a literal up to {LONGEST}; empty for 0 and below")
def _repeat(node: Node) -> Function:
    takes(node, "string", "int")
    _literal_count(node, 1, "the count")
    if any(below.op == "StringRepeat" for below in node.arguments[0].walk()):
        raise NotAllowed("within itself is not allowed: the text may become too long")
    return lambda text, count: text * count


@entry("StringSpace", "space(count)", edge=f"the count is a literal up to {LONGEST}; empty for 0 and below")
def _space(node: Node) -> Function:
    takes(node, "int")
    _literal_count(node, 0, "the count")
    return lambda count: " " * count


def _filling(text: str, length: int, filling: str) -> str:
    """Return what a text lacks to be so long."""
    missing = length - len(text)
    return (filling * (missing // len(filling) + 1))[:missing] if missing > 0 and filling else ""


_PADDED = f"a longer text is cut to the length, from its beginning; the length is a literal up to {LONGEST}"


@entry("StringLPad", "lpad(text, length, filling)", edge=_PADDED)
def _pad_left(node: Node) -> Function:
    takes(node, "string", "int", "string")
    _literal_count(node, 1, "the length")
    return lambda text, length, filling: _filling(text, length, filling) + text[: max(length, 0)]


@entry("StringRPad", "rpad(text, length, filling)", edge=_PADDED)
def _pad_right(node: Node) -> Function:
    takes(node, "string", "int", "string")
    _literal_count(node, 1, "the length")
    return lambda text, length, filling: text[: max(length, 0)] + _filling(text, length, filling)


@entry("Reverse", "reverse(text)", edge="characters are reversed one by one, combining ones too")
def _reverse(node: Node) -> Function:
    if node.type != "string" and element_type(node.type) is None:
        raise NotAllowed(f"is not allowed for {node.type.upper()}")
    return lambda value: value[::-1]


@entry("Overlay", "overlay(text, replacement, position, length)",
       edge="positions count from 1; the length of the replacement stands for a length below 0")  # fmt: skip
def _overlay(node: Node) -> Function:
    takes(node, "string", "string", "int", "int")

    def overlay(text: str, replacement: str, position: int, length: int) -> str:
        behind = wrap(position + (length if length >= 0 else len(replacement)), 32)
        return substring(text, 1, wrap(position - 1, 32)) + replacement + substring(text, behind, 2**31 - 1)

    return overlay


def substring(text: str, position: int, length: int) -> str:
    """Return part of a text; positions count from 1, or from the end if they are negative."""
    start = position - 1 if position > 0 else len(text) + position if position < 0 else 0
    return text[max(start, 0) : max(start + length, 0)]


@entry("Elt", "elt(index, a, b, …)", null="NULL if the index or the chosen value is NULL, or if there is no such value",
       strict=False)  # fmt: skip
def _elt(node: Node) -> Function:
    takes(node, "int", *["string"] * (len(node.arguments) - 1))
    return lambda index, *values: values[index - 1] if index is not None and 1 <= index <= len(values) else None


@entry(
    "StringSplitSQL", "split_part(text, separator, number)", edge="'' if there is no such part", null=NULL_IN_NULL_OUT
)
def _split(node: Node) -> Function:
    takes(node, "string", "string")
    return lambda text, separator: text.split(separator) if separator else [text]
