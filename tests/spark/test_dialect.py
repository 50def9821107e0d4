"""Every operation that features.sql may use gives Spark's result without Spark, alone and in random trees."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from dialect import calendars, conditions, datetimes, hashes, number_casts, numbers, patterns, text
from dialect.compare import TYPES, Columns, Outcome, columns_of, compare
from pipeline.data import catalyst
from pipeline.model.dialect import entry
from pipeline.model.dialect.entry import ENTRIES, USAGES, Function
from pipeline.model.dialect.tree import Node

AREAS = (conditions, numbers, number_casts, text, patterns, hashes, calendars, datetimes)
ROWS = 1_000


def examples() -> dict[str, list[str]]:
    """Return the expressions of all areas by the name in the table that they try."""
    merged: dict[str, list[str]] = {}
    for area in AREAS:
        for name, expressions in area.EXAMPLES.items():
            merged.setdefault(name, []).extend(expressions)
    return merged


def values(seed: int = 0) -> Columns:
    """Return random typed columns; a third of each holds the values that an area is interested in."""
    columns = columns_of(TYPES, ROWS, seed)
    for area in AREAS:
        for name, special in area.VALUES.items():
            column = columns[name][1]
            places = random.Random(f"{name} {area.__name__}").sample(range(ROWS), min(ROWS // 8, len(special)))
            for place, value in zip(places, special, strict=False):
                column[place] = value
    return columns


def report(outcome: Outcome) -> str:
    """Return what is wrong, a line each; nothing if all is right."""
    lines = [str(difference) for difference in outcome.differences[:20]]
    lines += [f"not allowed: {expression}: {reason}" for expression, reason in outcome.not_allowed.items()]
    lines += [f"not Spark: {expression}: {reason}" for expression, reason in outcome.not_spark.items()]
    lines += [f"Spark's job fails: {expression}" for expression in outcome.failed]
    return "\n".join(lines)


def test_the_table_is_long_enough_and_every_row_of_it_is_tried() -> None:
    assert len(USAGES) >= 120
    assert set(examples()) == set(USAGES)


@pytest.mark.timeout(600)
def test_every_operation_gives_spark_s_result(spark: SparkSession, tmp_path: Path) -> None:
    expressions = [expression for several in examples().values() for expression in several]
    outcome = compare(spark, values(), expressions, tmp_path)
    assert report(outcome) == ""
    assert outcome.compared == ROWS * len(set(expressions))


@pytest.mark.timeout(600)
def test_random_trees_of_operations_give_spark_s_result(spark: SparkSession, tmp_path: Path) -> None:
    trees = random_trees(spark, tmp_path, 150)
    outcome = compare(spark, values(seed=1), trees, tmp_path)
    # what is inexact may not flow everywhere, and a pattern must be a literal
    assert len(outcome.not_allowed) < len(trees) / 2
    # and for a few Spark's own job fails, as where a date is beyond what it can hold
    assert len(outcome.failed) < 10, outcome.failed
    assert report(dataclasses.replace(outcome, not_allowed={}, failed=[])) == ""


def test_what_is_not_proven_is_refused_with_the_reason(spark: SparkSession, tmp_path: Path) -> None:
    refused = {expression: reason for area in AREAS for expression, reason in area.REFUSED.items()}
    outcome = compare(spark, columns_of(TYPES, 2), list(refused), tmp_path)
    reasons = {**outcome.not_allowed, **outcome.not_spark}
    assert {e: reasons.get(e) for e, part in refused.items() if part not in reasons.get(e, "")} == {}


@contextmanager
def broken(op: str) -> Iterator[None]:
    """Let an operation give another result for some values."""
    right = ENTRIES[op]

    def make(node: Node) -> Function:
        function = right.make(node)
        return lambda *arguments: None if arguments[0] in (1, "a", True) else function(*arguments)

    entry.ENTRIES[op] = dataclasses.replace(right, make=make)
    try:
        yield
    finally:
        entry.ENTRIES[op] = right


def test_a_broken_operation_is_noticed(spark: SparkSession, tmp_path: Path) -> None:
    tried = {"Upper": ["upper(s)"], "Remainder": ["i % 7"], "Not": ["NOT b"]}
    for op, expressions in tried.items():
        with broken(op):
            outcome = compare(spark, values(), expressions, tmp_path)
        assert {difference.expression for difference in outcome.differences} == set(expressions), op


def random_trees(spark: SparkSession, folder: Path, number: int) -> list[str]:
    """Return expressions of two to four of the examples, one put in the place of another's column."""
    random_ = random.Random(7)
    compare(spark, columns_of(TYPES, 2), [], folder)
    rows = spark.read.parquet(str(folder / "given.parquet"))
    every = sorted({expression for several in examples().values() for expression in several})
    by_type: dict[str, list[str]] = {}
    for expression in random_.sample(every, min(300, len(every))):
        kind = catalyst.resolve(spark, rows, f"SELECT {expression} AS r FROM raw")["r"].type
        by_type.setdefault(kind, []).append(expression)
    trees = []
    for _ in range(number):
        tree = random_.choice(every)
        for _ in range(random_.choice([1, 1, 2, 3])):
            tree = put_in(tree, by_type, random_)
        trees.append(tree)
    return sorted(set(trees))


def put_in(tree: str, by_type: dict[str, list[str]], random_: random.Random) -> str:
    """Put an expression in the place of one column of ``tree``, if there is one of its type."""
    # what stands in quotes is no column
    outside = [m for m in re.finditer(r"'(?:[^'\\]|\\.)*'|\b[a-z]\b(?!\()", tree) if not m[0].startswith("'")]
    columns = [m for m in outside if TYPES.get(m[0]) in by_type]
    if not columns:
        return tree
    place = random_.choice(columns)
    inner = random_.choice(by_type[TYPES[place[0]]])
    return f"{tree[: place.start()]}({inner}){tree[place.end() :]}"
