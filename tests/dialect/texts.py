"""Records of hostile texts, for every type that a field of a CSV can have."""

from __future__ import annotations

import csv
import io
import random

TYPES = {
    "t": "TINYINT", "h": "SMALLINT", "i": "INT", "l": "BIGINT", "f": "FLOAT", "d": "DOUBLE", "m": "DECIMAL(10,2)",
    "n": "DECIMAL(38,18)", "s": "STRING", "b": "BOOLEAN", "a": "DATE", "w": "TIMESTAMP",
}  # fmt: skip
SCHEMA = ", ".join([*(f"{name} {kind}" for name, kind in TYPES.items()), "y INT"])
# each column as a text that shows all of its value
SQL = f"SELECT {', '.join(f'CAST({name} AS STRING) AS {name}' for name in TYPES)}, y FROM raw"
TEXTS = [
    "", "0", "1", "-1", "+7", "007", "1.0", "3.0", "3.", "3.7", ".5", "-.5", ".", "-", "+", "1e3", "1E-3", "1e",
    "1e400", "1d",
    "1f", "1D", "0x1p3", "0x1F", "1_000", "1,000", "62,5", "1 000", " 4", "4 ", "\t4", " 4 ", "٣", "½", "127", "128",
    "-128",
    "-129", "32767", "32768", "2147483647", "2147483648", "-2147483649", "9223372036854775807", "9223372036854775808",
    "16777217", "0.1", "0.10", "62.5", "62.555", "62.550", "99999999.99", "99999999.995", "123456789.1", "1e5",
    "1e-20",
    "12345678901234567890.123456789012345678", "NaN", "nan", "\tnan", "\x0bNaN", "++NaN", "+NaN", "3.0\t", "-NaN", "NA", "null", "NULL", "Infinity", "-Infinity",
    "inf", "Inf",
    "true", "TRUE", "t", "Yes", "y", "on", "false", "f", "no", "N", "off", "2021-03-05", "2021-3-5", "2021-03",
    "2021", "21-03-05",
    "05/03/2021", "2021-02-30", "2021-02-29", "2020-02-29", "0000-01-01", "9999-12-31", "+10000-01-01", "-0001-01-01",
    "1582-10-10", "2021-03-05T", "2021-03-05 ", "2021-03-05x", "2021-03-05 10:11:12", "2021-03-05T10:11:12",
    "2021-03-05 10:11",
    "2021-03-05T10:11:12Z", "2021-03-05T10:11:12.123456", "2021-03-05T10:11:12.123456789", "2021-03-05 10:11:12+01:00",
    "2021-03-05 24:00:00", "2021-03-05 23:59:60", "10:11:12", "T10:11", "abc", "a,b", 'say "x"', "\u00a0", "é", "日本",
]  # fmt: skip


def rows_of(number: int, seed: int) -> list[dict[str, str]]:
    """Return records of which most fit; each has at most three hostile fields."""
    random_ = random.Random(seed)
    good = {"t": "1", "h": "2", "i": "3", "l": "4", "f": "1.5", "d": "2.5", "m": "3.25", "n": "1", "s": "x",
    "b": "true",
            "a": "2021-03-05", "w": "2021-03-05 10:11:12"}  # fmt: skip
    rows = []
    for row in range(number):
        hostile = {random_.choice([*TYPES]): random_.choice(TEXTS) for _ in range(random_.randrange(4))}
        rows.append({**good, **hostile, "y": str(row % 2)})
    return rows


def as_csv(rows: list[dict[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
