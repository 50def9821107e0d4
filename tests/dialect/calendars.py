"""Expressions of dates and times without text."""

from __future__ import annotations

from . import IS_3_5_0

_LONG = [] if IS_3_5_0 else ["CAST(l AS TIMESTAMP)"]

EXAMPLES: dict[str, list[str]] = {
    "year": ["year(a)", "year(w)"],
    "quarter": ["quarter(a)", "quarter(w)"],
    "month": ["month(a)", "month(w)"],
    "day": ["day(a)"],
    "dayofmonth": ["dayofmonth(w)"],
    "dayofweek": ["dayofweek(a)", "dayofweek(w)"],
    "weekday": ["weekday(a)", "weekday(w)"],
    "dayofyear": ["dayofyear(a)", "dayofyear(w)"],
    "weekofyear": ["weekofyear(a)", "weekofyear(w)"],
    "hour": ["hour(w)"],
    "minute": ["minute(w)"],
    "second": ["second(w)"],
    "extract": [
        "extract(YEAR FROM a)", "extract(dow FROM a)", "extract(dayofweek_iso FROM a)", "extract(yearofweek FROM w)",
        "extract(SECOND FROM w)", "extract(doy FROM a)", "extract(week FROM w)", "extract(hour FROM a)",
    ],
    "date_part": [
        "date_part('minute', w)", "date_part('quarter', a)", "date_part('seconds', w)", "date_part('dow_iso', a)",
    ],
    "datepart": ["datepart('hour', w)"],
    "date_add": ["date_add(a, 1)", "date_add(a, h)", "a + 1", "date_add(w, t)", "a + INTERVAL 3 DAYS"],
    "date_sub": ["date_sub(a, 30)", "date_sub(a, h)", "a - 1"],
    "dateadd": ["dateadd(day, 3, a)", "dateadd(MONTH, -5, w)", "dateadd(a, 7)", "dateadd(HOUR, h, w)"],
    "datediff": ["datediff(a, z)", "datediff(w, a)", "datediff(day, w, x)"],
    "date_diff": ["date_diff(a, z)"],
    "add_months": [
        "add_months(a, 2)", "add_months(a, -13)", "add_months(w, 1)", "add_months(a, h)", "add_months(w, t)",
    ],
    "months_between": ["months_between(w, x)", "months_between(a, z)", "months_between(w, x, false)"],
    "last_day": ["last_day(a)", "last_day(w)"],
    "next_day": ["next_day(a, 'MO')", "next_day(a, 'sunday')", "next_day(w, 'Thu')", "next_day(a, 'someday')"],
    "trunc": ["trunc(a, 'MM')", "trunc(a, 'year')", "trunc(a, 'quarter')", "trunc(w, 'WEEK')", "trunc(a, 'day')"],
    "date_trunc": [f"date_trunc('{level}', w)" for level in ("YEAR", "mon", "week", "dd", "hour", "minute", "second")]
    + ["date_trunc('quarter', a)", "date_trunc('millisecond', w)", "date_trunc('fortnight', w)"],
    "make_date": ["make_date(h, t, 3)", "make_date(2000 + t, 2, t)", "make_date(2020, t, t)"],
    "unix_date": ["unix_date(a)"],
    "date_from_unix_date": ["date_from_unix_date(h)", "date_from_unix_date(i)"],
    "make_timestamp": [
        "make_timestamp(2020, t, t, 3, 4, 5)", "make_timestamp(h, 2, 29, t, 59, 5.25)",
        "make_timestamp(2021, 12, 31, 23, 59, d)", "make_timestamp(2021, 12, 31, 23, 59, 60)",
        "make_timestamp(h, t, t, t, t, m)",
    ],
    "make_timestamp_ntz": ["CAST(make_timestamp_ntz(2020, t, t, 3, 4, 5) AS TIMESTAMP)"],
    "make_timestamp_ltz": ["make_timestamp_ltz(2020, t, t, 3, 4, 5)"],
    "interval": [
        "a + INTERVAL '1' MONTH", "a - INTERVAL 2 YEARS", "w + INTERVAL 90 MINUTES", "w + INTERVAL 2 MONTHS",
        "w - INTERVAL '1 2:3:4' DAY TO SECOND", "extract(SECOND FROM w - x)", "extract(HOUR FROM w - a)",
        "extract(MINUTE FROM w - x)", "extract(DAY FROM w - x)", "extract(DAY FROM a - z)", "CAST(a - z AS INT)",
        "CAST(w - x AS BIGINT)", "a + INTERVAL 5 HOURS",
    ],
    "timestampdiff": [
        f"timestampdiff({unit}, w, x)" for unit in ("SECOND", "HOUR", "DAY", "WEEK", "MONTH", "QUARTER", "YEAR")
    ],
    "timestamp_diff": ["datediff(HOUR, w, x)", "datediff(MONTH, a, z)"],
    "timestampadd": [
        "timestampadd(HOUR, 5, w)", "timestampadd(MONTH, -1, w)", "timestampadd(QUARTER, 3, w)",
        "timestampadd(MINUTE, h, w)", "timestampadd(YEAR, t, w)",
    ],
    "unix_seconds": ["unix_seconds(w)"],
    "unix_millis": ["unix_millis(w)"],
    "unix_micros": ["unix_micros(w)"],
    "timestamp_seconds": [
        "timestamp_seconds(i)", "timestamp_seconds(t)", "timestamp_seconds(d)", "timestamp_seconds(f)",
        "timestamp_seconds(m)",
    ],
    "timestamp_millis": ["timestamp_millis(i)"],
    "timestamp_micros": ["timestamp_micros(l)", "timestamp_micros(h)"],
    "from_utc_timestamp": [
        f"from_utc_timestamp(w, '{zone}')"
        for zone in ("Asia/Tokyo", "Europe/Paris", "America/New_York", "Australia/Lord_Howe", "+05:30", "PST")
    ],
    "to_utc_timestamp": [
        f"to_utc_timestamp(w, '{zone}')"
        for zone in ("America/Los_Angeles", "Europe/London", "America/Sao_Paulo", "Asia/Kolkata", "-03:00")
    ],
    "cast": [
        "CAST(w AS DATE)", "CAST(a AS TIMESTAMP)", "CAST(w AS BIGINT)", "CAST(w AS INT)", "CAST(w AS DOUBLE)",
        "CAST(w AS FLOAT)", "CAST(i AS TIMESTAMP)", "CAST(d AS TIMESTAMP)", "CAST(w AS BOOLEAN)", "CAST(a AS INT)",
        "CAST(b AS TIMESTAMP)", "CAST(CAST(l AS DOUBLE) AS TIMESTAMP)", *_LONG, "CAST(m AS TIMESTAMP)", "CAST(w AS TINYINT)",
        "CAST(n AS TIMESTAMP)", "CAST(w AS DECIMAL(20,6))", "CAST(w AS DECIMAL(12,1))", "CAST(f AS TIMESTAMP)",
        "CAST(a AS DECIMAL(10,2))", "CAST(CAST(w AS TIMESTAMP_NTZ) AS DATE)", "CAST(a AS TIMESTAMP_NTZ)",
    ],
    "try_cast": ["try_cast(w AS INT)", "try_cast(w AS SMALLINT)", "try_cast(d AS TIMESTAMP)", "try_cast(w AS DATE)"],
}  # fmt: skip
VALUES: dict[str, list[object]] = {
    # the hours at which clocks change in Paris, New York, London and Sao Paulo, and a quarter of an hour around them
    "w": [
        second * 1_000_000 + shift * 900_000_000
        for second in (
            1_616_893_200, 1_635_642_000, 1_615_705_200, 1_636_268_400, 1_616_896_800, 1_541_300_400, 1_550_372_400,
            4_078_256_400, -1_633_269_600, 1_585_443_600,
        )
        for shift in range(-20, 21)
    ],
}  # fmt: skip
REFUSED: dict[str, str] = {
    "from_utc_timestamp(w, s)": "the zone must be a literal",
    "from_utc_timestamp(w, 'Europe/Nowhere')": "there is no time zone 'Europe/Nowhere'",
    "add_months(a, i)": "must be a literal",
    **({"CAST(l AS TIMESTAMP)": "it gives one result with generated code and another without"} if IS_3_5_0 else {}),
    "timestamp_seconds(l)": "is not allowed for BIGINT",
    "trunc(a, s)": "must be a literal",
    "next_day(a, s)": "must be a literal",
    "timestamp_seconds(n)": "it may not fit into a TIMESTAMP",
    "timestamp_millis(l)": "write timestamp_micros(number * 1000)",
    "timestampadd(HOUR, i, w)": "must be a literal",
    "timestampadd(YEAR, h, w)": "by more than 120,000 months",
    "w + INTERVAL 20000 YEARS": "by more than 120,000 months",
    "CAST(w - x AS INT)": "cast to BIGINT",
    "make_timestamp(2020, 1, 1, 0, 0, 0, 'UTC')": "with a zone",
    "w + (w - x)": "an interval must be a literal",
}
