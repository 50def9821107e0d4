"""What the ranks print reaches the driver here: their reports are kept, all the rest goes on to stderr."""

from __future__ import annotations

import re
import sys
import threading
import time

from pipeline.training.task import REPORT, RankReport, ReportKind


class RankOutput:
    """A stream that passes on what ranks print, without the `[rank]<stream>:` that Horovod puts before each line."""

    def __init__(self, started: threading.Event) -> None:
        self._started = started

    def write(self, text: str) -> int:
        """Write to the driver's stderr, because its stdout is for the summary alone."""
        self._started.set()
        return sys.stderr.write(re.sub(r"^\[\d+\]<std(?:out|err)>:", "", text, flags=re.MULTILINE))

    def flush(self) -> None:
        """Flush the driver's stderr."""
        sys.stderr.flush()


class Reports(RankOutput):
    """The stream of the ranks' stdout: it keeps the reports in it and passes on the other lines."""

    def __init__(self, is_elastic: bool) -> None:
        self.started = threading.Event()
        """Set as soon as a rank has printed anything other than a report."""
        super().__init__(self.started)
        self.failures: list[RankReport] = []
        """The reports of the ranks that have failed, in the order in which they arrived."""
        self.failed = threading.Event()
        """Set when the other ranks cannot continue: a rank has failed, and it could not be replaced."""
        self._is_elastic = is_elastic
        self._last_sign: dict[int, float] = {}
        """When each rank that is at work gave its last sign of life."""
        self._unfinished_lines: dict[int, str] = {}
        """The begun line of each rank; Horovod writes each rank's output in a thread of its own."""

    def write(self, text: str) -> int:
        """Take what one rank has printed, which may begin and end within a line."""
        thread = threading.get_ident()
        *lines, rest = (self._unfinished_lines.get(thread, "") + text).split("\n")
        self._unfinished_lines[thread] = rest
        for line in lines:
            _, mark, report = line.partition(REPORT)
            if mark:
                self._keep(RankReport.parse(report))
            else:
                super().write(line + "\n")
        return len(text)

    def longest_silence_s(self) -> float:
        """Return the seconds since the last sign of life of the rank that has been silent the longest."""
        signs = list(self._last_sign.copy().values())
        return time.monotonic() - min(signs) if signs else 0.0

    def _keep(self, report: RankReport) -> None:
        match report.kind:
            case ReportKind.ALIVE:
                self._last_sign[report.rank] = time.monotonic()
            case ReportKind.WORLD:  # the numbers of lost ranks are gone, and no sign of them will come
                self._last_sign = dict.fromkeys(range(int(report.text)), time.monotonic())
            case ReportKind.DONE:
                self._last_sign.pop(report.rank, None)
            case _:
                self._last_sign.pop(report.rank, None)
                self.failures.append(report)
                if not (self._is_elastic and report.kind == ReportKind.PEER):
                    self.failed.set()
