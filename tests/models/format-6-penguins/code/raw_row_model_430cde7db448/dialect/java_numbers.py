"""DOUBLE and FLOAT as text, printed and read as Java 17 does.

Java 17 does not always print the shortest digits that name a number: it compares sums in numbers of 32 or 64 bits where
these hold them, prints at least two digits in front of an exponent, and measures the distance to the next lower number
by the one to the next higher. The results here are the same, digit by digit.
"""

from __future__ import annotations

import math
import re
import struct
from decimal import Decimal
from fractions import Fraction

from .types import to_float32, wrap

BLANKS = "".join(map(chr, range(33)))
"""What Java's String.trim takes away."""
_DECIMAL = re.compile(r"[+-]?(?:NaN|Infinity|(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?[fFdD]?)", re.ASCII)
_HEXADECIMAL = re.compile(
    r"(([+-]?)0[xX](?:([\da-fA-F]+)\.?|([\da-fA-F]*)\.([\da-fA-F]+))[pP]([+-]?\d+))[fFdD]?", re.ASCII
)
_MOST_EXACT_FIVES = 26
"""Java knows how many bits the powers of 5 have up to this one, and estimates three for each 5 beyond."""


# ---- printed --------------------------------------------------------------------------------------------------------


def double_to_text(value: float) -> str:
    """Return Java's Double.toString."""
    return _to_text(value, 53, -1074)


def float_to_text(value: float) -> str:
    """Return Java's Float.toString of a number that a float32 holds."""
    return _to_text(value, 24, -149)


def _to_text(value: float, precision: int, lowest: int) -> str:
    if math.isnan(value):
        return "NaN"
    sign = "-" if math.copysign(1.0, value) < 0 else ""
    if math.isinf(value):
        return f"{sign}Infinity"
    digits, point = _digits(abs(value), precision, lowest) if value else ("0", 1)
    if 0 < point < 8:
        return f"{sign}{digits[:point].ljust(point, '0')}.{digits[point:] or '0'}"
    if -3 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    return f"{sign}{digits[0]}.{digits[1:] or '0'}E{point - 1}"


def _digits(value: float, precision: int, lowest: int) -> tuple[str, int]:
    """Return Java's digits of a positive number, and how many of them stand before the point.

    ``precision`` is the number of bits of the type, ``lowest`` the exponent of its smallest number.
    """
    fraction, exponent = math.frexp(value)
    exponent -= 1
    precision = min(precision, exponent - lowest + 1)
    odd = int(fraction * 2**53)
    odd //= odd & -odd
    if value.is_integer() and exponent <= 62:
        return _digits_of_whole(int(value), exponent - precision - 1)
    return _digits_of_fraction(odd, exponent, precision, _estimate(fraction, exponent))


