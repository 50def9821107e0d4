"""A job's console: log lines on stderr, the summary as the last line of stdout, and the exit code."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.runtime import databricks
from pipeline.runtime.errors import DeliveryError, RankError, StorageError, UserError

log = logging.getLogger("pipeline")


def show_logs() -> None:
    """Send this project's log lines to stderr with the time of day; other libraries' only from WARNING on."""
    shape, time_of_day = "%(asctime)s %(message)s", "%H:%M:%S"
    logging.basicConfig(format=shape, datefmt=time_of_day, stream=sys.stderr)
    log.setLevel(logging.INFO)
    # a handler for this logger alone: an existing root handler, as in a notebook, may pass warnings only
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(shape, time_of_day))
    log.handlers, log.propagate = [handler], False
    # py4j logs each connection that a normal shutdown breaks, urllib3 each retry of a request
    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    logging.getLogger("urllib3").setLevel(logging.ERROR)


def _restore_stderr() -> None:
    """Connect stderr to that of spark-submit's caller.

    spark-submit starts the driver's Python with stderr merged into stdout (`redirectErrorStream` in Spark's
    PythonRunner). The JVM of spark-submit, this process's parent, still has the caller's stderr.
    """
    parent = Path(f"/proc/{os.getppid()}")
    try:
        if "PYSPARK_GATEWAY_PORT" not in os.environ or (parent / "comm").read_text().strip() != "java":
            return
        stderr = os.open(parent / "fd" / "2", os.O_WRONLY | os.O_APPEND)
    except OSError:
        return  # not Linux, or no permission: logs stay on stdout, before the summary
    os.dup2(stderr, sys.stderr.fileno())
    os.close(stderr)


def run_job(job: Callable[..., dict[str, Any]], *arguments: Any) -> None:
    """Run ``job(*arguments)`` and print what it returns as one JSON line; if it fails, exit the process.

    Exit code 2: the user's configuration or data is wrong; one sentence on stderr says how. Exit code 1: any other
    failure, with a traceback. A job that succeeds calls no `sys.exit`, because Databricks takes any exit for a failure.
    """
    if not databricks.is_runtime():
        _restore_stderr()
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM ends the job like Ctrl-C, with a message
    show_logs()
    if code := _run(job, *arguments):
        sys.exit(code)


def _run(job: Callable[..., dict[str, Any]], *arguments: Any) -> int:
    try:
        summary = job(*arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    except (RankError, DeliveryError, StorageError) as error:
        if error.__cause__:
            traceback.print_exception(error.__cause__)
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except OSError as error:
        if error.errno != errno.ENOSPC:
            traceback.print_exc()
            return 1
        where = f" for {error.filename}" if error.filename else ""
        print(f"error: the disk is full{where}; free some space and run the same command to go on", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; run the same command to go on", file=sys.stderr, flush=True)
        return 1
    except Exception:  # an unknown failure: show the whole traceback
        traceback.print_exc()
        return 1
    sys.stderr.flush()
    print(json.dumps(summary, allow_nan=False), flush=True)
    return 0


class Stopwatch:
    """Seconds spent in each named stage of a job."""

    def __init__(self) -> None:
        self._begin = self._last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """Record the time since the last lap, in seconds, as that of ``stage``."""
        now = time.perf_counter()
        self.seconds[stage] = round(now - self._last, 3)
        self._last = now

    def total(self) -> float:
        """Seconds since the stopwatch was made."""
        return round(time.perf_counter() - self._begin, 3)
