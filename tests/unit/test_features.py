"""What features.sql may say is checked before Spark starts; everything else is refused by name."""

from __future__ import annotations

import pytest

from conftest import PENGUINS, UseCase
from pipeline.config import load_config
from pipeline.data.features_sql import check, select_more
from pipeline.runtime.errors import UserError


def test_the_lab_s_own_sql_is_allowed() -> None:
    check(load_config(PENGUINS))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT r.a, r.k, r.y FROM raw r",
        "SELECT r.a, k, y FROM raw AS r;",
        "select a, k, y from RAW ; -- the end",
        "\ufeffSELECT a, k, y FROM raw",
        "-- a comment with now()\nSELECT a /* rand() */, k, y FROM `raw`",
        "SELECT a AS `now()`, 'rand()' AS k, y FROM raw",
        "SELECT extract(year FROM to_date(k)) AS a, k, y FROM raw",
        "SELECT CASE WHEN (a > 1) AND (a < 2) THEN a END AS a, k, y FROM raw",
        "SELECT a IN (1, 2) AS a, k, CAST(y AS DECIMAL(10, 2)) AS y FROM raw",
    ],
)
def test_what_people_write_around_it_is_no_reason_to_refuse(use_case: UseCase, sql: str) -> None:
    check(use_case(sql=sql))


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("SELECT sum(a) AS a FROM raw", "'SUM(a)' is an aggregate"),
        ("SELECT a FROM raw GROUP BY a", "'GROUP BY a' is an aggregate"),
        ("SELECT avg(a) OVER (PARTITION BY k) AS a FROM raw", "is a window"),
        ("SELECT r.a FROM raw r JOIN raw s ON r.k = s.k", "is a join"),
        ("SELECT a FROM raw TABLESAMPLE (50 PERCENT)", "is a sample"),
        ("SELECT TRANSFORM(a) USING 'touch p' AS a FROM raw", "is a program of its own"),
        ("SELECT default.evil(a) AS a FROM raw", "is a function of a catalog"),
        ("SELECT system.builtin.`reflect` ('java.lang.System', 'exit', 3) AS a FROM raw", "is a function of a catalog"),
        ("SELECT a FROM raw LATERAL VIEW explode(array(1, 2)) t AS b", "is a join"),
        ("SELECT (SELECT 1) AS a FROM raw", "'(SELECT 1)' is a subquery"),
        ("WITH x AS (SELECT * FROM raw) SELECT a FROM x", "is a subquery"),
        ("SELECT a FROM raw WHERE a > 0", "'WHERE a > 0' is a filter"),
        ("SELECT DISTINCT a FROM raw", "is a choice or an order of rows"),
        ("SELECT a FROM raw LIMIT 3", "'LIMIT 3' is a choice or an order of rows"),
        ("SELECT a FROM raw ORDER BY a", "is a choice or an order of rows"),
        ("SELECT explode(array(1, 2)) AS a FROM raw", "makes several rows of one"),
        ("SELECT rand() AS a FROM raw", "'rand()' is chance"),
        ("SELECT uuid() AS a FROM raw", "'uuid()' is chance"),
        ("SELECT current_date() AS a FROM raw", "'current_date()' is the time of day"),
        ("SELECT current_date AS a FROM raw", "is the time of day"),
        ("SELECT datediff(now(), a) AS a FROM raw", "'now()' is the time of day"),
        ("SELECT localtimestamp() AS a FROM raw", "'localtimestamp()' is the time of day"),
        ("SELECT unix_timestamp() AS a FROM raw", "'unix_timestamp()' without an argument is the time of day"),
        ("SELECT user() AS a FROM raw", "'user()' is a fact of the machine or the session"),
        ("SELECT version() AS a FROM raw", "'version()' is a fact of the machine or the session"),
        ("SELECT a FROM raw UNION ALL SELECT a FROM raw", "must be one SELECT … FROM raw, not"),
        ("SELECT a FROM raw; DROP TABLE raw", "must be one SELECT … FROM raw, not"),
        ("DROP TABLE raw", "must be one SELECT … FROM raw, not 'DROP TABLE raw'"),
        ("SELEC a FROM raw", "features.sql: "),
        ("", "must be one SELECT … FROM raw, not an empty file"),
        ("SELECT a FROM (", "is not valid Spark SQL"),
        ("SELECT 1 AS a", "must read FROM raw and nothing else, but reads no table"),
        ("SELECT a FROM other", "must read FROM raw and nothing else, but reads other"),
        (
            "SELECT subtsring(k, 1, 2) AS k FROM raw",
            "the function 'subtsring' is not allowed; did you mean 'substring'?",
        ),
        ("SELECT aes_encrypt(k, k) AS k FROM raw", "the function 'aes_encrypt' is not allowed"),
    ],
)
def test_sql_that_is_not_row_wise_or_not_in_the_list_is_refused(use_case: UseCase, sql: str, problem: str) -> None:
    config = use_case(sql=sql)
    with pytest.raises(UserError) as raised:
        check(config)
    message = str(raised.value)
    assert message.startswith(f"{config.file}: features.sql: {config.folder / 'features.sql'}: ")
    assert problem in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT a FROM raw", "SELECT a , struct(*) AS s FROM raw"),
        ("SELECT r.a FROM raw r ; -- x", "SELECT r.a , struct(*) AS s FROM raw r"),
        ("SELECT trim(BOTH 'x' FROM k) AS k FROM RAW", "SELECT trim(BOTH 'x' FROM k) AS k , struct(*) AS s FROM RAW"),
        ("SELECT a IS DISTINCT FROM b AS c FROM raw", "SELECT a IS DISTINCT FROM b AS c , struct(*) AS s FROM raw"),
        ("SELECT a -- from\nFROM raw", "SELECT a -- from\n, struct(*) AS s FROM raw"),
    ],
)
def test_a_column_is_added_without_a_change_of_the_text(sql: str, expected: str) -> None:
    assert select_more(sql, "struct(*) AS s") == expected
