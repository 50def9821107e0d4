"""The SparkSession: that of spark-submit or Databricks, else a new one."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import Observation, SparkSession

from pipeline.runtime import databricks
from pipeline.runtime.console import log
from pipeline.runtime.errors import StorageError, UserError, one_line

_PATIENCE_S = 60
"""So long after an action its observations may come."""

_MEANING = {
    # features.sql gives the same result on every cluster: NULL for a bad CAST or a division by zero, times in UTC
    "spark.sql.ansi.enabled": "false",
    "spark.sql.session.timeZone": "UTC",
    # a date that does not fit its pattern is NULL, not an error about the parser of Spark 2
    "spark.sql.legacy.timeParserPolicy": "CORRECTED",
    "spark.sql.caseSensitive": "false",
    "spark.sql.timestampType": "TIMESTAMP_LTZ",
    # what the text of features.sql says
    "spark.sql.ansi.doubleQuotedIdentifiers": "false",
    "spark.sql.parser.escapedStringLiterals": "false",
    "spark.sql.variable.substitute": "false",
    "spark.sql.legacy.exponentLiteralAsDecimal.enabled": "false",
    "spark.sql.decimalOperations.allowPrecisionLoss": "true",
    "spark.sql.legacy.sizeOfNull": "true",
    "spark.sql.function.concatBinaryAsString": "false",
    # dates before 1582 are what they say, in the calendar of today
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInRead": "CORRECTED",
    # a file that cannot be read is an error, not fewer rows
    "spark.sql.files.ignoreCorruptFiles": "false",
    "spark.sql.files.ignoreMissingFiles": "false",
}
"""Settings that shape results, pinned whatever the user's Spark configuration says."""

_SETTINGS = {
    **_MEANING,
    # with pruning, Spark does not parse columns that a query does not use, and misses records that do not fit
    "spark.sql.csv.parser.columnPruning.enabled": "false",
    # write both splits in one pass without sorting the rows by split first
    "spark.sql.maxConcurrentOutputFileWriters": "8",
    # Java interprets a method of more bytes instead of compiling it; Spark then runs that stage operator by operator,
    # in smaller methods (default: 65535)
    "spark.sql.codegen.hugeMethodLimit": "8000",
}


def get_session(app_name: str, work_dir: Path) -> SparkSession:
    """Return the running SparkSession, or start one on the master that spark-submit or SPARK_CONF_DIR names."""
    if SparkSession.getActiveSession() is None:
        log.info("starting Spark")
    builder = SparkSession.builder.appName(app_name)
    if not databricks.is_runtime():  # without it Spark makes a folder in the working directory
        builder = builder.config("spark.sql.warehouse.dir", str(work_dir / "spark-warehouse"))
    try:
        spark = builder.getOrCreate()
    except Py4JJavaError as error:  # a master that does not answer, a setting that Spark refuses
        cause = re.sub(r"^([\w$]+\.)+[\w$]+: ", "", one_line(str(error.java_exception), 400))
        raise UserError(f"Spark cannot be started: {cause.rstrip('.')}; see its settings (SPARK_CONF_DIR)") from None
    except (PySparkRuntimeError, OSError) as error:
        java = os.environ.get("JAVA_HOME", "not set")
        problem = f"Spark's Java cannot be started: {one_line(error)}"
        raise UserError(f"{problem}; look at JAVA_HOME, which is {java}, or source conf/spark/env.sh") from None
    for key, value in _SETTINGS.items():
        configured = spark.sparkContext.getConf().get(key)
        if key in _MEANING and configured is not None and configured.lower() != value.lower():
            log.info("%s is %s here, not %s: rows must mean the same everywhere", key, value, configured)
        spark.conf.set(key, value)
    _check_locale(spark)
    log.info("Spark %s on %s", spark.version, spark.sparkContext.master)
    return spark


def _check_locale(spark: SparkSession) -> None:
    """Raise UserError where Java changes letters as Turkish, Azerbaijani or Lithuanian do: upper('i') is no I there."""
    jvm: Any = spark._jvm
    language = str(jvm.java.util.Locale.getDefault().getLanguage())
    if language in ("tr", "az", "lt"):
        raise UserError(
            f"Java's language is '{language}', in which upper() and lower() give other letters than elsewhere: "
            "set spark.driver.extraJavaOptions and spark.executor.extraJavaOptions to -Duser.language=en"
        )


def observed(observation: Observation) -> dict[str, Any]:
    """Return what Spark has observed in the action that has just ended.

    Raises:
        StorageError: Spark does not tell it: `Observation.get` waits for an event that a busy Spark may drop.
    """
    answer: Future[dict[str, Any]] = Future()

    def ask() -> None:
        try:
            answer.set_result(observation.get)
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()  # no pool: its threads would keep the process from ending
    try:
        return answer.result(_PATIENCE_S)
    except TimeoutError:
        problem = f"Spark has not told within {_PATIENCE_S} s how many rows it has read"
        raise StorageError(f"{problem}: raise spark.scheduler.listenerbus.eventqueue.capacity, and run again") from None


@contextmanager
def progress(spark: SparkSession, work: str, every_s: float = 10) -> Iterator[None]:
    """Log ``work``, and every ``every_s`` seconds how many tasks of the running Spark stages are done."""
    done = threading.Event()

    def report() -> None:
        tracker = spark.sparkContext.statusTracker()
        while not done.wait(every_s):
            stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
            finished, tasks = (sum(getattr(s, name) for s in stages if s) for name in ("numCompletedTasks", "numTasks"))
            log.info("%s: %d of %d tasks done", work, finished, tasks)

    log.info("%s", work)
    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
