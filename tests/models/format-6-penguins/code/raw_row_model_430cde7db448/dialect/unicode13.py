"""Letters and kinds of characters as Java 17 knows them: Unicode 13, where Python 3.11 knows Unicode 14."""

from __future__ import annotations

import re
import unicodedata

_NEWER = """
61d 870-88e 890-891 898-89f 8b5 8c8-8d2 c3c c5d cdd 170d 1715 171f 180f 1ac1-1ace 1b4c 1b7d-1b7e 1dfa 20c0 2c2f 2c5f
2e53-2e5d 9ffd-9fff a7c0-a7c1 a7d0-a7d1 a7d3 a7d5-a7d9 a7f2-a7f4 fbc2 fd40-fd4f fdcf fdfe-fdff 10570-1057a 1057c-1058a
1058c-10592 10594-10595 10597-105a1 105a3-105b1 105b3-105b9 105bb-105bc 10780-10785 10787-107b0 107b2-107ba 10f70-10f89
11070-11075 110c2 116b9 11740-11746 11ab0-11abf 12f90-12ff2 16a70-16abe 16ac0-16ac9 1aff0-1aff3 1aff5-1affb 1affd-1affe
1b11f-1b122 1cf00-1cf2d 1cf30-1cf46 1cf50-1cfc3 1d1e9-1d1ea 1df00-1df1e 1e290-1e2ae 1e7e0-1e7e6 1e7e8-1e7eb 1e7ed-1e7ee
1e7f0-1e7fe 1f6dd-1f6df 1f7f0 1f979 1f9cc 1fa7b-1fa7c 1faa9-1faac 1fab7-1faba 1fac3-1fac5 1fad7-1fad9 1fae0-1fae7
1faf0-1faf6 2a6de-2a6df 2b735-2b738
"""
"""The code points that Unicode 14 has and Unicode 13 lacks."""
_ENDS = [tuple(chr(int(end, 16)) for end in part.split("-")) for part in _NEWER.split()]
_NEWER_CHARACTER = re.compile("([" + "".join("-".join(ends) for ends in _ENDS) + "])")
_OTHER_CATEGORY = {"\u1734": "Mn"}
"""The code points that both have, in different categories."""


def category(character: str) -> str:
    """Return the general category, as `Lu`; `Cn` for what Unicode 13 lacks."""
    if _NEWER_CHARACTER.match(character):
        return "Cn"
    return _OTHER_CATEGORY.get(character) or unicodedata.category(character)


def upper(text: str) -> str:
    """Return what Java's String.toUpperCase returns."""
    if text.isascii() or not _NEWER_CHARACTER.search(text):
        return text.upper()
    parts = _NEWER_CHARACTER.split(text)
    return "".join(part if i % 2 else part.upper() for i, part in enumerate(parts))


def lower(text: str) -> str:
    """Return what Java's String.toLowerCase returns, for a text without the capital sigma."""
    if text.isascii() or not _NEWER_CHARACTER.search(text):
        return text.lower()
    parts = _NEWER_CHARACTER.split(text)
    return "".join(part if i % 2 else part.lower() for i, part in enumerate(parts))


def title(character: str) -> str:
    """Return what Java's Character.toTitleCase returns for a char: one char, which never stands for several.

    Java sees a character beyond U+FFFF as two chars, and a half of it has no title case.
    """
    if character > "\uffff" or _NEWER_CHARACTER.match(character):
        return character
    titled = character.title()
    return titled if len(titled) == 1 else character
