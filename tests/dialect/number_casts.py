"""Casts that have nothing to do with dates and times, and values at the limits of their types."""

from __future__ import annotations

import struct
from decimal import Decimal
from typing import Any

_KINDS = {
    "b": "boolean", "t": "tinyint", "h": "smallint", "i": "int", "l": "bigint", "f": "float", "d": "double",
    "m": "decimal(10,2)", "s": "string",
}  # fmt: skip
_PAIRS = [(column, kind) for column, given in _KINDS.items() for kind in _KINDS.values() if kind != given]

EXAMPLES: dict[str, list[str]] = {
    "cast": [
        *(f"cast({column} AS {kind})" for column, kind in _PAIRS), "cast(n AS int)", "cast(n AS bigint)",
        "cast(n AS float)", "cast(n AS double)", "cast(n AS string)", "cast(n AS decimal(12,3))",
        "cast(m AS decimal(5,5))", "cast(d AS decimal(38,18))", "cast(f AS decimal(38,38))",
        "cast(s AS decimal(38,18))", "cast(cast(s AS binary) AS string)", "cast(X'41C3A9' AS string)",
        "cast(cast(d AS float) AS double)", "cast(NULL AS decimal(3,1))",
    ],
    "try_cast": [
        "try_cast(s AS tinyint)", "try_cast(s AS int)", "try_cast(s AS bigint)", "try_cast(s AS float)",
        "try_cast(s AS double)", "try_cast(s AS decimal(10,2))", "try_cast(s AS boolean)", "try_cast(l AS tinyint)",
        "try_cast(l AS int)", "try_cast(f AS smallint)", "try_cast(f AS int)", "try_cast(d AS int)",
        "try_cast(d AS bigint)", "try_cast(d AS decimal(10,2))", "try_cast(m AS smallint)", "try_cast(n AS bigint)",
        "try_cast(n AS string)", "try_cast(d AS string)", "try_cast(d AS float)", "try_cast(d AS boolean)",
    ],
    "boolean": ["boolean(s)"],
    "tinyint": ["tinyint(l)"],
    "smallint": ["smallint(d)"],
    "int": ["int(s)"],
    "bigint": ["bigint(f)"],
    "float": ["float(s)"],
    "double": ["double(s)"],
    "decimal": ["decimal(s)"],
    "string": ["string(d)"],
    "binary": ["binary(s)"],
}  # fmt: skip
"""Expressions by the name in the table of the dialect."""

_WHOLE = [
    "127", "128", "-128", "-129", "32767", "32768", "-32769", "2147483647", "2147483648", "-2147483648", "-2147483649",
    "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "3.7", "-3.7", "+3.",
    "-.5", ".", "-.", "+", "-", "0000000000000000000000012", "--1", "+-1", "1 2", "1.2.3", "1_000", "\x7f5\x00",
    "\u00a05", "٣", "٣.٤e١", "\U0001d7cf",
]  # fmt: skip
_FLOATING = [
    "1e3", "1E+3", "1e-3", "1e", "1e+", "e5", ".e5", "5e5.5", "1d", "1F", "1.5e3f", "0x1p3", "0x.8p1", "0x1.8", "0x1p",
    "0x1.p-3d", "inf", "+INF", "-Inf", "Infinity", "-infinity", "nan", "-NaN", "-nan", "NaNd", "Infinityf", "1e400",
    "-1e-400", "0e99999999999", "1e99999999999", "16777217", "16777217.0000000000000000001",
    "1.00000017881393432617187499", "1.00000017881393432617187500", "1.00000017881393432617187501",
    "7.0064923216240854e-46", "7.0064923216240853e-46", "3.4028235677973366e38", "3.4028235677973365e38",
    "2.4703282292062327e-324", "2.4703282292062328e-324", "1.7976931348623159e308", "1.7976931348623158e308",
    "0x1.0000010000000001p0", "0x1.000001p0", "0x1.000003p0", "0x1p-1075", "0x1.0000001p-1075", "0x1p1024",
    "0x1p99999999999", "0x0p99999999999", "0x1p-99999999999",
]  # fmt: skip
_OTHER = [
    "0e37", "0e38", "1e37", "1e38", "99999999.994", "99999999.995", "1e0000000000000001", "1e00000000000",
    "12345678901", "0.005", "0.00499999999999999999999999999999999999999999", "99999999999999999999999999999999999999",
    "0.99999999999999999999999999999999999999999999", "tRue", "T", "yes ", " No", "\tn\n", "on", "TRUE\x00", "1.0",
]  # fmt: skip

VALUES: dict[str, list[Any]] = {
    "s": [*_WHOLE, *_FLOATING, *_OTHER],
    "l": [
        2**24 + 1, 2**53 + 1, 2**53 + 2**29, 2**53 + 2**29 + 1, 9223371761976868863, 9223371761976868864, 2**63 - 1,
        2**31, -(2**31) - 1, 255, 256, 32768,
    ],
    "f": [
        struct.unpack("<f", struct.pack("<f", value))[0] for value in (
            1e-4, 1.4e-45, 2.8e-45, 3.4028234663852886e38, 2.0**24, 2.0**25, 2.0**63, -(2.0**63), 1e18,
            1.1754943508222875e-38, 2.0**23, 1e-3, 1e7, 2.0**31, 2.0**31 - 128, 127.99, -128.99, 1e10, 3.3e-5,
        )
    ],
    "d": [
        2e-3, 2e23, 1e23, 2.2e-322, 4.9e-324, 9.9e-324, 1.5e-323, 2.0**63, -(2.0**63), 2.0**70, 2.0**-44, 2.0**89,
        8.41e21, 5e-324, 2.98023223876953125e-8, 9007199254740993.0, 1.0e-5, 9.999e-4, 9999999.0, 1e7, 127.99, -128.99,
        2147483647.99, -2147483648.99, 32768.0, 99999999.995, 1.1e-38, 2.2250738585072014e-308,
    ],
    "n": [
        Decimal(digits) for digits in (
            "0.0000001000", "0.0000000100", "9223372036854775808.0000000000", "2147483647.9999999999",
            "18446744073709551617.0000000000", "16777217.0000000001", "9007199791611904.5000000001",
        )
    ],
}  # fmt: skip
"""Values that the columns hold beside random ones."""

REFUSED: dict[str, str] = {
    "try_cast(n AS int)": "from a DECIMAL with more than 15 digits to INT is not the same everywhere in Spark",
    "cast(X'41FF' AS string)": "of bytes that are not UTF-8 is not allowed",
    "cast(i AS binary)": "from INT to BINARY is not in the list",
    "cast(ln(d) AS string)": "may jump",
    "cast(exp(d) AS int)": "may jump",
}
"""Expressions that the dialect refuses, with a part of the message."""
