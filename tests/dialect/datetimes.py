"""Expressions that read dates and times from text and print them, and texts that almost have the form."""

from __future__ import annotations

# a zone whose clock changes and a time without a date are not among the values: Spark's result depends on the zone's
# history and on the day, the dialect's is NULL; nor are years for which Spark ends with an error

EXAMPLES: dict[str, list[str]] = {
    "to_date": [
        "to_date(s)", "to_date(s, 'yyyy-MM-dd')", "to_date(s, 'd/M/yyyy')", "to_date(s, 'yyyyMMdd')",
        "to_date(s, 'MMM d, yyyy')", "to_date(s, 'yyyy-DDD')", "to_date(s, 'MM/yy')",
        "to_date(s, '[yyyy-MM-dd][dd/MM/yyyy]')",
    ],
    "to_timestamp": [
        "to_timestamp(s)", "to_timestamp(s, 'yyyy-MM-dd HH:mm:ss[.SSS]')", "to_timestamp(s, 'yyyyMMddHHmmss')",
        "to_timestamp(s, \"yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX\")", "to_timestamp(s, 'dd/MM/yyyy hh:mm a')",
        "to_timestamp(s, 'yyyy-MM-dd HH:mm:ss Z')", "to_timestamp(s, 'hh:mm')", "to_timestamp('2021-03-05 10:11:12')",
    ],
    "date": ["date(s)", "cast(s as date)", "try_cast(s as date)", "cast(a as string)", "string(date(s))"],
    "timestamp": ["timestamp(s)", "cast(s as timestamp)", "try_cast(s as timestamp)", "cast(w as string)"],
    "try_to_timestamp": ["try_to_timestamp(s)", "try_to_timestamp(s, 'MM/yyyy')", "try_to_timestamp(a, 'yyyy')"],
    "unix_timestamp": [
        "unix_timestamp(s)", "unix_timestamp(s, 'dd/MM/yyyy')", "unix_timestamp(a)", "unix_timestamp(w)",
        "unix_timestamp(s, 'yyyy-MM-dd kk')",
    ],
    "to_unix_timestamp": [
        "to_unix_timestamp(s)", "to_unix_timestamp(s, 'dd-MMM-yy')", "to_unix_timestamp(a, 'yyyy')",
        "to_unix_timestamp(w)",
    ],
    "from_unixtime": ["from_unixtime(l)", "from_unixtime(l, 'EEEE d MMMM yyyy h a')", "from_unixtime(k, 'yyyyMMdd')"],
    "date_format": [
        "date_format(w, 'yyyy-MM-dd HH:mm:ss.SSSSSS')", "date_format(w, 'd/M/yy h:m:s a')",
        "date_format(w, 'EEE, dd MMM y D DDD')", "date_format(w, \"EEEE 'in' MMMM QQQ qqqq LLL yyyyy\")",
        "date_format(w, 'k kk K KK H S z VV O X xxx Z')", "date_format(timestamp(s), '[yyyy]')",
    ],
}  # fmt: skip

