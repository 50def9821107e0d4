"""Expressions over numbers: arithmetic, bits, mathematics and rounding."""

from __future__ import annotations

from typing import Any

_DOUBLE_ONLY = [
    "cbrt", "exp", "expm1", "ln", "log2", "log10", "log1p", "sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos",
    "atan", "sinh", "cosh", "tanh", "atanh", "degrees", "radians", "sqrt", "rint", "sign", "signum",
]  # fmt: skip
_ROUNDED = [
    "t, -1", "i, -2", "l, -3", "f, 1", "d, 2", "d, 7", "m, 1", "n, -5",
]  # fmt: skip

EXAMPLES: dict[str, list[str]] = {
    "+": ["t + t", "h + t", "i + j", "l + k", "f + g", "d + e", "m + n", "l + m"],
    "-": ["t - t", "h - h", "i - j", "l - k", "f - g", "d - f", "n - n", "-t"],
    "*": ["t * t", "h * h", "i * j", "l * k", "f * g", "d * e", "m * n", "n * n"],
    "/": ["i / j", "l / k", "f / g", "d / e", "m / m", "m / n", "n / n", "1 / m"],
    "div": ["t DIV t", "i DIV j", "l DIV k", "m DIV m", "m DIV n", "n DIV n", "l DIV m", "n DIV 0.07"],
    "%": ["t % t", "h % t", "i % j", "l % k", "f % g", "d % e", "m % n", "n % 0.07"],
    "mod": ["mod(i, j)", "mod(l, 7)", "mod(d, e)", "mod(m, m)"],
    "pmod": ["pmod(t, t)", "pmod(h, t)", "pmod(i, j)", "pmod(l, k)", "pmod(f, g)", "pmod(d, e)", "pmod(m, n)"],
    "negative": ["negative(t)", "negative(i)", "-l", "-f", "-d", "-m", "-(-n)"],
    "positive": ["positive(t)", "+l", "+f", "+d", "+m"],
    "abs": ["abs(t)", "abs(h)", "abs(i)", "abs(l)", "abs(f)", "abs(d)", "abs(m)", "abs(n)"],
    "ceil": ["ceil(t)", "ceil(l)", "ceil(f)", "ceil(d)", "ceil(m)", "ceil(n)", "ceil(m, 1)", "ceil(n, -3)"],
    "ceiling": ["ceiling(d)", "ceiling(i, -1)"],
    "floor": ["floor(t)", "floor(l)", "floor(f)", "floor(d)", "floor(m)", "floor(n)", "floor(m, 1)", "floor(n, -3)"],
    "round": [f"round({arguments})" for arguments in _ROUNDED],
    "bround": [f"bround({arguments})" for arguments in _ROUNDED],
    "width_bucket": [
        "width_bucket(d, 0, 10, 5)", "width_bucket(e, 10, -10, 4)", "width_bucket(f, d, e, l)",
        "width_bucket(i, 0, 100, j)",
    ],
    "pi": ["pi()", "d * pi()"],
    "e": ["e()"],
    "hypot": ["hypot(d, e)", "hypot(i, j)", "hypot(f, m)"],
    "pow": ["pow(d, e)", "pow(i, 2)", "pow(f, -1)", "pow(m, 0.5)", "pow(t, t)"],
    "power": ["power(d, 3)"],
    "factorial": ["factorial(i)", "factorial(t)"],
    "log": ["log(d)", "log(2, d)", "log(d, e)", "log(i, l)", "log(1, d)"],
    "atan2": ["atan2(d, e)", "atan2(i, j)", "atan2(f, d)"],
    "&": ["t & t", "h & t", "i & j", "l & k"],
    "|": ["t | t", "h | t", "i | j", "l | k"],
    "^": ["t ^ t", "h ^ t", "i ^ j", "l ^ k"],
    "~": ["~t", "~h", "~i", "~l"],
    "shiftleft": ["shiftleft(t, 2)", "shiftleft(i, j)", "shiftleft(l, i)", "shiftleft(l, 65)"],
    "shiftright": ["shiftright(t, 2)", "shiftright(i, j)", "shiftright(l, i)"],
    "shiftrightunsigned": ["shiftrightunsigned(t, 2)", "shiftrightunsigned(i, j)", "shiftrightunsigned(l, i)"],
    "bit_count": ["bit_count(b)", "bit_count(t)", "bit_count(h)", "bit_count(i)", "bit_count(l)"],
    "getbit": ["getbit(t, 7)", "getbit(i, 0)", "getbit(l, 63)"],
    "bit_get": ["bit_get(h, 3)"],
    **{name: [f"{name}(d)", f"{name}(f)", f"{name}(i)", f"{name}(m / 1000)"] for name in _DOUBLE_ONLY},
}  # fmt: skip
"""Expressions by the name in the table of the dialect."""
EXAMPLES["exp"] += ["1 / (1 + exp(-d))", "exp(-pow(d, 2) / 2)", "exp(d) / (exp(d) + exp(e))"]
EXAMPLES["ln"] += ["(ln(d) - 3.2) / 1.7", "cast(ln(d) AS float)", "d / ln(e)", "coalesce(ln(d), 0)"]
EXAMPLES["log1p"] += ["log1p(exp(d))"]
EXAMPLES["sqrt"] += ["sqrt(d * d + e * e)", "sqrt(pow(d, 2) + pow(e, 2))"]

VALUES: dict[str, list[Any]] = {
    "d": [
        0.5, 1.0, 8.0, 1000.0, -1.0, 1e-9, 1e-300, 709.78, 709.79, 710.5, -745.2, 20.0, 3.141592653589793, -0.0,
        0.9999999, 1e8, -1e8, 0.285, 1.005, 2.665, -2.5, 1e154, -1e154, 1.35e154,
    ],
    "e": [0.5, -0.5, 2.0, -2.0, 3.0, -3.0, 0.0, -0.0, 1e17, -1e17, float("inf"), float("-inf"), float("nan")],
}  # fmt: skip
"""Values that the columns hold beside random ones."""

REFUSED: dict[str, str] = {
    "round(d, -1)": "the number of digits of DOUBLE must lie between 0 and 15",
    "round(f, 16)": "the number of digits of FLOAT must lie between 0 and 15",
    "round(i, 39)": "the number of digits must lie between -38 and 38",
    "round(cast(n AS decimal(38,0)), -1)": "Spark fails where the result has more than 38 digits",
    "cast(n AS decimal(38,0)) % 0.07": "has more than 39 digits",
    "getbit(i, 32)": "the position must lie within the bits of the type",
    "getbit(i, j)": "the position must be a literal",
    "round(exp(d))": "round of exp may jump",
    "ln(d) > 3": "> of ln may jump",
    "d / (exp(e) - 1)": "/ of exp may jump",
    "sqrt(ln(d) - 1)": "sqrt of ln may jump",
    "sign(sin(d))": "sign of sin may jump",
}
"""Expressions that the dialect refuses, with a part of the message."""
