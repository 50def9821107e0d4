"""A time zone's rules as Spark's Java knows them, for packaged models."""

from __future__ import annotations

import json
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import DateTimeException

from pipeline.model.dialect.entry import NotAllowed
from pipeline.model.dialect.zones import LAST_YEAR


def zone_rules(jvm: Any, name: str) -> str:
    """Return the rules of a zone in the form of :data:`pipeline.model.dialect.zones.RULES`.

    Raises:
        NotAllowed: Java knows no such zone.
    """
    try:
        rules = jvm.org.apache.spark.sql.catalyst.util.DateTimeUtils.getZoneId(name).getRules()
    except (DateTimeException, Py4JJavaError):  # pyspark has its own exception for Java's DateTimeException
        raise NotAllowed(f"there is no time zone '{name}'") from None
    instant = jvm.java.time.Instant
    end = instant.parse(f"{LAST_YEAR + 1}-01-01T00:00:00Z").getEpochSecond()
    changes, transition = [], rules.nextTransition(instant.MIN)
    first = rules.getOffset(instant.MIN).getTotalSeconds()
    while transition is not None and transition.toEpochSecond() < end:
        changes.append([transition.toEpochSecond(), transition.getOffsetAfter().getTotalSeconds()])
        transition = rules.nextTransition(transition.getInstant())
    return json.dumps([first, *changes], separators=(",", ":"))
