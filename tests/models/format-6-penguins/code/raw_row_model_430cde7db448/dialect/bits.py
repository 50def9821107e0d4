"""Whole numbers as bits."""

from __future__ import annotations

import operator
from collections.abc import Callable

from .entry import Function, NotAllowed, entry, literal_of, takes
from .tree import Node
from .types import WHOLE, wrap

_WHOLE = tuple(WHOLE)
_MODULO = "the count is taken modulo the bits of the type: 32 or 64"


def _bitwise(node: Node, operation: Callable[[int, int], int]) -> Function:
    takes(node, _WHOLE, _WHOLE)
    return operation


@entry("BitwiseAnd", "&: a & b")
def _and(node: Node) -> Function:
    return _bitwise(node, operator.and_)


@entry("BitwiseOr", "|: a | b")
def _or(node: Node) -> Function:
    return _bitwise(node, operator.or_)


@entry("BitwiseXor", "^: a ^ b")
def _xor(node: Node) -> Function:
    return _bitwise(node, operator.xor)


@entry("BitwiseNot", "~: ~a")
def _not(node: Node) -> Function:
    takes(node, _WHOLE)
    return operator.invert


def _shift(node: Node, operation: Callable[[int, int], int]) -> Function:
    """Return Java's shift: ``operation`` gets a value and how far it goes, and its result wraps around."""
    takes(node, ("int", "bigint"), "int")
    bits = WHOLE[node.type]
    return lambda a, count: wrap(operation(a, count % bits), bits)


@entry("ShiftLeft", "shiftleft(number, count)", edge=_MODULO)
def _shift_left(node: Node) -> Function:
    return _shift(node, operator.lshift)


@entry("ShiftRight", "shiftright(number, count)", edge=_MODULO)
def _shift_right(node: Node) -> Function:
    return _shift(node, operator.rshift)


@entry("ShiftRightUnsigned", "shiftrightunsigned(number, count)", edge=_MODULO)
def _shift_right_unsigned(node: Node) -> Function:
    mask = (1 << WHOLE.get(node.type, 0)) - 1
    return _shift(node, lambda a, count: (a & mask) >> count)


@entry("BitwiseCount", "bit_count(number)", edge="a negative number counts as 64 bits; 1 or 0 for BOOLEAN")
def _count(node: Node) -> Function:
    takes(node, (*_WHOLE, "boolean"))
    return lambda a: (int(a) & (1 << 64) - 1).bit_count()


@entry("BitwiseGet", "getbit(number, position)", "bit_get(number, position)")
def _get(node: Node) -> Function:
    takes(node, _WHOLE)
    position = literal_of(node, 1, "the position")
    if position is None or not 0 <= position < WHOLE[node.arguments[0].type]:
        raise NotAllowed("the position must lie within the bits of the type")
    return lambda a, _: a >> position & 1
