"""The bundle fits the project, and what is different on a Databricks driver."""

from __future__ import annotations

import importlib.util
import logging
import re
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark import SparkConf

from conftest import ROOT
from pipeline.config import load_config
from pipeline.launch import ranks
from pipeline.launch.executors import requested_executors
from pipeline.runtime import databricks
from pipeline.runtime.console import log, run_job
from pipeline.runtime.errors import UserError
from pipeline.training.task import Task

BUNDLE = ROOT / "conf" / "databricks" / "databricks.yml"


def bundle() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(BUNDLE.read_text())
    return content


def tasks() -> list[tuple[str, dict[str, Any]]]:
    return [(name, task) for name, job in bundle()["resources"]["jobs"].items() for task in job["tasks"]]


def resolved(text: str) -> str:
    """Replace references to the bundle's variables by their defaults, and the workspace's folder by this checkout."""
    values = {f"var.{name}": variable.get("default") for name, variable in bundle()["variables"].items()}
    values |= {"workspace.file_path": str(ROOT), "bundle.name": "pipeline", "bundle.target": "dev"}
    values |= {"var.catalog": "dev", "workspace.current_user.userName": "me@example.org"}
    for _ in range(4):  # a default may refer to others
        text = re.sub(r"\$\{([\w.]+)\}", lambda match: str(values[match[1]]), text)
    return text


def parser_of(job: Path) -> ArgumentParser:
    spec = importlib.util.spec_from_file_location(f"job_{job.stem}", job)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    parser = module.parser()
    assert isinstance(parser, ArgumentParser)
    return parser


@pytest.mark.parametrize("task", [task for _, task in tasks()], ids=lambda task: task["task_key"])
def test_each_task_of_the_bundle_is_a_job_that_takes_its_parameters(task: dict[str, Any]) -> None:
    python = task["spark_python_task"]
    job = (BUNDLE.parent / python["python_file"]).resolve()
    assert job.parent == ROOT / "jobs"
    options = parser_of(job).parse_args([resolved(parameter) for parameter in python["parameters"]])
    if hasattr(options, "config"):
        config = load_config(options.config, options.set)
        assert config.tracking.uri == "databricks"
        assert config.tracking.registered_model == "dev.default.penguins"
        assert config.work_dir == Path("/Volumes/dev/default/lake/work")


def test_the_gate_finds_the_run_that_the_training_of_the_same_job_has_made() -> None:
    by_key = {task["task_key"]: task for _, task in tasks()}
    train, gate = (by_key[key]["spark_python_task"]["parameters"] for key in ("train", "gate"))
    assert by_key["gate"]["depends_on"] == [{"task_key": "train"}]
    assert "--no-gate" in train
    assert [p for p in train if p != "--no-gate"] == gate
    run = '"job-{{job.run_id}}"'
    assert f"run_name: {run}" in resolved(gate[-1])


