"""Capital and small letters, as Java 17 changes them."""

from __future__ import annotations

from . import unicode13
from .entry import Function, entry, takes
from .final_sigma import SIGMA, lower_sigmas
from .tree import Node

_LETTERS = "as Java does it, by Unicode 13 and in no particular language: one letter may become several, ß becomes SS"


def lower(text: str) -> str:
    """Return the text in small letters."""
    return unicode13.lower(lower_sigmas(text) if SIGMA in text else text)


def title(text: str) -> str:
    """Return the text in small letters, but for the first and each one that follows a space (U+0020)."""
    words = lower(text).split(" ")
    return " ".join(unicode13.title(word[0]) + word[1:] if word else word for word in words)


@entry("Upper", "upper(text)", "ucase(text)", edge=_LETTERS)
def _upper(node: Node) -> Function:
    takes(node, "string")
    return unicode13.upper


@entry("Lower", "lower(text)", "lcase(text)", edge=f"{_LETTERS}; the sigma at the end of a word becomes ς")
def _lower(node: Node) -> Function:
    takes(node, "string")
    return lower


@entry("InitCap", "initcap(text)", edge="words are what stands between spaces (U+0020); all other letters become small")
def _initcap(node: Node) -> Function:
    takes(node, "string")
    return title
