"""The same expressions in Spark and in the dialect, over the same typed values."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from pipeline.data import catalyst
from pipeline.model.dialect.entry import ENTRIES, NotAllowed
from pipeline.model.dialect.program import Program
from pipeline.model.dialect.tree import Node
from pipeline.model.dialect.types import decimal_type

Columns = Mapping[str, tuple[str, Sequence[Any]]]
"""Typed values by name: Spark's type, and values as the dialect holds them."""

_PER_QUERY = 60
_ARROW: dict[str, pa.DataType] = {
    "boolean": pa.bool_(), "tinyint": pa.int8(), "smallint": pa.int16(), "int": pa.int32(), "bigint": pa.int64(),
    "float": pa.float32(), "double": pa.float64(), "string": pa.string(), "binary": pa.binary(), "date": pa.date32(),
    "timestamp": pa.timestamp("us", "UTC"), "timestamp_ntz": pa.timestamp("us"),
}  # fmt: skip
_AS_WHOLE = {"date": pa.int32(), "timestamp": pa.int64(), "timestamp_ntz": pa.int64()}
_SETTINGS = {
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
}


@dataclass(frozen=True)
class Difference:
    """One value of one expression that is not the same."""

    expression: str
    row: dict[str, Any]
    spark: Any
    dialect: Any


@dataclass(frozen=True)
class Outcome:
    """What became of a list of expressions."""

    compared: int
    """How many values."""
    differences: list[Difference]
    not_allowed: dict[str, str]
    """The reason of each expression that the dialect refuses."""
    not_spark: dict[str, str]
    """The message of each expression that Spark refuses."""
    failed: list[str]
    """The expressions for which Spark's job fails, because of some row."""


def compare(spark: SparkSession, columns: Columns, expressions: Sequence[str], folder: Path) -> Outcome:
    """Evaluate the expressions over the columns in both engines, and compare each value in the result's own type."""
    for key, value in _SETTINGS.items():
        spark.conf.set(key, value)
    rows = write(columns, folder / "given.parquet")
    given_rows = spark.read.parquet(str(folder / "given.parquet"))
    trees: dict[str, Node] = {}
    not_allowed: dict[str, str] = {}
    not_spark: dict[str, str] = {}
    failed: list[str] = []
    for expression in expressions:
        try:
            tree = catalyst.resolve(spark, given_rows, f"SELECT {expression} AS r FROM raw")["r"]
            Program({"r": tree})
            trees[expression] = tree
        except NotAllowed as problem:
            not_allowed[expression] = str(problem)
        except PySparkException as error:
            not_spark[expression] = str(error).split("\n")[0]
    values = {name: values for name, (_, values) in columns.items()}
    ours = Program(trees).run(values, rows)
    differences, allowed, compared = [], list(trees), 0
    for start in range(0, len(allowed), _PER_QUERY):
        theirs = _where_spark_can(spark, allowed[start : start + _PER_QUERY], folder / "results.parquet")
        compared += rows * len(theirs)
        failed += [e for e in allowed[start : start + _PER_QUERY] if e not in theirs]
        for expression in theirs:
            inexact = any(below.op in ENTRIES and ENTRIES[below.op].inexact for below in trees[expression].walk())
            for row, (one, other) in enumerate(zip(theirs[expression], ours[expression], strict=True)):
                if not same(one, other, trees[expression].type, inexact):
                    used = sorted({str(n.value) for n in trees[expression].walk() if n.op == "Column"})
                    given = {name: values[name][row] for name in used}
                    differences.append(Difference(expression, given, one, other))
    return Outcome(compared, differences, not_allowed, not_spark, failed)


def write(columns: Columns, file: Path) -> int:
    """Write the columns as one Parquet file; return the number of rows."""
    arrays = [_to_arrow(values, kind) for kind, values in columns.values()]
    table = pa.table(arrays, names=list(columns))
    pq.write_table(table, file)
    return len(table)


