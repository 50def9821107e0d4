"""What ranks print: the driver keeps their reports and passes the other lines on."""

from __future__ import annotations

import io
import sys
import threading

import pytest

from pipeline.launch.reports import RankOutput, Reports
from pipeline.training.task import REPORT, RankReport, ReportKind


def printed(report: RankReport, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the line that a rank prints on its stdout, with what Horovod puts before it."""
    stdout = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stdout)
    report.send()
    monkeypatch.undo()
    return f"[{report.rank}]<stdout>:{stdout.getvalue()}"


def test_lines_are_passed_on_without_horovods_prefix(capsys: pytest.CaptureFixture[str]) -> None:
    started = threading.Event()
    RankOutput(started).write("[0]<stderr>:epoch 1\n[0]<stderr>:epoch 2\n")
    assert capsys.readouterr().err == "epoch 1\nepoch 2\n"
    assert started.is_set()


def test_a_report_is_kept_even_when_it_arrives_in_parts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = printed(RankReport(1, ReportKind.MISTAKE, "label.column: is missing"), monkeypatch)
    reports = Reports(is_elastic=False)
    for part in (line[:5], line[5:40], line[40:] + "[1]<stdout>:hello\n"):
        reports.write(part)
    assert [(r.rank, r.kind, r.text) for r in reports.failures] == [(1, ReportKind.MISTAKE, "label.column: is missing")]
    assert reports.failed.is_set()
    error = capsys.readouterr().err
    assert error == "hello\n"
    assert REPORT not in error


def test_two_ranks_may_write_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    reports = Reports(is_elastic=False)
    lines = [printed(RankReport(rank, ReportKind.FAILURE, "a" * 50), monkeypatch) for rank in (0, 1)]
    half_written, other_done = threading.Event(), threading.Event()

    def write_in_two_parts() -> None:
        reports.write(lines[0][:30])
        half_written.set()
        other_done.wait(10)
        reports.write(lines[0][30:])

    writer = threading.Thread(target=write_in_two_parts)
    writer.start()
    half_written.wait(10)
    reports.write(lines[1])
    other_done.set()
    writer.join(10)
    assert [report.rank for report in reports.failures] == [1, 0]


@pytest.mark.parametrize(
    ("is_elastic", "kind", "failed"),
    [
        (False, ReportKind.PEER, True),
        (True, ReportKind.PEER, False),  # the ranks that are left continue
        (True, ReportKind.FAILURE, True),
        (False, ReportKind.DONE, False),
    ],
)
def test_a_lost_peer_ends_the_others_unless_training_is_elastic(
    is_elastic: bool, kind: ReportKind, failed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = Reports(is_elastic)
    reports.write(printed(RankReport(0, kind), monkeypatch))
    assert reports.failed.is_set() is failed


def test_the_rank_that_is_silent_the_longest_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    reports, clock = Reports(is_elastic=True), [0.0]
    assert reports.longest_silence_s() == 0
    alive = [printed(RankReport(rank, ReportKind.ALIVE), monkeypatch) for rank in (0, 1)]
    done = printed(RankReport(0, ReportKind.DONE), monkeypatch)
    world = printed(RankReport(0, ReportKind.WORLD, "1"), monkeypatch)
    monkeypatch.setattr("pipeline.launch.reports.time.monotonic", lambda: clock[0])
    reports.write(alive[0])
    clock[0] = 4
    reports.write(alive[1])
    clock[0] = 10
    assert reports.longest_silence_s() == 10
    reports.write(world)  # rank 1 is gone: no sign of it will come
    assert reports.longest_silence_s() == 0
    clock[0] = 13
    assert reports.longest_silence_s() == 3
    reports.write(done)
    assert reports.longest_silence_s() == 0
