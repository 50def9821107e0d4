"""A resolved expression of Spark SQL: a tree that JSON can hold and that runs without Spark.

Spark's analyzer has named every function by its class, has made every implicit cast explicit, and has given every node
its type. So no name, no overload and no coercion is left to interpret here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

COLUMN = "Column"
LITERAL = "Literal"


@dataclass(frozen=True)
class Node:
    """One expression: a column, a literal, or an operation on arguments."""

    op: str
    """COLUMN, LITERAL, or the name of Spark's expression class, as `Upper`."""
    type: str
    """Spark's name of the result's type, as `decimal(10,2)`."""
    arguments: tuple[Node, ...] = ()
    value: Any = None
    """A column's name, or a literal's value as :func:`literal_value` reads it."""
    settings: tuple[tuple[str, str], ...] = ()
    """What else Spark's class holds and the result depends on."""

    def __hash__(self) -> int:
        """Return the hash of the whole tree, which is computed once: a tree may be a part of many others."""
        known: int | None = self.__dict__.get("_hash")
        if known is None:
            known = hash((self.op, self.type, self.arguments, self.value, self.settings))
            object.__setattr__(self, "_hash", known)
        return known

    def setting(self, name: str, default: str = "") -> str:
        """Return one of the settings."""
        return dict(self.settings).get(name, default)

    def walk(self) -> Iterator[Node]:
        """Yield the node and all that lie below it."""
        yield self
        for argument in self.arguments:
            yield from argument.walk()

    def to_json(self) -> dict[str, Any]:
        """Return the tree as JSON holds it."""
        tree: dict[str, Any] = {"op": self.op, "type": self.type}
        if self.op in (COLUMN, LITERAL):
            tree["value"] = self.value
        if self.arguments:
            tree["arguments"] = [argument.to_json() for argument in self.arguments]
        if self.settings:
            tree["settings"] = dict(self.settings)
        return tree

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> Node:
        """Read what :meth:`to_json` returns."""
        return cls(
            op=tree["op"],
            type=tree["type"],
            arguments=tuple(cls.from_json(argument) for argument in tree.get("arguments", ())),
            value=tuple(value) if isinstance(value := tree.get("value"), list) else value,
            settings=tuple(sorted(tree.get("settings", {}).items())),
        )


def column(name: str, kind: str) -> Node:
    """Return the node of a column."""
    return Node(COLUMN, kind, value=name)


def literal(value: Any, kind: str) -> Node:
    """Return the node of a literal; ``value`` as JSON holds it."""
    return Node(LITERAL, kind, value=value)