def test_the_bundle_is_whole() -> None:
    made = bundle()
    # neither target touches what is the other's
    assert {name: target["variables"] for name, target in made["targets"].items()} == {
        "dev": {"catalog": "dev"},
        "prod": {"catalog": "prod"},
    }
    per_target = [made["variables"][name]["default"] for name in ("lake", "model", "experiment")]
    assert all("${var.catalog}" in value or "${bundle.target}" in value for value in per_target)
    train = made["resources"]["jobs"]["train"]
    assert train["schedule"].keys() == {"quartz_cron_expression", "timezone_id"}
    assert train["max_concurrent_runs"] == 1
    assert train["email_notifications"]["on_failure"]
    assert train["timeout_seconds"] >= sum(task["timeout_seconds"] for task in train["tasks"])
    assert all(task["max_retries"] for _, task in tasks())
    cluster = made["variables"]["cluster"]["default"]
    assert cluster["spark_version"].startswith("15.4.x-cpu-ml")
    (artifact,) = made["artifacts"].values()
    wheels = (BUNDLE.parent / artifact["path"]).resolve() / "dist"
    for _, task in tasks():
        assert [(BUNDLE.parent / library["whl"]).resolve() for library in task["libraries"]] == [wheels / "*.whl"]
    for path in made["sync"]["paths"]:
        assert (BUNDLE.parent / path).is_dir()
    # every variable that is used is declared, and the other way round
    text = BUNDLE.read_text()
    assert set(re.findall(r"\$\{var\.(\w+)\}", text)) == set(made["variables"])


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Set what a Databricks driver has in its environment; host and token are nowhere in it."""
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "15.4")
    for name in ("DATABRICKS_HOST", "DATABRICKS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    profiles = tmp_path / "databrickscfg"
    entry = "host = https://adb-1.2.azuredatabricks.net\ntoken = dapi-token-of-the-job\n"
    profiles.write_text(f"[DEFAULT]\n{entry}\n[mine]\n{entry}")
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(profiles))


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("uri", ["databricks", "databricks://mine"])
def test_rank_0_gets_the_workspace_s_host_and_token(uri: str) -> None:
    config = load_config(ROOT / "conf" / "penguins" / "pipeline.yaml", [f"tracking.uri={uri}"])
    assert databricks.uri_for_ranks(uri) == "databricks"
    task = Task(config, None, None, uri, "run", {"0": 4}, config.checkpoint_dir)  # type: ignore[arg-type]
    environment = ranks._environment(task, 2)
    assert environment["DATABRICKS_HOST"] == "https://adb-1.2.azuredatabricks.net"
    assert environment["DATABRICKS_TOKEN"] == "dapi-token-of-the-job"
    assert "MLFLOW_TRACKING_URI" not in environment  # the task names the store
    assert databricks.credentials("sqlite:///x.db") == {}
    assert databricks.uri_for_ranks("sqlite:///x.db") == "sqlite:///x.db"


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("tags", "executors"),
    [
        ({"clusterWorkers": "3"}, 3),
        ({"clusterScalingType": "autoscaling", "clusterMinWorkers": "2", "clusterWorkers": "5"}, 2),
        ({}, None),
    ],
)
def test_ranks_are_the_cluster_s_workers(tags: dict[str, str], executors: int | None) -> None:
    conf = SparkConf(loadDefaults=False)
    for name, value in tags.items():
        conf.set(f"spark.databricks.clusterUsageTags.{name}", value)
    assert requested_executors("spark://10.0.0.1:7077", conf) == executors


@pytest.mark.usefixtures("driver")
def test_the_ranks_run_the_driver_s_python() -> None:
    class Context:
        master, pythonExec = "spark://10.0.0.1:7077", "python3"

    class Session:
        sparkContext = Context()

    assert ranks._python_of_ranks(Session()) == sys.executable  # type: ignore[arg-type]


@pytest.fixture
def _quiet() -> Iterator[None]:
    before = log.handlers, log.propagate, log.level
    yield
    log.handlers, log.propagate = before[:2]
    log.setLevel(before[2])


@pytest.mark.usefixtures("driver", "_quiet")
def test_a_job_that_went_well_does_not_exit_and_one_that_failed_does(capsys: pytest.CaptureFixture[str]) -> None:
    def job(fails: bool) -> dict[str, Any]:
        logging.getLogger("pipeline").info("at work")
        if fails:
            raise UserError("no such file")
        return {"status": "ok"}

    run_job(job, False)
    printed = capsys.readouterr()
    assert printed.out == '{"status": "ok"}\n'
    assert printed.err.count("at work") == 1
    with pytest.raises(SystemExit) as ended:
        run_job(job, True)
    assert ended.value.code == 2


def test_rank_0_gets_the_variables_of_proxies_and_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    names = (
        "https_proxy",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "no_proxy",
        "REQUESTS_CA_BUNDLE",
        "SSL_CERT_FILE",
        "AWS_CA_BUNDLE",
    )
    for name in names:
        monkeypatch.setenv(name, f"of {name}")
    config = load_config(ROOT / "conf" / "penguins" / "pipeline.yaml", ["tracking.uri=https://store"])
    task = Task(config, None, None, "https://store", "run", {"0": 4}, config.checkpoint_dir)  # type: ignore[arg-type]
    environment = ranks._environment(task, 2)
    assert {name: environment[name] for name in names} == {name: f"of {name}" for name in names}