def _where_spark_can(spark: SparkSession, expressions: Sequence[str], folder: Path) -> dict[str, list[Any]]:
    """Return the results of the expressions, without those for which Spark's job fails."""
    try:
        return _in_spark(spark, expressions, folder)
    except Py4JJavaError:
        if len(expressions) == 1:
            return {}
    half = len(expressions) // 2
    parts = expressions[:half], expressions[half:]
    return {e: values for part in parts for e, values in _where_spark_can(spark, part, folder).items()}


def _in_spark(spark: SparkSession, expressions: Sequence[str], folder: Path) -> dict[str, list[Any]]:
    named = [f"{expression} AS r{i}" for i, expression in enumerate(expressions)]
    frame = spark.sql(f"SELECT {', '.join(named)} FROM raw").coalesce(1)
    kinds = [field.dataType.simpleString() for field in frame.schema]
    frame.write.mode("overwrite").parquet(str(folder))
    table = pq.read_table(folder)
    return {e: _from_arrow(table.column(i), kinds[i]) for i, e in enumerate(expressions)}


def _to_arrow(values: Sequence[Any], kind: str) -> pa.Array:
    if kind in _AS_WHOLE:
        return pa.array(values, _AS_WHOLE[kind]).cast(_ARROW[kind])
    if (precision_scale := decimal_type(kind)) is not None:
        return pa.array(values, pa.decimal128(*precision_scale))
    return pa.array(values, _ARROW[kind])


def _from_arrow(values: Any, kind: str) -> list[Any]:
    if kind in _AS_WHOLE:
        values = values.cast(_ARROW[kind]).cast(_AS_WHOLE[kind])
    return list(values.to_pylist())


def same(one: Any, other: Any, kind: str, inexact: bool) -> bool:
    """Tell whether two results are the same: bit for bit, or as float32 where the entry is inexact."""
    if one is None or other is None:
        return one is other
    if kind in ("float", "double"):
        if math.isnan(one) or math.isnan(other):
            return math.isnan(one) and math.isnan(other)
        if inexact:
            return math.isclose(one, other, rel_tol=2**-22, abs_tol=1e-300)
        return struct.pack("<d", one) == struct.pack("<d", other)
    if isinstance(one, Decimal):
        return isinstance(other, Decimal) and one.as_tuple() == other.as_tuple()
    return type(one) is type(other) and bool(one == other)


# ---- values -------------------------------------------------------------------------------------------------------

WHOLE_EDGES = {
    kind: [0, 1, -1, 2, -2, 3, 7, -7, 10, 100, 2 ** (bits - 1) - 1, -(2 ** (bits - 1)), 2 ** (bits - 1) - 2]
    for kind, bits in (("tinyint", 8), ("smallint", 16), ("int", 32), ("bigint", 64))
}
DOUBLE_EDGES = [
    0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 0.1, 3.7, -3.7, 1e-7, 1e7, 1e-3, 9999999.0, 1.0e10, 123456.789,
    2147483647.5, -2147483648.5, 9.223372036854775e18, -9.3e18, 1e16, 1e22, 1e23, 5e-324, 2.2250738585072014e-308,
    1.7976931348623157e308, -1.7976931348623157e308, math.inf, -math.inf, math.nan, 0.005, 1.005, 2.675, 1e-5, 4.35,
]  # fmt: skip
STRING_EDGES = [
    "", " ", "  ", "a", "A", "abc", "ABC", " abc ", "\u00a0abc\u00a0", "\tx\n", "ß", "İ", "ı", "ﬁ", "Σ", "ΑΣ",
    "e\u0301",
    "é", "\U0001f600", "a\U0001f600b", "日本語", "Ǆ", "ŉ", "a b  c", "a,b,,c", ",", "a|b", "100%", "a_b", "a\\b", "x.y",
    "0",
    "1", "-1", "+7", "3.0", "3.7", " 4 ", "1d", "1_000", "1e3", "NaN", "Infinity", "true", "Y", "no", "0x1F", "62,5",
    "2021-03-05", "2021-3-5", "05/03/2021", "2021-02-30", "2021-03-05 10:11:12", "2021-03-05T10:11:12Z", "null",
    "\u200b", "\x00",
]  # fmt: skip
DAY_EDGES = [
    0, -1, 1, 18_691, 59, 60, 365, 11_016, 10_957, 19_782, 19_783, -141_428, -141_427, -141_426, -719_162, -719_163,
    2_932_896, 2_932_897, -735_000, 3_000_000, 20_178, 16_436,
]  # fmt: skip
MICROS_EDGES = [
    0, -1, 1, 1_614_939_072_123_456, 86_399_999_999, 86_400_000_000, -86_400_000_001, 951_782_400_000_000,
    -12_219_292_800_000_000, -12_219_292_800_000_001, -62_135_596_800_000_000, 253_402_300_799_999_999,
    1_616_893_200_000_000, 1_635_642_000_000_000, 1_709_164_800_000_000, 4_102_444_800_000_000, -2_208_988_800_000_000,
]  # fmt: skip


