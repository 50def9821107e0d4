"""What a person sees of a job: log lines on stderr, the summary as the last line of stdout, and the exit code."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from pipeline.errors import RankError, UserError

log = logging.getLogger("pipeline")


def show_logs() -> None:
    """Send this project's log lines to stderr with the time of day; other libraries' only from WARNING on."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    log.setLevel(logging.INFO)
    # py4j logs every broken connection of a normal shutdown
    logging.getLogger("py4j").setLevel(logging.CRITICAL)


def run_job(job: Callable[[], dict[str, Any]]) -> int:
    """Run ``job``, print what it returns as one JSON line, and return the process's exit code.

    0: done. 2: the user's config or data is wrong, told in one sentence. 1: anything else, with a traceback.
    """
    show_logs()
    try:
        summary = job()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    except RankError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr, flush=True)
        return 1
    except Exception:
        traceback.print_exc()
        return 1
    sys.stderr.flush()
    print(json.dumps(summary), flush=True)
    return 0


class Stopwatch:
    """Seconds spent in each named stage of a job."""

    def __init__(self) -> None:
        self._begin = self._last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """Give the time since the last lap to ``stage``."""
        now = time.perf_counter()
        self.seconds[stage] = round(now - self._last, 3)
        self._last = now

    def total(self) -> float:
        """Seconds since the stopwatch was made."""
        return round(time.perf_counter() - self._begin, 3)
