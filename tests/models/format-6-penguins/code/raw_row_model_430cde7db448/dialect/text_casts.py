"""Casts between text and BOOLEAN, numbers and BINARY."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal

from . import decimals
from .casts import cast, is_try
from .entry import Function, NotAllowed, entry
from .java_numbers import BLANKS, double_to_text, float_to_text, parse_double, parse_float
from .number_casts import size_of
from .tree import COLUMN, LITERAL, Node
from .types import WHOLE, fits, literal_value, wrap

_BLANKS_OF_SPARK = BLANKS + "\x7f"
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_CUT = re.compile(r"([+-]?\d*)(?:\.\d*)?", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(?:\d+(?:\.(\d*))?|\.(\d+))(?:[eE]([+-]?\d+))?")
_LONGEST_WHOLE = 19
_LONGEST_EXPONENT = 10
_LARGEST_DECIMAL = 38
_BOOLEANS = {
    **dict.fromkeys(("t", "true", "y", "yes", "1"), True),
    **dict.fromkeys(("f", "false", "n", "no", "0"), False),
}
_INFINITE = {f"{sign}{word}": float(f"{sign}inf") for sign in ("", "+", "-") for word in ("inf", "infinity")}
_SPECIAL = {**_INFINITE, "nan": float("nan")}


# ---- from text ------------------------------------------------------------------------------------------------------


@cast("string", "boolean")
def _text_to_boolean(node: Node) -> Function:
    return lambda text: _BOOLEANS.get(text.strip(_BLANKS_OF_SPARK).lower())


@cast("string", tuple(WHOLE))
def _text_to_whole(node: Node) -> Function:
    kind, tried = node.type, is_try(node)

    def to_whole(text: str) -> int | None:
        text = text.strip(_BLANKS_OF_SPARK)
        match = (_WHOLE if tried else _CUT).fullmatch(text)
        if match is None or text in ("", "+", "-"):
            return None
        digits = text.split(".")[0].lstrip("+-").lstrip("0") or "0"
        if len(digits) > _LONGEST_WHOLE:
            return None
        value = -int(digits) if text[0] == "-" else int(digits)
        return value if fits(value, kind) else None

    return to_whole


def _with_special_words(parse: Callable[[str], float | None]) -> Function:
    def to_number(text: str) -> float | None:
        value = parse(text)
        return _SPECIAL.get(text.strip(BLANKS).lower()) if value is None else value

    return to_number


@cast("string", "double")
def _text_to_double(node: Node) -> Function:
    return _with_special_words(parse_double)


@cast("string", "float")
def _text_to_float(node: Node) -> Function:
    return _with_special_words(parse_float)


@cast("string", "decimal")
def _text_to_decimal(node: Node) -> Function:
    precision, scale = size_of(node)

    def to_decimal(text: str) -> Decimal | None:
        value = _parse_decimal(text)
        return None if value is None else decimals.fitted(value, precision, scale)

    return to_decimal


def _parse_decimal(text: str) -> Decimal | None:
    """Return the number that Java's BigDecimal reads, None if it has more than 38 digits before the point."""
    text = text.strip(BLANKS)
    match = _DECIMAL.fullmatch(text)
    # Java knows no digits beyond U+FFFF
    if match is None or (not text.isascii() and max(text) > "\uffff"):
        return None
    behind, only_behind, exponent_text = match.groups()
    exponent = 0
    if exponent_text is not None:
        digits = exponent_text.lstrip("+-")
        while len(digits) > _LONGEST_EXPONENT and int(digits[0]) == 0:
            digits = digits[1:]
        if len(digits) > _LONGEST_EXPONENT:
            return None
        exponent = -int(digits) if exponent_text[0] == "-" else int(digits)
    scale = len(behind or only_behind or "") - exponent
    if not fits(exponent, "int") or not fits(scale, "int"):
        return None
    value = Decimal(text)
    # Spark counts with 32 bits. Near the exponent 2^31 it ends with an error, here the value is NULL; so it does far
    # below the exponent -600,000,000, here the value is 0.
    if wrap(len(value.as_tuple().digits) - scale, 32) > _LARGEST_DECIMAL:
        return None
    return value


# ---- the fields of a CSV --------------------------------------------------------------------------------------------


def _field(node: Node, parse: Callable[[str], float | None]) -> Function:
    if node.arguments[0].type != "string":
        raise NotAllowed(f"reads text, not {node.arguments[0].type.upper()}")

    def to_number(text: str) -> float | None:
        value = parse(text)
        # NaN, the only number that is not equal to itself, counts as no value
        return value if value == value else None

    return to_number


@entry("ReadDouble", null="NULL if a is NULL, NaN or no number")
def _read_double(node: Node) -> Function:
    """Make what Spark's CSV reader makes of a field of the type DOUBLE, where NaN becomes NULL."""
    return _field(node, parse_double)


@entry("ReadFloat", null="NULL if a is NULL, NaN or no number")
def _read_float(node: Node) -> Function:
    """Make what Spark's CSV reader makes of a field of the type FLOAT, where NaN becomes NULL."""
    return _field(node, parse_float)


# ---- to text --------------------------------------------------------------------------------------------------------


@cast("boolean", "string")
def _boolean_to_text(node: Node) -> Function:
    return lambda value: "true" if value else "false"


@cast(tuple(WHOLE), "string")
def _whole_to_text(node: Node) -> Function:
    return str


@cast("decimal", "string")
def _decimal_to_text(node: Node) -> Function:
    # only a plain cast writes small numbers as 1E-7
    return "{:f}".format if is_try(node) else str


@cast("double", "string")
def _double_to_text(node: Node) -> Function:
    return double_to_text


@cast("float", "string")
def _float_to_text(node: Node) -> Function:
    return float_to_text


# ---- BINARY ---------------------------------------------------------------------------------------------------------


@cast("string", "binary")
def _text_to_binary(node: Node) -> Function:
    return str.encode


@cast("binary", "string")
def _binary_to_text(node: Node) -> Function:
    for below in node.walk():
        if below.type != "binary":
            continue
        if below.op == COLUMN:
            raise NotAllowed("of a BINARY column is not allowed, because its bytes may not be UTF-8")
        if below.op == LITERAL and below.value is not None:
            try:
                literal_value(below.value, "binary").decode()
            except UnicodeDecodeError:
                raise NotAllowed("of bytes that are not UTF-8 is not allowed") from None
    return bytes.decode