def a_value(random_: random.Random, kind: str) -> Any:
    """Return a value of the type: NULL, an edge, or any."""
    chance = random_.random()
    if chance < 0.05:
        return None
    edge = chance < 0.45
    if kind == "boolean":
        return random_.random() < 0.5
    if kind in WHOLE_EDGES:
        bits = {"tinyint": 8, "smallint": 16, "int": 32, "bigint": 64}[kind]
        wide = random_.choice([4, 8, bits - 1]) if bits > 8 else 7
        return random_.choice(WHOLE_EDGES[kind]) if edge else random_.randrange(-(2**wide), 2**wide)
    if kind in ("float", "double"):
        value = random_.choice(DOUBLE_EDGES) if edge else _any_double(random_)
        return _float32(value) if kind == "float" else value
    if (precision_scale := decimal_type(kind)) is not None:
        precision, scale = precision_scale
        digits = random_.randrange(1, precision + 1)
        largest = 10**digits - 1
        unscaled = (
            random_.choice([0, 1, -1, 5, largest, -largest]) if edge else random_.randrange(-largest, largest + 1)
        )
        return Decimal((int(unscaled < 0), tuple(int(c) for c in str(abs(unscaled))), -scale))
    if kind == "string":
        return random_.choice(STRING_EDGES) if edge else _any_text(random_)
    if kind == "date":
        return random_.choice(DAY_EDGES) if edge else random_.randrange(-30_000, 40_000)
    if kind in ("timestamp", "timestamp_ntz"):
        if edge:
            return random_.choice(MICROS_EDGES)
        micros = random_.randrange(-2_000_000_000, 4_000_000_000) * 1_000_000
        return micros + random_.choice([0, 0, 123_000, 123_456, 999_999])
    raise ValueError(kind)


def columns_of(types: Mapping[str, str], rows: int, seed: int = 0) -> dict[str, tuple[str, list[Any]]]:
    """Return random columns of these types, by name."""
    random_ = random.Random(seed)
    return {name: (kind, [a_value(random_, kind) for _ in range(rows)]) for name, kind in types.items()}


TYPES = {
    "s": "string", "u": "string", "b": "boolean", "c": "boolean", "t": "tinyint", "h": "smallint", "i": "int",
    "j": "int",
    "l": "bigint", "k": "bigint", "f": "float", "g": "float", "d": "double", "e": "double", "m": "decimal(10,2)",
    "n": "decimal(38,10)", "a": "date", "z": "date", "w": "timestamp", "x": "timestamp",
}  # fmt: skip
"""The columns that most tests use."""


def _any_double(random_: random.Random) -> float:
    kind = random_.randrange(4)
    if kind == 0:
        return random_.uniform(-10, 10)
    if kind == 1:
        return float(random_.randrange(-1000, 1000))
    if kind == 2:
        return round(random_.uniform(-1000, 1000), random_.randrange(4))
    return float(struct.unpack("<d", random_.randbytes(8))[0])


def _float32(value: float) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _any_text(random_: random.Random) -> str:
    alphabet = random_.choice(
        ["abcXYZ", "ab ,._-%\\/", "0123456789.+-eE", "aäßéΣσςİıǅ\u0301\u00a0", "日本\U0001f600\U00010400x"]
    )
    return "".join(random_.choice(alphabet) for _ in range(random_.randrange(8)))
