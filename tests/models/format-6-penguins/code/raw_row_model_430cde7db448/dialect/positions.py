"""Places in a text: parts by position, searching, lengths. Positions and lengths count characters (code points)."""

from __future__ import annotations

from .entry import Function, NotAllowed, entry, literal_of, takes, written
from .text import substring
from .tree import Node

_FROM_ONE = "positions count from 1; 0 if it is not there"
_SUBSTRING = "position 0 is the first character as 1 is; a negative one counts from the end"


@entry("Substring", "substring(text, position, length)", "substr(text, position, length)", edge=_SUBSTRING)
def _substring(node: Node) -> Function:
    takes(node, "string", "int", "int")
    return substring


written("left(text, length)", edge="empty if the length is 0 or below")
written("right(text, length)", edge="empty if the length is 0 or below")


@entry("SubstringIndex", "substring_index(text, separator, count)",
       edge="the count is a literal; separators may overlap; the whole text if there are fewer")  # fmt: skip
def _substring_index(node: Node) -> Function:
    takes(node, "string", "string", "int")
    wanted = literal_of(node, 2, "the count")
    if wanted == -(2**31):
        raise NotAllowed(f"the count {wanted} fails in Spark")

    def part(text: str, separator: str, count: int) -> str:
        if not separator or not count:
            return ""
        place = -1 if count > 0 else len(text) - len(separator) + 1
        for _ in range(abs(count)):
            if count > 0:
                place = text.find(separator, place + 1)
            else:
                place = text.rfind(separator, 0, place - 1 + len(separator)) if place > 0 else -1
            if place < 0:
                return text
        return text[:place] if count > 0 else text[place + len(separator) :]

    return part


@entry("StringInstr", "instr(text, search)", edge=f"{_FROM_ONE}; 1 if search is empty")
def _instr(node: Node) -> Function:
    takes(node, "string", "string")
    return lambda text, search: text.find(search) + 1


@entry("StringLocate", "locate(search, text, start)", "position: position(search IN text)", strict=False,
       null="NULL if search or text is NULL; 0 if the start is", edge=f"{_FROM_ONE}; 1 if search is empty")  # fmt: skip
def _locate(node: Node) -> Function:
    takes(node, "string", "string", "int")

    def locate(search: str | None, text: str | None, start: int | None) -> int | None:
        if start is None:
            return 0
        if search is None or text is None:
            return None
        if start < 1:
            return 0
        return text.find(search, start - 1) + 1 if search else 1

    return locate


@entry("FindInSet", "find_in_set(value, list)", edge=f"the list is one text, with commas; {_FROM_ONE}")
def _find_in_set(node: Node) -> Function:
    takes(node, "string", "string")

    def find(value: str, listed: str) -> int:
        values = listed.split(",")
        return values.index(value) + 1 if value in values else 0

    return find


@entry("Contains", "contains(text, search)", edge="true if search is empty")
def _contains(node: Node) -> Function:
    takes(node, "string", "string")
    return lambda text, search: search in text


@entry("StartsWith", "startswith(text, search)", edge="true if search is empty")
def _starts_with(node: Node) -> Function:
    takes(node, "string", "string")
    return lambda text, search: text.startswith(search)


@entry("EndsWith", "endswith(text, search)", edge="true if search is empty")
def _ends_with(node: Node) -> Function:
    takes(node, "string", "string")
    return lambda text, search: text.endswith(search)


@entry("Length", "length(text)", "char_length(text)", "character_length(text)", "len(text)",
       edge="counts code points, spaces at the end too; the bytes of BINARY")  # fmt: skip
def _length(node: Node) -> Function:
    takes(node, ("string", "binary"))
    return len


def _bytes(value: str | bytes) -> int:
    return len(value.encode() if isinstance(value, str) else value)


@entry("OctetLength", "octet_length(text)", edge="counts the bytes of UTF-8, or of BINARY")
def _octet_length(node: Node) -> Function:
    takes(node, ("string", "binary"))
    return _bytes


@entry("BitLength", "bit_length(text)", edge="eight for each byte of UTF-8, or of BINARY")
def _bit_length(node: Node) -> Function:
    takes(node, ("string", "binary"))
    return lambda value: 8 * _bytes(value)
