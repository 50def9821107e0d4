"""Expressions with regular expressions and lists."""

from __future__ import annotations

EXAMPLES: dict[str, list[str]] = {
    "rlike": [
        r"s RLIKE 'a+'", r"s RLIKE '^[^.]*[.]0*[ ]*$'", r"s RLIKE '^[ ]*[+-]?[0-9]+(-|[ ]*$)'", r"s RLIKE '\\d{2,}'",
        r"s RLIKE '^\\s|\\W$'", r"s RLIKE '(?i)ab?c'", r"s RLIKE '^.$'", r"s RLIKE '[^\\x00-\\x7f]'",
        r"s RLIKE '\\p{Upper}\\p{Punct}?'", r"NOT (s RLIKE 'x(?=y)|^$')", r"s RLIKE '(a|b)\\1'",
        r"s RLIKE '\\Qa.b\\E'",
    ],
    "regexp": [r"s REGEXP '[a-c]{2}'"],
    "regexp_like": [r"regexp_like(s, '^(?:\\w+\\s?)+$')"],
    "regexp_extract": [
        r"regexp_extract(s, '([a-z]+)([0-9]*)', 2)", r"regexp_extract(s, '(\\d+)-(\\d+)', 1)",
        r"regexp_extract(s, '.*?b', 0)", r"regexp_extract(s, '(x)|(.)', 2)", r"regexp_extract(s, '(?<year>\\d{4})')",
    ],
    "regexp_replace": [
        r"regexp_replace(s, '[^0-9]', '')", r"regexp_replace(s, '(\\w)(\\w)', '$2$1')",
        r"regexp_replace(s, '\\s+$', '')", r"regexp_replace(s, 'a', '\\$')",
    ],
    "regexp_count": [r"regexp_count(s, 'a')"],
    "regexp_substr": [r"regexp_substr(s, '[0-9]+')"],
    "regexp_instr": [r"regexp_instr(s, '[,.]')"],
    "split": [
        r"split(s, ',')[0]", r"split(s, '[,|]')[1]", r"split(s, '')[2]", r"size(split(s, ' +'))",
        r"split(s, 'b', 2)[1]",
        r"array_join(split(s, ''), '/')",
        r"array_join(split(s, '', 3), '/')", r"array_join(split(s, ',', 0), '/')",
    ],
    "split_part": ["split_part(s, ',', 1)", "split_part(s, ',', -1)", "split_part(s, ',', 3)"],
    "[]": ["split(s, ',')[i]", "array(i, j)[1]", "array(i, j)[h]"],
    "element_at": ["element_at(split(s, ','), 1)", "element_at(split(s, ','), -2)", "element_at(array(d, e), 5)"],
    "size": ["size(split(s, ','))"],
    "cardinality": ["cardinality(split(u, 'a'))"],
    "array_size": ["array_size(split(s, ','))"],
    "array": ["array(s, u, 'x')[0]", "size(array(i, j, 3))"],
    "array_contains": [
        "array_contains(array(i, 1, NULL), j)", "array_contains(array('a', 'b'), s)",
        "array_contains(array(d, 0.5D), e)",
        "array_contains(split(s, ','), 'a')",
    ],
    "array_join": ["array_join(array(s, u), '-')", "array_join(array(s, NULL, u), '-', '?')"],
}  # fmt: skip
VALUES: dict[str, list[object]] = {
    "s": [
        "a\n", "a\r\n", "a\r", "a\u0085", "a\u2028", "\n", "\r\n", "\r", "ab\nc", "3.0", "3.00 ", "12-34",
        "2021-03-05", " -7",
        "aa", "bb", "ab", "a.b", "aXb", "x,y,,z", ",,", ",a", "a,", "ABC", "AbC", "word1 word2", "x|y", "12",
        "a1b22c333",
        "tab\there", "\x0b", "\x1c", "\u00a0", "K", "ſ", "İ", "é", "😀", "a😀b", "xxaxx", "baaac", "Aa", "$1", "\\",
        "xy",
    ],
}  # fmt: skip
REFUSED: dict[str, str] = {
    "s RLIKE u": "the pattern must be a literal",
    r"s RLIKE '\\p{L}'": "does not take",
    r"s RLIKE '\\bword'": "does not take",
    "s RLIKE '[a-z&&[^b]]'": "does not take brackets or &&",
    "s RLIKE '(?<=a)b'": "does not take",
    "s RLIKE '(a*)*'": "repetition of a group that may be empty",
    "s RLIKE '(?m)^a'": "does not take",
    "regexp_extract(s, 'a', 1)": "has no group 1",
    "regexp_replace(s, 'a', '$1')": "has no group 1",
    "array_position(array('a', 'b'), s)": "is not in the list",
    "regexp_replace(s, 'x*', '-')": "a pattern that may fit nothing",
    "split(s, '(?=a)')": "a pattern that may fit nothing",
    "element_at(split(s, ','), 0)": "a number that is not 0",
}
