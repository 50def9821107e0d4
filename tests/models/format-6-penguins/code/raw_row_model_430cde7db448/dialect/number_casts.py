"""Casts between BOOLEAN and the types of numbers."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from . import decimals
from .casts import cast, is_try
from .entry import Function, NotAllowed, written
from .java_numbers import double_to_text, rounded_once
from .tree import Node
from .types import FLOATING, WHOLE, decimal_type, fits, to_float32, wrap

_EXACT_DIGITS = 15
"""A DOUBLE tells apart all DECIMALs of so many digits."""


def size_of(node: Node) -> tuple[int, int]:
    """Return precision and scale of the node's type, which is DECIMAL."""
    size = decimal_type(node.type)
    assert size is not None
    return size


def _unless_too_large(value: int, kind: str) -> int | None:
    return value if fits(value, kind) else None


# ---- BOOLEAN --------------------------------------------------------------------------------------------------------


@cast((*WHOLE, *FLOATING, "decimal"), "boolean")
def _to_boolean(node: Node) -> Function:
    return lambda value: bool(value != 0)


@cast("boolean", tuple(WHOLE))
def _boolean_to_whole(node: Node) -> Function:
    return int


@cast("boolean", FLOATING)
def _boolean_to_float(node: Node) -> Function:
    return float


# ---- whole numbers --------------------------------------------------------------------------------------------------


@cast(tuple(WHOLE), tuple(WHOLE))
def _whole_to_whole(node: Node) -> Function:
    kind = node.type
    if is_try(node):
        return lambda value: _unless_too_large(value, kind)
    return lambda value: wrap(value, WHOLE[kind])


@cast(FLOATING, tuple(WHOLE))
def _float_to_whole(node: Node) -> Function:
    kind = node.type
    # Java casts to TINYINT and SMALLINT by way of INT
    bits = max(WHOLE[kind], 32)
    limit: int = 2 ** (bits - 1)

    def to_whole(value: float) -> int:
        if math.isnan(value):
            return 0
        if math.isinf(value):
            return limit - 1 if value > 0 else -limit
        return max(-limit, min(int(value), limit - 1))

    def tried(value: float) -> int | None:
        whole = to_whole(value)
        # Spark compares doubles, so 2^63 is not more than the largest BIGINT
        within = abs(value) <= 2.0**63 if kind == "bigint" else math.trunc(value) == whole
        return _unless_too_large(whole, kind) if within else None

    if is_try(node):
        return lambda value: tried(value) if math.isfinite(value) else None
    return lambda value: wrap(to_whole(value), WHOLE[kind])


@cast("decimal", tuple(WHOLE))
def _decimal_to_whole(node: Node) -> Function:
    kind = node.type
    if not is_try(node):
        return lambda value: wrap(wrap(int(value), 64), WHOLE[kind])
    precision, scale = size_of(node.arguments[0])
    if kind != "bigint" and scale and precision > _EXACT_DIGITS:
        raise NotAllowed(
            f"from a DECIMAL with more than {_EXACT_DIGITS} digits to {kind.upper()} is not the same everywhere in "
            "Spark; cast to BIGINT"
        )
    return lambda value: _unless_too_large(int(value), kind)


# ---- FLOAT and DOUBLE -----------------------------------------------------------------------------------------------


@cast((*WHOLE, "decimal", "float"), "double")
def _to_double(node: Node) -> Function:
    return float


@cast("double", "float")
def _double_to_float(node: Node) -> Function:
    return to_float32


@cast((*WHOLE, "decimal"), "float")
def _exact_to_float(node: Node) -> Function:
    def to_float(value: Any) -> float:
        return rounded_once(float(value), value)

    return to_float


# ---- DECIMAL --------------------------------------------------------------------------------------------------------


@cast(("boolean", *WHOLE, "decimal"), "decimal")
def _exact_to_decimal(node: Node) -> Function:
    precision, scale = size_of(node)
    return lambda value: decimals.fitted(Decimal(value), precision, scale)


@cast(FLOATING, "decimal")
def _float_to_decimal(node: Node) -> Function:
    precision, scale = size_of(node)

    def to_decimal(value: float) -> Decimal | None:
        if not math.isfinite(value):
            return None
        return decimals.fitted(Decimal(double_to_text(value)), precision, scale)

    return to_decimal


_AS_CAST = "NULL if a is NULL or is not of the type"
for _kind in ("boolean", *WHOLE, *FLOATING, "string", "binary"):
    written(f"{_kind}(a)", null=_AS_CAST, edge=f"as CAST(a AS {_kind.upper()})")
written("decimal(a)", null=_AS_CAST, edge="as CAST(a AS DECIMAL(10,0))")
