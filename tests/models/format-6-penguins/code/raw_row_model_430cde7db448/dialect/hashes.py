"""Hashes: the digests of bytes, and Spark's numbers for rows of values."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from .entry import Function, NotAllowed, entry, takes
from .tree import Node
from .types import decimal_type, element_type, wrap

_SEED = 42
_BITS = {0: hashlib.sha256, 224: hashlib.sha224, 256: hashlib.sha256, 384: hashlib.sha384, 512: hashlib.sha512}
_LOW32, _LOW64 = 2**32 - 1, 2**64 - 1
_LONG_DIGITS = 18
"""The largest precision of a DECIMAL that Spark holds in 64 bits."""
ToBytes = Callable[[Any], bytes]


@entry("Md5", "md5(text)", edge="of the bytes in UTF-8")
def _md5(node: Node) -> Function:
    takes(node, "binary")
    return lambda value: hashlib.md5(value, usedforsecurity=False).hexdigest()


@entry("Sha1", "sha1(text)", "sha(text)", edge="of the bytes in UTF-8")
def _sha1(node: Node) -> Function:
    takes(node, "binary")
    return lambda value: hashlib.sha1(value, usedforsecurity=False).hexdigest()


@entry("Sha2", "sha2(text, bits)", null="NULL if an argument is NULL, or bits none of 0, 224, 256, 384, 512",
       edge="of the bytes in UTF-8; 0 stands for 256")  # fmt: skip
def _sha2(node: Node) -> Function:
    takes(node, "binary", "int")
    return lambda value, bits: _BITS[bits](value).hexdigest() if bits in _BITS else None


@entry("Crc32", "crc32(text)", edge="of the bytes in UTF-8")
def _crc32(node: Node) -> Function:
    takes(node, "binary")
    return lambda value: zlib.crc32(value)


# ---- of rows --------------------------------------------------------------------------------------------------------

_ROW = "NULL is left out; -0.0 counts as 0.0, a DATE as its days; the seed is 42"


@entry("Murmur3Hash", "hash(a, b, …)", null="never", edge=_ROW, strict=False)
def _hash(node: Node) -> Function:
    return _of_row(node, _murmur3, 32)


@entry("XxHash64", "xxhash64(a, b, …)", null="never", edge=_ROW, strict=False)
def _xxhash64(node: Node) -> Function:
    return _of_row(node, _xxh64, 64)


def _of_row(node: Node, hashed: Callable[[bytes, int], int], bits: int) -> Function:
    """Return the function that hashes one value after the other: each hash is the seed of the next."""
    adders = [_adder(argument.type, hashed) for argument in node.arguments]

    def hash_row(*values: Any) -> int:
        seed = _SEED
        for value, add in zip(values, adders, strict=True):
            seed = add(value, seed)
        return wrap(seed, bits)

    return hash_row


def _adder(kind: str, hashed: Callable[[bytes, int], int]) -> Callable[[Any, int], int]:
    """Return the function that makes a new hash of a value and the hash so far."""
    if (element := element_type(kind)) is not None:
        inner = _adder(element, hashed)

        def add_all(values: list[Any] | None, seed: int) -> int:
            for value in values or ():
                seed = inner(value, seed)
            return seed

        return add_all
    to_bytes = _to_bytes(kind)
    return lambda value, seed: seed if value is None else hashed(to_bytes(value), seed)


def _to_bytes(kind: str) -> ToBytes:
    """Return the function that gives the bytes of a value, as Spark hashes them."""
    precision_scale = decimal_type(kind)
    if precision_scale is not None:
        long = precision_scale[0] <= _LONG_DIGITS
        return lambda value: struct.pack("<q", _unscaled(value)) if long else _shortest(_unscaled(value))
    if kind in ("boolean", "tinyint", "smallint", "int", "date"):
        return lambda value: struct.pack("<i", value)
    if kind in ("bigint", "timestamp", "timestamp_ntz"):
        return lambda value: struct.pack("<q", value)
    if kind in ("float", "double"):
        form = "<f" if kind == "float" else "<d"
        return lambda value: struct.pack(form, _plain(value))
    if kind == "string":
        return lambda value: bytes(value.encode())
    if kind in ("binary", "void"):
        return bytes
    raise NotAllowed(f"is not allowed for {kind.upper()}")


def _plain(value: float) -> float:
    """Return the one 0.0 and the one NaN."""
    return value or 0.0 if value == value else float("nan")


def _unscaled(value: Decimal) -> int:
    """Return a DECIMAL as a whole number, without its point."""
    sign, digits, _ = value.as_tuple()
    return int("".join(map(str, digits))) * (-1 if sign else 1)


def _shortest(number: int) -> bytes:
    """Return a whole number in two's complement, the highest byte first, in as few bytes as hold it."""
    return number.to_bytes((number if number >= 0 else ~number).bit_length() // 8 + 1, "big", signed=True)


def _rotated(number: int, by: int, bits: int) -> int:
    return ((number << by) | (number >> (bits - by))) & ((1 << bits) - 1)


def _murmur3(value: bytes, seed: int) -> int:
    """Return Murmur3 of 32 bits; Spark takes each of the last bytes as a whole word, with its sign."""
    whole = len(value) // 4 * 4
    words = [*struct.unpack(f"<{whole // 4}I", value[:whole]), *struct.unpack(f"{len(value) - whole}b", value[whole:])]
    state = seed & _LOW32
    for word in words:
        mixed = _rotated(word * 0xCC9E2D51 & _LOW32, 15, 32) * 0x1B873593 & _LOW32
        state = (_rotated(state ^ mixed, 13, 32) * 5 + 0xE6546B64) & _LOW32
    state ^= len(value)
    state = (state ^ state >> 16) * 0x85EBCA6B & _LOW32
    state = (state ^ state >> 13) * 0xC2B2AE35 & _LOW32
    return state ^ state >> 16


_P1, _P2, _P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_P4, _P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


def _round(state: int, word: int) -> int:
    return _rotated((state + word * _P2) & _LOW64, 31, 64) * _P1 & _LOW64


def _xxh64(value: bytes, seed: int) -> int:
    """Return XXH64."""
    at, seed = 0, seed & _LOW64
    state = seed + _P5
    if len(value) >= 32:
        lanes = [seed + _P1 + _P2, seed + _P2, seed, seed - _P1]
        while at + 32 <= len(value):
            words = struct.unpack_from("<4Q", value, at)
            lanes = [_round(lane, word) for lane, word in zip(lanes, words, strict=True)]
            at += 32
        state = sum(_rotated(lane, by, 64) for lane, by in zip(lanes, (1, 7, 12, 18), strict=True))
        for lane in lanes:
            state = ((state ^ _round(0, lane)) * _P1 + _P4) & _LOW64
    state = (state + len(value)) & _LOW64
    while at + 8 <= len(value):
        word = struct.unpack_from("<Q", value, at)[0]
        state = (_rotated(state ^ _round(0, word), 27, 64) * _P1 + _P4) & _LOW64
        at += 8
    if at + 4 <= len(value):
        word = struct.unpack_from("<I", value, at)[0]
        state = (_rotated(state ^ (word * _P1 & _LOW64), 23, 64) * _P2 + _P3) & _LOW64
        at += 4
    for byte in value[at:]:
        state = _rotated(state ^ (byte * _P5 & _LOW64), 11, 64) * _P1 & _LOW64
    state = (state ^ state >> 33) * _P2 & _LOW64
    state = (state ^ state >> 29) * _P3 & _LOW64
    return state ^ state >> 32
