"""The page's cluster command on a real standalone cluster, logging to a tracking server with passwords."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from clusters import QUICK_START, Standalone, can_hide_folders, cluster_settings
from conftest import PENGUINS, ROOT
from submitting import Penguins, background, free_port, submit
from trackingserver import SECRET, USER, Server, await_line, betrays, watching_command_lines


def page_command() -> str:
    """Return the commands of the page's section, without the line that names the cluster."""
    section = (ROOT / "conf" / "spark" / "README.md").read_text().split("## On a cluster")[1]
    block = section.split("```bash\n")[1].split("```")[0]
    first, rest = block.split("\n", 1)
    assert re.fullmatch(r"export MASTER=spark://host:7077 SHARED=/mnt/shared", first)
    return rest


@dataclass(frozen=True)
class ClusterJob:
    """The page's command, run once for all tests here; it logs to a server with passwords."""

    code: int
    log: Path
    summary: dict[str, Any]
    command_lines: list[str]
    """The command lines of this machine that held the password while the job ran."""
    page: str
    """Of Spark's UI: the environment."""
    events: Path
    """Spark's event log."""


@pytest.fixture(scope="module")
def cluster_job(
    standalone: Standalone, environment: Path, one_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> ClusterJob:
    folder, port = tmp_path_factory.mktemp("page"), free_port()
    # settings that the page's command leaves to the cluster
    conf = Path(shutil.copytree(os.environ["SPARK_CONF_DIR"], folder / "conf"))
    (folder / "events").mkdir()
    with (conf / "spark-defaults.conf").open("a") as file:
        file.write(f"\nspark.eventLog.enabled true\nspark.eventLog.dir file://{folder}/events\n")
        file.write(f"spark.ui.enabled true\nspark.ui.port {port}\n")
        file.write(f"spark.executor.extraJavaOptions {QUICK_START}\n")
    settings = {"MASTER": standalone.master, "SHARED": str(standalone.shared), "SPARK_CONF_DIR": str(conf)}
    settings |= {"MLFLOW_TRACKING_URI": one_server.uri}
    settings |= {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": SECRET}
    one_server.start()
    log = folder / "job.log"
    environ = {**os.environ, **settings}
    with watching_command_lines() as exposed, background(["bash", "-ec", page_command()], log, env=environ) as job:
        await_line(log, "epoch   1/100", job)
        page = urllib.request.urlopen(f"http://127.0.0.1:{port}/environment/", timeout=30).read().decode()
        code = job.wait(timeout=400)
    lines = [line for line in log.read_text().splitlines() if line.startswith('{"status"')]
    return ClusterJob(code, log, json.loads(lines[-1]) if lines else {}, exposed, page, folder / "events")


def test_the_command_of_the_page_gives_the_same_bytes_as_local_mode(
    standalone: Standalone, cluster_job: ClusterJob, client: MlflowClient, penguins: Penguins
) -> None:
    output = cluster_job.log.read_text()
    assert cluster_job.code == 0, output
    summary, local = cluster_job.summary, penguins.ran.summary
    assert summary["num_proc"] == 2
    assert summary["rows"] == local["rows"]
    assert summary["metrics"] == local["metrics"]
    assert summary["weights_sha256"] == local["weights_sha256"]
    assert summary["gate"]["decision"] == "promoted"  # the executors have scored with the packaged model

    run = client.get_run(summary["run_id"])
    assert sorted(run.data.params["executors"].split(", ")) == ["0", "1"]
    assert run.info.status == "FINISHED"
    # one rank on each executor, though each has slots for two, with all of its cores
    assert "2 rank(s) with 2 thread(s), cpu" in output
    for metric, split in (("train_rows", "train"), ("validation_rows", "validation")):
        rows = summary["rows"][split] * (4 if split == "train" else 1)
        history = client.get_metric_history(run.info.run_id, metric)
        assert [m.step for m in history] == list(range(1, 101))
        assert {m.value for m in history} == {rows}
    assert {f.path for f in client.list_artifacts(summary["run_id"])} >= {"report.html", "weights", "config"}
    # the executors load only what spark-submit has shipped, no file of the checkout
    for executor in (next(standalone.logs.glob(f"{name}/app-*/*")) for name in ("one", "two")):
        assert (executor / "environment" / "bin" / "python").exists()


def test_rank_0_on_an_executor_logs_with_a_password_that_nobody_else_sees(
    standalone: Standalone, cluster_job: ClusterJob, one_server: Server, client: MlflowClient
) -> None:
    assert cluster_job.command_lines == []
    folders = (cluster_job.events, standalone.logs / "one", standalone.logs / "two")
    files = [path for folder in folders for path in folder.rglob("*") if "environment" not in path.parts]
    texts = [path for path in files if path.is_file() and path.stat().st_size < 20 * 2**20]
    assert any(path.name == "stderr" for path in texts)
    assert any(path.parent == cluster_job.events for path in texts)
    for path in [cluster_job.log, one_server.folder / "server.log", *texts]:
        assert not betrays(path.read_bytes()), path
    assert SECRET not in cluster_job.page
    assert "spark.master" in cluster_job.page
    assert SECRET not in json.dumps(client.get_run(cluster_job.summary["run_id"]).to_dictionary())


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
    ("overrides", "sentence"),
    [
        (
            ["run.num_proc=3", "run.start_timeout_s=8"],
            "run.num_proc: 3 executor(s) are needed for the ranks, but 2 registered within 8 s; ask the cluster for",
        ),
        ([], f"does not see {PENGUINS.parent / 'penguins.csv'}, or not what the driver sees there; name a folder that"),
    ],
)
def test_what_a_cluster_lacks_is_reported_before_any_work(
    standalone: Standalone, unpacked: Path, overrides: list[str], sentence: str
) -> None:
    if not can_hide_folders():
        pytest.skip("this machine does not let a test hide the checkout from the executors")
    work = standalone.shared / f"lacking{len(overrides)}"
    ran = submit(PENGUINS, f"run.work_dir={work}", *overrides, conf=cluster_settings(standalone, unpacked))
    assert ran.code == 2, ran.stderr
    (error,) = (line for line in ran.stderr.splitlines() if line.startswith("error: "))
    assert sentence in error
    assert list((work / "data").iterdir()) == []
