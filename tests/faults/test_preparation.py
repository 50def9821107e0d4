"""An executor is lost while Spark prepares: its tasks run again, and no row is counted twice."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from conftest import ROOT, UseCase
from faultinjection import Fault, executor_processes, send

pytestmark = [pytest.mark.horovod, pytest.mark.cluster, pytest.mark.more]
FILES, ROWS_EACH, BAD_EACH = 60, 4_000, 7


@pytest.mark.parametrize(
    ("line", "delay_s"),
    [
        pytest.param(line, delay, marks=pytest.mark.fault(f"an executor is lost: {line}"))
        for line in ("collecting the values", "preparing 60 file(s)")
        for delay in (0.3, 2.0)
    ],
)
def test_no_row_is_counted_twice(use_case: UseCase, fault: Fault, tmp_path: Path, line: str, delay_s: float) -> None:
    columns = [f"c{i}" for i in range(12)]
    config = use_case(
        sql=f"SELECT a, k, y, {' + '.join(f'length({c})' for c in columns)} AS total FROM raw",
        source={"path": "rows", "schema": "a DOUBLE, k STRING, y INT, " + ", ".join(f"{c} STRING" for c in columns)},
        features={"numeric": ["a", "total"], "categorical": ["k"]},
        training={"epochs": 1},
    )
    folder = config.folder / "rows"
    folder.mkdir()
    for number in range(FILES):
        rows = [f"{number * 10_000 + i}.5,k{(number + i) % 50},{i % 2}" + ",text" * 12 for i in range(ROWS_EACH)]
        rows += ["no number,k,1" + ",text" * 12] * BAD_EACH
        header = ",".join(["a", "k", "y", *columns])
        (folder / f"{number:03}.csv").write_text("\n".join([header, *rows, ""]))
    command = ["spark-submit", "--master", "local-cluster[2,1,1024]", str(ROOT / "jobs" / "train.py")]
    with subprocess.Popen(
        [*command, "--config", str(config.file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as driver:
        assert driver.stdout
        assert driver.stderr
        told = []
        for text in driver.stderr:
            told.append(text)
            if line in text:
                time.sleep(delay_s)
                send(executor_processes()[:1], signal.SIGKILL)
                fault.injected += 1
                break
        told += list(driver.stderr)
        stdout = driver.stdout.read()
        assert driver.wait(timeout=300) == 0, "".join(told)
    rows_of = json.loads(stdout.splitlines()[-1])["rows"]
    fault.rows_lost = FILES * (ROWS_EACH + BAD_EACH) - rows_of["read"]
    assert (rows_of["read"], rows_of["quarantined"]) == (FILES * (ROWS_EACH + BAD_EACH), FILES * BAD_EACH)
    assert rows_of["train"] + rows_of["validation"] + rows_of["test"] == FILES * ROWS_EACH
