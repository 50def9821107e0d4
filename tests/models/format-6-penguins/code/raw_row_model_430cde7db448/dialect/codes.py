"""Characters and numbers as codes: their numbers, digits of base 2 and 16, likeness of sound and of spelling."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

from .entry import Function, NotAllowed, entry, literal_of, takes
from .tree import Node
from .types import DECIMALS, WHOLE, decimal_type

_SOUNDS = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "01230127022455012623017202", strict=True))
_MOST_DIGITS = 100


@entry("Ascii", "ascii(text)", edge="the first character's code point, 0 if the text is empty")
def _ascii(node: Node) -> Function:
    takes(node, "string")
    return lambda text: ord(text[0]) if text else 0


@entry("Chr", "chr(number)", "char(number)", edge="only the lowest 8 bits count; empty for a negative number")
def _chr(node: Node) -> Function:
    takes(node, "bigint")
    return lambda number: chr(number & 255) if number >= 0 else ""


@entry("Hex", "hex(a)", edge="of a text its bytes in UTF-8; of a negative number 16 digits, two's complement")
def _hex(node: Node) -> Function:
    takes(node, ("bigint", "string", "binary"))
    if node.arguments[0].type == "bigint":
        return lambda number: f"{number % 2**64:X}"
    if node.arguments[0].type == "string":
        return lambda text: text.encode().hex().upper()
    return lambda value: value.hex().upper()


@entry("Bin", "bin(number)", edge="of a negative number 64 digits, two's complement")
def _bin(node: Node) -> Function:
    takes(node, "bigint")
    return lambda number: f"{number % 2**64:b}"


@entry("SoundEx", "soundex(text)", edge="the text itself if it does not begin with a letter of A to Z")
def _soundex(node: Node) -> Function:
    takes(node, "string")

    def soundex(text: str) -> str:
        letters = [character.upper() if character.isascii() else "-" for character in text]
        if not letters or letters[0] not in _SOUNDS:
            return text
        code, last = letters[0], _SOUNDS[letters[0]]
        for letter in letters[1:]:
            sound = _SOUNDS.get(letter)
            if sound == "7":  # H and W: the sounds before and after count as neighbours
                continue
            if sound not in (None, "0", last):
                code += str(sound)
            last = sound or "0"
        return f"{code:0<4.4}"

    return soundex


@entry("Levenshtein", "levenshtein(a, b, threshold)",
       edge="counts characters; -1 if the distance is larger than the threshold, a literal from 0 up")  # fmt: skip
def _levenshtein(node: Node) -> Function:
    takes(node, "string", "string", "int")
    if len(node.arguments) == 2:
        return _distance
    threshold = literal_of(node, 2, "the threshold")
    if threshold is not None and threshold < 0:
        raise NotAllowed("a negative threshold is not allowed")

    def limited(one: str, other: str, most: int) -> int:
        distance = _distance(one, other)
        return distance if distance <= most else -1

    return limited


def _distance(one: str, other: str) -> int:
    """Return how many characters must be changed, added or removed to make one text the other."""
    row = list(range(len(other) + 1))
    for i, character in enumerate(one):
        above, row = row, [i + 1]
        for j, partner in enumerate(other):
            row.append(min(above[j] + (character != partner), above[j + 1] + 1, row[j] + 1))
    return row[-1]


@entry("FormatNumber", "format_number(number, digits)", null="NULL if an argument is NULL, or digits negative",
       edge=f"of whole numbers and DECIMAL; ties become even; digits is a literal up to {_MOST_DIGITS}")  # fmt: skip
def _format_number(node: Node) -> Function:
    kind = node.arguments[0].type
    takes(node, None, "int")
    if kind not in WHOLE and decimal_type(kind) is None:
        raise NotAllowed(f"is not allowed for {kind.upper()}: cast to DECIMAL first")
    digits = literal_of(node, 1, "the number of digits")
    if digits is None or digits < 0:
        return lambda number, digits: None
    if digits > _MOST_DIGITS:
        raise NotAllowed(f"the number of digits must be at most {_MOST_DIGITS}")
    unit = Decimal((0, (1,), -digits))
    return lambda number, digits: f"{Decimal(number).quantize(unit, ROUND_HALF_EVEN, DECIMALS):,f}"
