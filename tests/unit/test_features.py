"""features.sql makes one row of each row, from that row alone; everything else is refused by name."""

from __future__ import annotations

import duckdb
import pytest

from conftest import PENGUINS, UseCase
from pipeline.config import load_config
from pipeline.data.features_sql import translate
from pipeline.runtime.errors import UserError


def test_the_lab_s_own_penguin_through_the_translation() -> None:
    translation = translate(load_config(PENGUINS))
    with duckdb.connect() as database:
        columns = ", ".join(f"{name} {kind}" for name, kind in translation.raw_types.items())
        database.execute(f"CREATE TABLE raw ({columns})")
        database.execute("INSERT INTO raw VALUES ('Biscoe', 50.4, 15.3, 200, 5000, NULL)")
        (row,) = database.execute(translation.select).fetchall()
    assert row == ("Biscoe", pytest.approx(50.4), pytest.approx(15.3), 20.0, 50.0, None)


def test_a_model_needs_the_columns_of_its_features() -> None:
    assert "Species" not in translate(load_config(PENGUINS)).needed
    assert len(translate(load_config(PENGUINS)).needed) == 5


@pytest.mark.parametrize(
    ("sql", "needed"),
    [
        ("SELECT * FROM raw", {"a", "k"}),
        ("SELECT A, k, y FROM raw", {"a", "k"}),
        ("SELECT a + y AS a, k, y FROM raw", {"a", "k", "y"}),
        ("SELECT 1 AS a, k, y FROM raw", {"k"}),
        ("SELECT y * 2 AS twice, twice + 1 AS a, k, y FROM raw", {"k", "y"}),
    ],
)
def test_columns_are_followed_to_the_raw_row(use_case: UseCase, sql: str, needed: set[str]) -> None:
    assert translate(use_case(sql=sql)).needed == needed


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("SELECT sum(a) AS a FROM raw", "'SUM(a)' is an aggregate"),
        ("SELECT a FROM raw GROUP BY a", "'GROUP BY a' is an aggregate"),
        ("SELECT avg(a) OVER (PARTITION BY k) AS a FROM raw", "is a window"),
        ("SELECT r.a FROM raw r JOIN raw s ON r.k = s.k", "is a join"),
        ("SELECT a FROM raw LATERAL VIEW explode(array(1, 2)) t AS b", "is a join"),
        ("SELECT (SELECT 1) AS a FROM raw", "'(SELECT 1)' is a subquery"),
        ("WITH x AS (SELECT * FROM raw) SELECT a FROM x", "is a subquery"),
        ("SELECT a FROM raw WHERE a > 0", "'WHERE a > 0' is a filter"),
        ("SELECT DISTINCT a FROM raw", "is a choice or an order of rows"),
        ("SELECT a FROM raw LIMIT 3", "'LIMIT 3' is a choice or an order of rows"),
        ("SELECT a FROM raw ORDER BY a", "is a choice or an order of rows"),
        ("SELECT explode(array(1, 2)) AS a FROM raw", "makes several rows of one"),
        ("SELECT rand() AS a FROM raw", "'RAND()' is chance"),
        ("SELECT current_date() AS a FROM raw", "is the time of day"),
        ("SELECT a FROM raw UNION ALL SELECT a FROM raw", "must be one SELECT … FROM raw, not"),
        ("SELECT a FROM raw; DROP TABLE raw", "must be one SELECT … FROM raw, not"),
        ("DROP TABLE raw", "must be one SELECT … FROM raw, not 'DROP TABLE raw'"),
        ("SELEC a FROM raw", "features.sql: "),
        ("", "must be one SELECT … FROM raw, not an empty file"),
        ("SELECT a FROM (", "is not valid Spark SQL"),
        ("SELECT 1 AS a", "must read FROM raw and nothing else, but reads no table"),
        ("SELECT a FROM other", "must read FROM raw and nothing else, but reads other"),
        ("SELECT aa FROM raw", 'Referenced column "aa" not found'),
        ("SELECT xxhash64(a) AS a FROM raw", "cannot run outside Spark, as a model must"),
    ],
)
def test_sql_that_is_not_row_wise_or_translatable_is_refused(use_case: UseCase, sql: str, problem: str) -> None:
    config = use_case(sql=sql)
    with pytest.raises(UserError) as raised:
        translate(config)
    message = str(raised.value)
    assert message.startswith(f"{config.file}: features.sql: {config.folder / 'features.sql'}: ")
    assert problem in message
    assert "\n" not in message


def test_an_invalid_schema_is_reported(use_case: UseCase) -> None:
    with pytest.raises(UserError, match=r"source\.schema: .*DOUBL"):
        translate(use_case(source={"path": "data.csv", "schema": "a DOUBL, k STRING, y INT"}))