def _digits_of_whole(value: int, spare_bits: int) -> tuple[str, int]:
    """Return the digits of a whole number, rounded where its spare bits make digits, without zeros at the end."""
    unit: int = 10 ** (len(str(2**spare_bits)) - 1) if spare_bits > 1 else 1
    text = str((value + unit // 2) // unit * unit)
    return text.rstrip("0"), len(text)


def _estimate(fraction: float, exponent: int) -> int:
    """Return Java's estimate of the decimal exponent, which is right or one too high."""
    return math.floor((fraction * 2 - 1.5) * 0.289529654 + 0.176091259 + exponent * 0.301029995663981)


def _digits_of_fraction(odd: int, exponent: int, precision: int, point: int) -> tuple[str, int]:
    """Return the digits of a number by long division, until what is left is less than half of the last bit.

    ``odd`` holds the bits of the number without the zeros behind them, ``point`` is its decimal exponent.
    """
    rest, divisor, half, width = _scaled(odd, exponent, precision, point)
    digits, low, high = "", False, False
    while not (low or high):
        digit, rest = divmod(rest, divisor)
        rest *= 10
        half = wrap(half * 10, width) if width else half * 10
        if not width:
            low, high = rest < half, rest + half >= 10 * divisor
        elif half > 0:
            low, high = rest < half, wrap(rest + half, width) > 10 * divisor
        else:
            # the half does not fit any more, so it is more than what is left
            low = high = True
        if digits:
            digits += str(digit)
            continue
        if digit or high:
            digits = str(digit)
        else:
            point -= 1
            digits = " "
        if not -3 <= point < 8:
            # in front of an exponent stand two digits at least
            low = high = False
    digits = digits.strip()
    if high and (not low or 2 * rest > 10 * divisor or (2 * rest == 10 * divisor and int(digits[-1]) % 2)):
        raised = str(int(digits) + 1).zfill(len(digits))
        point += len(raised) - len(digits)
        digits = raised[: len(digits)]
    return digits, point + 1


def _scaled(odd: int, exponent: int, precision: int, point: int) -> tuple[int, int, int, int]:
    """Return number, divisor and half of the last bit as whole numbers, and the bits of the type Java holds them in.

    The number divided by the divisor is the first digit. The bits are 32 or 64, 0 for numbers of any size.
    """
    behind = max(0, odd.bit_length() - exponent - 1)
    fives, fives_below = max(0, -point), max(0, point)
    twos, twos_below = fives + behind + exponent - odd.bit_length() + 1, fives_below + behind
    twos_of_half = fives + behind + exponent - precision - (odd == 1)
    spare = min(twos, twos_below)
    least = min(0, twos_of_half - spare)
    twos, twos_below, twos_of_half = twos - spare - least, twos_below - spare - least, twos_of_half - spare - least
    largest = max(odd.bit_length() + twos + _bits_of_fives(fives), twos_below + 1 + _bits_of_fives(fives_below + 1))
    width = 32 if largest < 32 else 64 if largest < 64 else 0
    return odd * 5**fives << twos, 5**fives_below << twos_below, 5**fives << twos_of_half, width


def _bits_of_fives(fives: int) -> int:
    """Return how many bits Java counts for a power of 5."""
    if fives == 0:
        return 0
    bits: int = (5**fives).bit_length() if fives <= _MOST_EXACT_FIVES else 3 * fives
    return bits


# ---- read -----------------------------------------------------------------------------------------------------------


def parse_double(text: str) -> float | None:
    """Return Java's Double.parseDouble, None where it raises an error."""
    text = text.strip(BLANKS)
    if _DECIMAL.fullmatch(text):
        return float(text.rstrip("fFdD"))
    if (match := _HEXADECIMAL.fullmatch(text)) is None:
        return None
    try:
        return float.fromhex(match[1])
    except OverflowError:
        return -math.inf if text[0] == "-" else math.inf


def parse_float(text: str) -> float | None:
    """Return Java's Float.parseFloat, None where it raises an error."""
    nearest = parse_double(text)
    if nearest is None or not math.isfinite(nearest) or not nearest:
        return nearest
    text = text.strip(BLANKS)
    match = _HEXADECIMAL.fullmatch(text)
    return rounded_once(nearest, Decimal(text.rstrip("fFdD")) if match is None else _exact(match))


def _exact(match: re.Match[str]) -> Fraction:
    """Return the exact value of a hexadecimal number, which is no larger than a double can be."""
    _, sign, whole, before, behind, exponent = match.groups(default="")
    number = Fraction(int(f"{sign}{whole}{before}{behind}", 16), 16 ** len(behind))
    twos = int(exponent.lstrip("+-").lstrip("0") or "0")
    factor = Fraction(1, 2**twos) if exponent[0] == "-" else Fraction(2**twos)
    return number * factor


def rounded_once(nearest: float, exact: int | Decimal | Fraction) -> float:
    """Return the float32 nearest to an exact number, of which ``nearest`` is the nearest double.

    A double with an odd last bit never lies half way between two float32, so the neighbour with an odd last bit on the
    number's side rounds as the number itself does.
    """
    if math.isfinite(nearest) and nearest != exact and struct.pack("<d", nearest)[0] % 2 == 0:
        nearest = math.nextafter(nearest, math.inf if nearest < exact else -math.inf)
    return to_float32(nearest)
