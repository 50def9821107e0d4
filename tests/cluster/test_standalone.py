"""The README's cluster command on a real standalone cluster, compared with local mode."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from mlflow import MlflowClient

from clusters import Standalone, can_hide_folders, cluster_settings
from conftest import PENGUINS, ROOT
from submitting import Penguins, submit


def readme_command() -> str:
    """Return the commands of the README's section, without the line that says where the cluster is."""
    section = (ROOT / "README.md").read_text().split("## On a cluster")[1]
    block = section.split("```bash\n")[1].split("```")[0]
    first, rest = block.split("\n", 1)
    assert re.fullmatch(r"export MASTER=spark://host:7077 SHARED=/mnt/shared", first)
    return rest


def test_the_readme_s_command_gives_the_same_bytes_as_local_mode(standalone: Standalone, environment, penguins) -> None:
    settings = {"MASTER": standalone.master, "SHARED": str(standalone.shared)}
    ran = subprocess.run(
        ["bash", "-ec", readme_command()],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    summary, local = json.loads(ran.stdout.splitlines()[-1]), penguins.ran.summary
    assert summary["num_proc"] == 2
    assert summary["rows"] == local["rows"]
    assert summary["metrics"] == local["metrics"]
    assert summary["weights_sha256"] == local["weights_sha256"]
    assert summary["gate"]["decision"] == "promoted"  # the executors have scored with the packaged model

    client = MlflowClient(f"sqlite:///{standalone.shared / 'work' / 'mlflow.db'}")
    run = client.get_run(summary["run_id"])
    assert sorted(run.data.params["executors"].split(", ")) == ["0", "1"]
    assert run.info.status == "FINISHED"
    # one rank on each executor, though each has slots for two, with all of its cores
    assert "2 rank(s) with 2 thread(s), cpu" in ran.stderr
    for metric, split in (("train_rows", "train"), ("validation_rows", "validation")):
        rows = summary["rows"][split] * (4 if split == "train" else 1)
        assert {m.value for m in client.get_metric_history(run.info.run_id, metric)} == {rows}
    # nothing of the checkout on the executors: only what spark-submit has shipped
    for executor in (next(standalone.logs.glob(f"{name}/app-*/*")) for name in ("one", "two")):
        assert (executor / "environment" / "bin" / "python").exists()


def test_executors_score_files_with_the_model(
    standalone: Standalone, unpacked: Path, penguins: Penguins, tmp_path: Path
) -> None:
    csv, output = standalone.shared / "new.csv", standalone.shared / "predictions"
    csv.write_bytes((PENGUINS.parent / "penguins.csv").read_bytes())
    options = ["--model", penguins.ran.summary["model_uri"], "--input", str(csv), "--output", str(output)]
    store = f"sqlite:///{penguins.work_dir / 'mlflow.db'}"
    command = [ROOT / "jobs" / "predict.py", *options, "--tracking-uri", store]
    conf = [part for item in cluster_settings(standalone, unpacked).items() for part in ("--conf", "=".join(item))]
    ran = subprocess.run(
        ["spark-submit", *conf, *command], cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1])["rows"] == {
        "read": 344, "quarantined": 0, "predicted": 342, "refused": 2
    }  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["run.num_proc=3", "run.start_timeout_s=8"],
            "run.num_proc: 3 executor(s) are needed for the ranks, but 2 registered within 8 s; ask the cluster for",
        ),
        ([], f"does not see {PENGUINS.parent / 'penguins.csv'}, or not what the driver sees there; name a folder that"),
    ],
)
def test_what_a_cluster_lacks_is_told_before_any_work(
    standalone: Standalone, unpacked: Path, overrides: list[str], said: str
) -> None:
    if not can_hide_folders():
        pytest.skip("this machine does not let a test hide the checkout from the executors")
    work = standalone.shared / f"lacking{len(overrides)}"
    ran = submit(PENGUINS, f"run.work_dir={work}", *overrides, conf=cluster_settings(standalone, unpacked))
    assert ran.code == 2, ran.stderr
    (error,) = (line for line in ran.stderr.splitlines() if line.startswith("error: "))
    assert said in error
    assert list((work / "data").iterdir()) == []
