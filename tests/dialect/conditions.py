"""Expressions of comparisons, logic and choices."""

from __future__ import annotations

_PAIRS = ("i, j", "l, i", "f, g", "d, e", "d, i", "s, u", "b, c", "m, n", "a, z", "w, x")


def _compared(operator: str) -> list[str]:
    return [f"{one} {operator} {other}" for one, other in (pair.split(", ") for pair in _PAIRS)]


EXAMPLES: dict[str, list[str]] = {
    **{operator: _compared(operator) for operator in ("=", "<", "<=", ">", ">=", "<=>", "<>")},
    "==": ["i == j", "d == e", "f == 0.1F", "f * 2.3F = g"],
    "!=": ["s != u", "f != g"],
    "in": ["i IN (1, 2, NULL)", "d IN (0, 1)", "s IN ('a', 'b', u)", "d IN (e, 1.5)", "b IN (c)", "m IN (n, 1)"],
    "between": ["i BETWEEN 1 AND j", "s BETWEEN 'a' AND u", "d BETWEEN e AND 5", "a BETWEEN z AND DATE'2030-01-01'"],
    "not": ["NOT b", "NOT (i > j)"],
    "!": ["!b"],
    "and": ["b AND c", "b AND NULL", "i > 1 AND d < 2"],
    "or": ["b OR c", "b OR NULL"],
    "isnull": ["isnull(s)", "isnull(d)"],
    "is null": ["i IS NULL", "d / 0 IS NULL"],
    "isnotnull": ["isnotnull(a)"],
    "is not null": ["w IS NOT NULL"],
    "isnan": ["isnan(d)", "isnan(f)"],
    "nanvl": ["nanvl(d, e)", "nanvl(f, g)", "nanvl(d, NULL)"],
    "if": ["if(b, i, l)", "if(d > 1, s, u)", "if(b, a, NULL)"],
    "case": ["CASE WHEN b THEN s WHEN c THEN u END", "CASE s WHEN 'a' THEN 1 WHEN u THEN 2 ELSE i END"],
    "coalesce": ["coalesce(i, j, 7)", "coalesce(d, i)", "coalesce(NULL, s, u)"],
    "nvl": ["nvl(d, 1)", "nvl(s, 'none')"],
    "ifnull": ["ifnull(s, u)", "ifnull(m, n)"],
    "nvl2": ["nvl2(i, s, u)", "nvl2(s, d, e)"],
    "nullif": ["nullif(d, e)", "nullif(i, 1)", "nullif(s, 'a')"],
    "greatest": ["greatest(d, e, i)", "greatest(s, u)", "greatest(a, z)", "greatest(m, n)", "greatest(f, g)"],
    "least": ["least(f, g)", "least(s, u, 'b')", "least(w, x)", "least(l, i)", "least(d, e)"],
}
VALUES: dict[str, list[object]] = {}
REFUSED: dict[str, str] = {
    "array(1) = array(2)": "cannot be compared here",
    "exp(d) > 1": "may jump",
    "typeof(i)": "is not in the list",
    "current_timestamp()": "is not in the list",
}
