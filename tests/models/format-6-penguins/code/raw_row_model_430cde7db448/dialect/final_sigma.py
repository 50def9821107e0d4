"""The small letter of the Greek capital sigma: ς at the end of a word, σ elsewhere.

Java looks for letters before and after the sigma up to the boundaries of the word, as java.text.BreakIterator finds
them. Python looks for them by the rule of the Unicode standard, so the results differ, as for "A1Σ". Java's
rules for words are facts about Java 17; they are stated here as regular expressions over the kinds of characters.
"""

from __future__ import annotations

import re
from functools import lru_cache

from .unicode13 import category

SIGMA, SMALL, SMALL_FINAL = "Σ", "σ", "ς"

_KINDS = {
    "D": "\u0964-\u0965",  # dandas, the full stops of Devanagari
    "K": "\u3005\u4e00-\u9fa5\uf900-\ufa2d",  # kanji
    "T": "\u30a1-\u30fa\u30fd\u30fe",  # katakana
    "H": "\u3041-\u3094\u309d\u309e",  # hiragana
    "C": "\u309b\u309c\u30fb\u30fc",  # marks that both kana take
    ".": ".",  # in words, in numbers, and before numbers
    '"': "\"'",  # in words and in numbers
    ",": ",\u066b",  # in numbers
    "_": "\u00ad\u2027",  # in words
    "$": "#",  # before numbers
    "%": "\u00a2%\u066a\u2030\u2031&",  # after numbers
    "n": "\n\u000c\u2028\u2029",  # ends of lines
    "r": "\r",
    "s": "\t",  # white space
    "c": "\uffff",  # Java's sign for the end of a text
    # Java's tables of the characters beyond U+FFFF are wrong where some ranges end.
    "o": "\U000110bd\U000110cd\U00013438\U0001bca3\U0001d17a\U000e0001\U000e007f",
    "L": "\U00018cd6-\U00018cff\U0002a6de-\U0002a6ff\U0002b735-\U0002b73f\U0002b81e-\U0002b81f"
    "\U0002cea2-\U0002ceaf\U0002fa1e-\U0002ffff",
}
_KIND_OF_CATEGORY = {
    "Cf": "I",  # ignored
    "Mn": "E", "Me": "E",  # joined to what stands before
    "Pd": "_", "Pc": "_", "Sc": "$", "Zs": "s", "Cc": "c", "Zl": "c", "Zp": "c",
}  # fmt: skip
_KIND_OF_CHARACTER = [(kind, re.compile(f"[{characters}]")) for kind, characters in _KINDS.items()]
_OTHER_CASED = re.compile("[\u02b0-\u02b8\u02c0\u02c1\u02e0-\u02e4\u0345\u037a\u1d2c-\u1d61\u2160-\u217f\u24b6-\u24e9]")


@lru_cache(maxsize=4096)
def _kind(character: str) -> str:
    """Return the letter that stands for the kind of the character in the rules."""
    general = category(character)
    for kind, characters in _KIND_OF_CHARACTER:
        if characters.match(character):
            return kind
    if general[0] == "L" or general == "Mc":
        return "L"
    return "N" if general[0] == "N" else _KIND_OF_CATEGORY.get(general, "o")


def _rules() -> list[re.Pattern[str]]:
    """Return the rules: the longest match of one of them is a word."""

    def one(kinds: str) -> str:
        return f"[{kinds}]I*"

    marks = f"(?:{one('E')})*"
    letters, digits = (f"(?:{one(kind)}{marks})+" for kind in "LN")
    word = f"(?:{letters}(?:{one('._' + chr(34))}{letters})*(?:{one('D')})?)"
    number = f"(?:{digits}(?:{one('.,' + chr(34))}{digits})*)"
    run = f"(?:{number}{word})*(?:{number}(?:{one('%')})?)?"
    return [
        re.compile(rule)
        for rule in (
            "I*.I*",
            f"I*{word}?{run}",
            f"I*{one('.$')}{run}",
            f"I*(?:{one('s')}{marks})*(?:{one('r')})?(?:{one('n')})?",
            f"I*(?:{one('TC')})*",
            f"I*(?:{one('HC')})*",
            f"I*(?:{one('K')})*",
            f"I*[^EIc]I*(?:{one('E')})+",
        )
    ]


_RULES = _rules()


def _words(text: str) -> list[tuple[int, int]]:
    """Return where the words, and what stands between them, begin and end."""
    kinds = "".join(map(_kind, text))
    words, begin = [], 0
    while begin < len(text):
        end = max((match.end() for rule in _RULES if (match := rule.match(kinds, begin))), default=begin + 1)
        words.append((begin, max(end, begin + 1)))
        begin = words[-1][1]
    return words


def _is_cased(character: str) -> bool:
    return category(character) in ("Lu", "Ll", "Lt") or _OTHER_CASED.match(character) is not None


def _stops_after(text: str, i: int) -> bool:
    """Tell whether Java takes the place after a character for a boundary, inside a word too.

    It does so after a character of two chars, unless a text begins there: it starts to look between the two.
    """
    return text[i] > "\uffff" and i > 0 and text[i - 1] != "\uffff"


def _is_final(text: str, sigma: int, begin: int, end: int) -> bool:
    """Tell whether a letter stands before the sigma and none behind it, as far as the word goes."""
    i = sigma - 1
    while i >= begin and not _stops_after(text, i) and not _is_cased(text[i]):
        i -= 1
    if i < begin or _stops_after(text, i):
        return False
    for i in range(sigma + 1, end):
        if _is_cased(text[i]):
            return False
        if _stops_after(text, i):
            break
    return True


def lower_sigmas(text: str) -> str:
    """Return the text with its capital sigmas, and only these, made small as Java does it."""
    result = list(text)
    for begin, end in _words(text):
        for i in range(begin, end):
            if text[i] == SIGMA:
                result[i] = SMALL_FINAL if _is_final(text, i, begin, end) else SMALL
    return "".join(result)
