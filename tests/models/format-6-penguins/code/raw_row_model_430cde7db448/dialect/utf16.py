"""Texts as Java holds them: a character beyond U+FFFF is two halves, each a character by itself."""

from __future__ import annotations

import array
import re

LARGEST = "\uffff"
_ALONE = re.compile("[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]")


def to_halves(text: str) -> str:
    """Return the text with two halves for each character beyond U+FFFF."""
    if text.isascii() or max(text) <= LARGEST:
        return text
    return "".join(map(chr, array.array("H", text.encode("utf-16"))[1:]))


def is_whole(text: str) -> bool:
    """Tell whether each half of the text stands with its other half."""
    return _ALONE.search(text) is None


def from_halves(text: str) -> str:
    """Return the text with whole characters; Java makes ? of a half without the other."""
    if text.isascii():
        return text
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    return whole.encode("utf-8", "replace").decode("utf-8")


def length(text: str) -> int:
    """Return the length of the text in halves."""
    return len(text) + (0 if text.isascii() else sum(character > LARGEST for character in text))
