"""Trees checked against the table, and run over columns of Python values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import types
from .entry import ENTRIES, Function, NotAllowed
from .tree import COLUMN, LITERAL, Node

Values = list[Any]


class Program:
    """Named expressions, ready to run; what several of them share is computed once."""

    def __init__(self, trees: Mapping[str, Node]) -> None:
        """Check and prepare the trees.

        Raises:
            NotAllowed: an expression is not in the table of the dialect.
        """
        self._trees = dict(trees)
        self._functions: dict[Node, Function] = {}
        self._inexact: dict[Node, bool] = {}
        try:
            for tree in trees.values():
                self._prepare(tree)
        except RecursionError:
            raise NotAllowed("an expression of so many nested parts is not allowed; use several columns") from None

    @property
    def names(self) -> list[str]:
        """The names of the results."""
        return [*self._trees]

    def run(self, columns: Mapping[str, Sequence[Any]], rows: int) -> dict[str, Values]:
        """Return the result of each tree: a list of ``rows`` Python values, None for NULL."""
        results: dict[Node, Values] = {}
        return {name: self._evaluate(tree, columns, rows, results) for name, tree in self._trees.items()}

    def _prepare(self, node: Node) -> bool:
        """Make the function of the node and of all below it; return whether the node's values are inexact."""
        if node in self._inexact:
            return self._inexact[node]
        inexact = [self._prepare(argument) for argument in node.arguments]
        if not types.is_known(node.type):
            raise NotAllowed(f"values of the type {node.type.upper()} are not allowed")
        if node.op in (COLUMN, LITERAL):
            self._inexact[node] = False
            return False
        if node.op not in ENTRIES:
            raise NotAllowed(f"{node.op} is not in the list")
        entry = ENTRIES[node.op]
        smooth = entry.smooth(node) if callable(entry.smooth) else entry.smooth
        if any(inexact) and not smooth:
            source = next(a for a, flag in zip(node.arguments, inexact, strict=True) if flag)
            raise NotAllowed(
                f"{entry.name} of {_inexact_op(source)} may jump: the last bit differs between Java and other libraries"
            )
        if node not in self._functions:
            try:
                self._functions[node] = entry.make(node)
            except NotAllowed as problem:
                raise NotAllowed(f"{entry.name} {problem}") from None
        self._inexact[node] = entry.inexact or any(inexact)
        return self._inexact[node]

    def _evaluate(
        self, node: Node, columns: Mapping[str, Sequence[Any]], rows: int, results: dict[Node, Values]
    ) -> Values:
        if node in results:
            return results[node]
        if node.op == COLUMN:
            values = list(columns[node.value])
        elif node.op == LITERAL:
            values = [types.literal_value(node.value, node.type)] * rows
        else:
            arguments = [self._evaluate(argument, columns, rows, results) for argument in node.arguments]
            values = _apply(self._functions[node], arguments, rows, ENTRIES[node.op].strict)
        results[node] = values
        return values


def _apply(function: Function, arguments: Sequence[Values], rows: int, strict: bool) -> Values:
    """Return the function's result for each row."""
    if not arguments:
        return [function() for _ in range(rows)]
    if not strict:
        return [function(*row) for row in zip(*arguments, strict=True)]
    if len(arguments) == 1:
        return [None if value is None else function(value) for value in arguments[0]]
    return [None if None in row else function(*row) for row in zip(*arguments, strict=True)]


def _inexact_op(node: Node) -> str:
    """Return the operation below ``node`` that is inexact by itself."""
    for below in node.walk():
        if below.op in ENTRIES and ENTRIES[below.op].inexact:
            return ENTRIES[below.op].name
    return node.op
