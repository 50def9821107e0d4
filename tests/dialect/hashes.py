"""Hashes of every type and bytes of every length, and JSON texts that Jackson reads in its own way."""

from __future__ import annotations

from typing import Any

from . import IS_3_5_0

EXAMPLES: dict[str, list[str]] = {
    "md5": ["md5(repeat(s, 40))", "md5(X'00ff')"],
    "sha2": ["sha2(s, NULL)", "sha2(u, -1)"],
    "crc32": ["crc32(repeat(s, 30))"],
    "hash": ["hash(concat(s, repeat(u, 7), s))", "hash(X'80ff7f01', CAST(w AS timestamp_ntz))",
             "hash(CAST(m AS decimal(18, 3)), CAST(m AS decimal(19, 3)))", "hash(NULL)", "hash(array(f, g), array(d, e))",
             "hash(array(array(s), array(u, NULL)))", "hash(CAST('-0' AS float), -0.0D)"],
    "xxhash64": ["xxhash64(concat(s, repeat(u, 7), s))", "xxhash64(X'80ff7f01', CAST(w AS timestamp_ntz))",
                 "xxhash64(CAST(m AS decimal(18, 3)), CAST(m AS decimal(19, 3)))", "xxhash64(NULL)",
                 "xxhash64(array(f, g), array(d, e))"],
    "get_json_object": ["get_json_object(s, '$.a.a')", "get_json_object(s, '$.a[0]')", "get_json_object(s, '$[0][0]')",
                        r"get_json_object(s, '$[\'a.b\'].c-d')", "get_json_object(s, '$[00]')",
                        "get_json_object(s, NULL)", f"get_json_object(s, '${'[0]' * 100}')"],
}  # fmt: skip

VALUES: dict[str, list[Any]] = {
    "s": [
        # ends of one, two and three bytes, also negative ones; 31, 32 and 33 bytes
        "é", "éx", "éé", "ééx", "日本語x", "\x80", "\x00\x00\x00\x00", "x" * 31, "x" * 32, "é" * 16, "x" * 33, "日" * 21,
        # what follows the first value is not read, what follows the value that is found is
        '{"a":1}}', '[5]x', '{"a":1,"b":tru}', '{"a":1,"b":"\\x"}', '{"a":1,"b":01}', "{'a':1,'b':'\\u00'}", '[7,', '{"a":[1}',
        # the first of equal names that is not null and has what the path asks for
        '{"a":{"a":null},"a":{"a":3}}', '{"a":1,"a":{"a":2}}', '{"a":[],"a":[4]}', '{"a":[null]}', '[null,1]', '{"a":"x","a":',
        # halves of characters, and digits that Jackson takes by their lowest 8 bits
        '{"a":"\\udc00\\ud800"}', '{"a":{"\\ud83d":"\\ud83d\\ude00😀"}}', '{"a":"\\u004ı"}', '{"a":"\\u00𝐰"}', '{"\\u00𝐰":1}',
        # numbers and marks
        '{"a":-0}', '{"a":[-0,-0.0,1e23,2e-3,1e-400,-1e400]}', '{"a":00}', '{"a":-}', '{"a":- 1}', '{"a":1e}', '{"a":0x1}', '[-.5]',
        '[Infinity]', '{"a":1\x0b}', '{"a"\u2028:1}', '\x00{"a":1}', '{"a":1/**/}', '{"a":nullx}', "{'a\"':1,\"a\":'\"'}", "['\\'\"/\x7f\x1b']",
        '{"a.b":{"c-d":[{}, [ ] ]}}', f'{{"a":{"1" * 1000}}}', f'{{"a":{"1" * 1001}}}', f'{{"a":0.{"1" * 999}}}',
        f'{"[" * 100}7.10{"]" * 100}', "[" * 1000 + "]" * 1000, "[" * 1001 + "]" * 1001, f'{"[" * 100}7.10{"]" * 99}',
    ],
    "u": ["é", "日", "ÿ"],
    "f": [float("nan"), -0.0],
    "d": [float("nan"), -0.0, 0.0],
}  # fmt: skip

REFUSED: dict[str, str] = {
    "hash(INTERVAL '3' MONTH)": "is not allowed for INTERVAL MONTH",
    "xxhash64(INTERVAL '3' DAY)": "is not allowed for INTERVAL DAY",
    "hash(sin(d))": "may jump",
    "get_json_object(s, '$')": "is not allowed: write names and indices",
    "get_json_object(s, '$..a')": "is not allowed: write names and indices",
    "get_json_object(s, '$. a')": "is not allowed: write names and indices",
    "get_json_object(s, '$[*].a')": "is not allowed: write names and indices",
    "get_json_object(s, '$.a[-1]')": "is not allowed: write names and indices",
    f"get_json_object(s, '${'[0]' * 101}')": "a path of more than 100 names and indices",
    "base64(s)": "Base64 is not in the list" if IS_3_5_0 else "StaticInvoke is not in the list",
    "unbase64(s)": "UnBase64 is not in the list",
    "unhex(s)": "Unhex is not in the list",
}
"""Expressions that the dialect refuses, with a part of the message."""