_FORMS = [
    "2021-03-05", "2021-3-5", "+2021-03-05", "-0044-03-15", "0000-02-29", "-0000-01-01", "12021-03-05", "+12021-03-05",
    "1582-10-10", "1900-02-29", "2020-02-29", "2021-02-29", "2021-02-30", "2021-04-31", "2021-00-10", "2021-13-01",
    "2021-03-00", "2021-03-32", "2021", "2021-03", "202-03-05", "2021-003-05", "2021/03/05", "2021-03-05T",
    "2021-03-05Tx", "2021-03-05 x", "2021-03-05x", "5881580-07-11", "5881580-07-12", "10000000-01-01",
    "2021-03-05 10:11:12", "2021-03-05 1:2:3", "2021-03-05T10:11:12", "2021-03-05 24:00:00", "2021-03-05 23:59:60",
    "2021-03-05 10", "2021-03-05 10:11", "2021-03-05 10:11:", "2021-03-05 10:11:12.", "2021-03-05 10:11:12.5",
    "2021-03-05 10:11:12.123456789", "2021-03-05 10:11:12.123", "2021-03-05 10:11:12.1234", "2021-03-05  10:11:12",
    "2021-03-05 10:11:12Z", "2021-03-05 10:11:12z", "2021-03-05 10:11:12 UTC", "2021-03-05 10:11:12 GMT+3",
    "2021-03-05 10:11:12UT-03:30", "2021-03-05 10:11:12+1", "2021-03-05 10:11:12+1:30", "2021-03-05 10:11:12+01:3",
    "2021-03-05 10:11:12 +0130", "2021-03-05 10:11:12 +00:00:15", "2021-03-05 10:11:12-18:00",
    "2021-03-05 10:11:12+18:01", "2021-03-05 10:11:12 Etc/GMT+3", "2021-03-05 10:11:12 Zulu",
    "2021-03-05 10:11:12 EST", "2021-03-05 10:11:12 XYZ", "2021-03-05 10:11:12 +0000", "2021-03-05 10:11:12 -1200",
    "2021-03-05T10:11:12.123456+01:00", "2021-03-05T10:11:12.1+01:00", "2021-03-05T10:11:12.123456Z",
    "2021-03-05T10:11:12.123456+1:00", "2021-03-05T10:11:12.+01:00", "2021-03-05t10:11:12.5z", "epoch", "now", "today",
    "05/03/2021", "5/3/2021", "31/02/2021", "31/12/2021", "12/31/2021", "05/03/21", "05/03/2021 ", " 05/03/2021",
    "05/03/2021 10:11 AM", "05/03/2021 12:00 am", "05/03/2021 12:00 Pm", "05/03/2021 13:00 PM", "05/03/2021 10:11",
    "20210305", "2021035", "202103050", "20210305101112", "2021030510111", "202103051011123", "-20210305", "+20210305",
    "Mar 5, 2021", "MAR 5, 2021", "mar 5, 2021", "March 5, 2021", "ſep 5, 2021", "05-Mar-21", "05-mar-99", "5-Mar-21",
    "2021-064", "2021-366", "2020-366", "2021-000", "2021-64", "03/21", "13/21", "3/21", "10:1x", "2021-03-05 24",
    "2021-03-05 00", "\t2021-03-05\n", "\u00a02021-03-05", "\x7f2021-03-05\x00", "٢٠٢١-03-05", "2021-03-05 10:11:12 é",
]  # fmt: skip

VALUES: dict[str, list[str]] = {"s": _FORMS}

REFUSED: dict[str, str] = {
    "to_date(s, u)": "must be a literal",
    "to_date('now')": "of the word 'now'",
    "to_timestamp(' Tomorrow')": "of the word ' Tomorrow'",
    "to_date(s, 'dd.MM.yyyy G')": "'G' is not in the list for reading",
    "to_date(s, 'EEE dd MMM yyyy')": "'EEE' is not in the list for reading",
    "to_date(s, 'd/M/y')": "'y' is not in the list for reading",
    "to_timestamp(s, 'yyyy-MM-dd HH:mm z')": "'z' is not in the list for reading",
    "to_timestamp(s, 'DDD')": "'D' needs a year",
    "to_date(s, 'YYYY-MM-dd')": "'YYYY' is not in the list for reading",
    "to_timestamp_ntz(s, 'yyyy')": "TIMESTAMP_NTZ",
    "date_format(w, 'YYYY-ww')": "'YYYY' is not in the list",
    "date_format(w, 'MMMMM')": "'MMMMM' is not in the list",
    "date_format(w, 'yyyy]')": "no '['",
    "date_format(w, 'yyyy {')": "Java reserves '{'",
    "date_format(w, \"h 'o''clock'\")": "quotes must stand around text",
    "from_unixtime(l, s)": "must be a literal",
}
