"""How many digits of an inexact value are the same in Java and here.

Java's `exp`, `ln`, `pow` and the like may differ from ours in the last bit. A sum of such values can lose all digits
but that bit, as `ln(a) - ln(b)` does where a and b are almost equal. What divides by such a sum, or takes its root,
would turn the last bit into another result.
"""

from __future__ import annotations

from .entry import ENTRIES
from .tree import LITERAL, Node
from .types import FLOATING, is_number, literal_value

_KEEPS = {
    "Abs", "Atan", "CaseWhen", "Cast", "Cbrt", "Coalesce", "Cosh", "Divide", "Exp", "Expm1", "Greatest", "Hypot", "If",
    "Least", "Log", "Log10", "Log1p", "Log2", "Logarithm", "Multiply", "NaNvl", "Pow", "Sinh", "Sqrt", "Tanh",
    "ToDegrees", "ToRadians", "UnaryMinus", "UnaryPositive",
    "Acos", "Asin", "Atan2", "Atanh", "Cos", "Cot", "Csc", "Sec", "Sin", "Tan",
}  # fmt: skip
"""Operations whose result has as many correct digits as their arguments."""
_NEVER_NEGATIVE = {"Abs", "Cosh", "EulerNumber", "Exp", "Hypot", "Pi", "Sqrt"}
_NOT_NEGATIVE_AS_ARGUMENTS = {"Add", "Cast", "Divide", "Greatest", "Least", "Multiply", "Pow", "UnaryPositive"}


def is_inexact(node: Node) -> bool:
    """Tell whether the node's value may differ in the last bit from Java's."""
    return any(below.op in ENTRIES and ENTRIES[below.op].inexact for below in node.walk())


def keeps_digits(node: Node) -> bool:
    """Tell whether almost all digits of the node's value are the same in Java and here."""
    if not is_inexact(node):
        return True
    if node.type != "double":
        return False
    kept = node.op in _KEEPS or (node.op == "Add" and all(is_not_negative(argument) for argument in node.arguments))
    return kept and all(keeps_digits(argument) for argument in node.arguments)


def arguments_keep_digits(node: Node) -> bool:
    """Tell whether :func:`keeps_digits` holds for all arguments."""
    return all(keeps_digits(argument) for argument in node.arguments)


def is_not_negative(node: Node) -> bool:
    """Tell whether the node's value is a number from 0 on, or NaN, for every row."""
    if (number := literal_number(node)) is not None:
        return number >= 0
    if node.type not in FLOATING:
        return False
    if node.op == "Pow" and literal_number(node.arguments[1]) in (2, 4):
        return True
    if node.op in _NOT_NEGATIVE_AS_ARGUMENTS:
        return all(is_not_negative(argument) for argument in node.arguments)
    return node.op in _NEVER_NEGATIVE


def literal_number(node: Node) -> float | None:
    """Return the value of a literal number, which may be cast, None for any other node."""
    while node.op == "Cast":
        node = node.arguments[0]
    if node.op != LITERAL or node.value is None or not is_number(node.type):
        return None
    return float(literal_value(node.value, node.type))
