"""The table of the dialect: each operation that features.sql may use, with the Python function that gives its result.

An entry is one function below a decorator. It looks at the node once (types, literals), raises :class:`NotAllowed` for
what is not proven equal to Spark, and returns the function that the rows go through. Such a function takes Python
values (see types.py) and never raises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .tree import LITERAL, Node
from .types import literal_value

Function = Callable[..., Any]
Make = Callable[[Node], Function]

NULL_IN_NULL_OUT = "NULL if an argument is NULL"


class NotAllowed(Exception):
    """An expression that is not in the table, or not with these arguments; the message says what and why."""


@dataclass(frozen=True)
class Entry:
    """One operation."""

    op: str
    """The name of Spark's expression class."""
    name: str
    """What people call it: the name of its first form."""
    make: Make
    strict: bool
    """Whether the result is NULL as soon as an argument is: then the function never gets None."""
    inexact: bool
    """Whether Java's result and ours may differ in the last bit, so that they are equal as float32 only."""
    smooth: bool | Callable[[Node], bool]
    """Whether an inexact argument is allowed: its last bit changes no more than the last bit of the result."""


@dataclass(frozen=True)
class Usage:
    """A row of the table in `conf/README.md`: how people write it."""

    name: str
    """The function's name, or the operator, in lower case."""
    form: str
    """How it is called, as `substring(text, start, length)`."""
    null: str
    """When the result is NULL."""
    edge: str
    """What becomes of NaN, overflow and values out of range."""
    inexact: bool


ENTRIES: dict[str, Entry] = {}
USAGES: dict[str, Usage] = {}


def entry(
    op: str, *forms: str, null: str = NULL_IN_NULL_OUT, edge: str = "", strict: bool = True, inexact: bool = False,
    smooth: bool | Callable[[Node], bool] = False,
) -> Callable[[Make], Make]:  # fmt: skip
    """Enter the decorated function, which makes the rows' function of a node, for Spark's class ``op``.

    ``forms`` are how people write it: each becomes a row of the table, named by what stands before its parenthesis.
    An operator or a keyword is written as `name: form`, as `%: a % b`.
    """

    def register(make: Make) -> Make:
        ENTRIES[op] = Entry(op, _name(forms[0]) if forms else op, make, strict, inexact, smooth)
        for form in forms:
            written(form, null=null, edge=edge, inexact=inexact)
        return make

    return register


def written(form: str, null: str = NULL_IN_NULL_OUT, edge: str = "", inexact: bool = False) -> None:
    """Add a row to the table for a function that Spark expresses by entries that are there."""
    name = _name(form)
    USAGES[name] = Usage(name, form.removeprefix(f"{name}: "), null, edge, inexact)


def _name(form: str) -> str:
    """Return the name of a function or an operator from how people write it, in lower case."""
    return form.partition(": " if ": " in form else "(")[0].lower()


def literal_of(node: Node, position: int, what: str) -> Any:
    """Return the value of an argument that must be a literal; ``what`` names it in the message."""
    argument = node.arguments[position]
    if argument.op != LITERAL:
        raise NotAllowed(f"{what} must be a literal")
    return literal_value(argument.value, argument.type)


def takes(node: Node, *allowed: tuple[str, ...] | str | None) -> None:
    """Raise NotAllowed unless each argument has one of the types that stand for it; None stands for any type."""
    for argument, kinds in zip(node.arguments, allowed, strict=False):
        if kinds is not None and argument.type not in ((kinds,) if isinstance(kinds, str) else kinds):
            raise NotAllowed(f"is not allowed for {argument.type.upper()}")
