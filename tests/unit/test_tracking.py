"""Which errors mean that a store is away, and what of a URI may be shown."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import pytest
import requests
from mlflow.exceptions import MlflowException, RestException

import pipeline
from conftest import ROOT, UseCase
from pipeline.config import load_config
from pipeline.runtime import errors
from pipeline.runtime.errors import DeliveryError, UserError
from pipeline.tracking import experiments, package, registry, runs, store


def answered(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(response=response)


def rest_error(code: str) -> Exception:
    return RestException({"error_code": code})  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("error", "is_down"),
    [
        (requests.ConnectionError(), True),
        (answered(503), True),
        (answered(429), True),
        (answered(403), False),
        (MlflowException("API request failed"), True),
        (rest_error("TEMPORARILY_UNAVAILABLE"), True),
        (rest_error("PERMISSION_DENIED"), False),
        (rest_error("RESOURCE_DOES_NOT_EXIST"), False),
        (UserError("a sentence"), False),
        (KeyError("ours"), False),
    ],
)
def test_a_store_that_is_away_is_distinguished_from_one_that_refuses(error: Exception, is_down: bool) -> None:
    assert store.is_down(error) is is_down


@pytest.mark.parametrize("job", ["predict", "serve"])
def test_help_shows_no_password_of_the_store(job: str) -> None:
    environment = {**os.environ, "MLFLOW_TRACKING_URI": "postgresql://me:secret@db/mlflow"}
    command = [sys.executable, str(ROOT / "jobs" / f"{job}.py"), "--help"]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=True).stdout
    assert "--tracking-uri" in printed
    assert "secret" not in printed


def test_no_password_is_shown() -> None:
    assert errors.hide_password("postgresql://me:secret@db/mlflow") == "postgresql://me:***@db/mlflow"
    assert errors.hide_password("sqlite:////a/b.db") == "sqlite:////a/b.db"
    assert errors.hide_password("postgresql://me:p@ss@h/db, or x://a:b@c") == "postgresql://me:***@h/db, or x://a:***@c"
    assert errors.hide_password("mysql://h/db?user=u&password=pass&x=1") == "mysql://h/db?user=u&password=***&x=1"
    assert errors.hide_password("mssql:///?odbc_connect=UID%3Du%3BPWD%3Dp%21s%3Bx") == (
        "mssql:///?odbc_connect=UID%3Du%3BPWD%3D***%3Bx"
    )
    assert "secret" not in errors.one_line(ValueError("cannot reach http://me:secret@host:5000/api\nfor ever"))


@pytest.mark.parametrize("uri", ["http://me:secret@host", "postgresql://me:secret@db/mlflow"])
def test_a_password_in_the_settings_is_refused(tmp_path: Path, uri: str) -> None:
    from conftest import PENGUINS

    with pytest.raises(UserError, match=r"tracking\.uri: must hold no password") as raised:
        store.tracking_uri(load_config(PENGUINS, [f"tracking.uri={uri}"]))
    assert "secret" not in str(raised.value)


def test_a_store_that_goes_away_between_two_stages_is_one_sentence() -> None:
    with (
        pytest.raises(DeliveryError, match="the MLflow store http://host does not answer"),
        store.delivery_errors("http://host"),
    ):
        raise requests.ConnectionError("refused")
    with pytest.raises(KeyError), store.delivery_errors("http://host"):
        raise KeyError("ours")


def commit_of(folder: Path) -> str | None:
    ran = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True)
    return ran.stdout.strip() if ran.returncode == 0 else None


def test_a_run_names_the_version_and_commit_of_this_project_and_of_the_configuration(
    use_case: UseCase, tmp_path: Path
) -> None:
    config = use_case()
    subprocess.run(["git", "init", "-q", config.folder], check=True)
    author = ["-c", "user.name=me", "-c", "user.email=me@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", config.folder, *author, "commit", "-q", "--allow-empty", "-m", "mine"], check=True)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tags = store.connect(uri).get_run(runs.start_run(config, uri)).data.tags
    assert tags["pipeline.version"] == version("pipeline")
    assert tags["config.git.commit"] == commit_of(config.folder)
    assert tags.get("mlflow.source.git.commit") == commit_of(ROOT)
    assert tags["config.git.commit"] != commit_of(ROOT)


def test_a_deleted_experiment_is_one_sentence_that_says_how_to_restore_it(use_case: UseCase, tmp_path: Path) -> None:
    config, uri = use_case(tracking={"experiment": "tidy"}), f"sqlite:///{tmp_path / 'mlflow.db'}"
    experiments.check_experiment(config, uri)
    client, run_id = store.connect(uri), runs.start_run(config, uri)
    experiments.check_experiment(config, uri)
    client.delete_experiment(client.get_run(run_id).info.experiment_id)
    restore = rf"MLFLOW_TRACKING_URI={uri} mlflow experiments restore --experiment-id \d+"
    with pytest.raises(UserError, match=rf"tracking.experiment: 'tidy' was deleted; restore it \({restore}\) or name"):
        experiments.check_experiment(config, uri)


def test_the_experiment_that_a_platform_has_set_is_used(
    use_case: UseCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    config, chosen = use_case(), use_case(tracking={"experiment": "chosen"})
    assert experiments.experiment_name(config, uri) == config.folder.name
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", store.connect(uri).create_experiment("of the platform"))
    assert experiments.experiment_name(config, uri) == "of the platform"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "by name")
    assert experiments.experiment_name(config, uri) == "by name"
    assert experiments.experiment_name(chosen, uri) == "chosen"
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "99")
    with pytest.raises(UserError, match=r"^MLFLOW_EXPERIMENT_ID=99: .*; unset it, or name another$"):
        experiments.experiment_name(config, uri)


def test_the_run_that_a_platform_has_started_is_used_once(
    use_case: UseCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, uri = use_case(), f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = store.connect(uri)
    run_id = client.create_run(client.create_experiment("theirs")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    with runs.open_run(config, uri) as opened:
        assert opened == run_id
        client.set_tag(run_id, "version.pyspark", "3.5")  # as log_setup does
    with runs.open_run(config, uri, earlier=run_id) as opened:  # the same job, after it was killed
        assert opened == run_id
    assert client.get_run(run_id).info.status == "FINISHED"
    assert client.get_run(run_id).data.tags["pipeline.version"] == version("pipeline")
    with pytest.raises(UserError, match="holds another training already"), runs.open_run(config, uri):
        pass
    client.delete_run(run_id)
    with pytest.raises(UserError, match="the run was deleted"), runs.open_run(config, uri):
        pass
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(UserError, match=r"^MLFLOW_RUN_ID=0{32}: .*; unset it"), runs.open_run(config, uri):
        pass


def test_an_experiment_that_another_job_creates_meanwhile_is_used(use_case: UseCase, tmp_path: Path) -> None:
    config, uri = use_case(), f"sqlite:///{tmp_path / 'mlflow.db'}"
    created: list[str] = []

    class Overtaken(mlflow.MlflowClient):
        """Another job creates the experiment between this one's look and its own attempt."""

        def get_experiment_by_name(self, name: str) -> Any:
            experiment = super().get_experiment_by_name(name)
            if experiment is None:
                created.append(store.connect(uri).create_experiment(name))
            return experiment

    assert [experiments.experiment_id(Overtaken(uri), config, uri, "at once")] == created


def test_packaging_leaves_the_run_running(use_case: UseCase, tmp_path: Path) -> None:
    config, uri = use_case(), f"sqlite:///{tmp_path / 'mlflow.db'}"
    run_id = runs.start_run(config, uri)
    with store.active(uri), package._active_run(run_id):
        mlflow.log_metric("x", 1)
    assert store.connect(uri).get_run(run_id).info.status == "RUNNING"
    with pytest.raises(KeyError), store.active(uri), package._active_run(run_id):
        raise KeyError
    assert store.connect(uri).get_run(run_id).info.status == "RUNNING"
    assert mlflow.active_run() is None


def test_the_newest_run_is_the_one_that_ended_last_and_has_a_model(use_case: UseCase, tmp_path: Path) -> None:
    config, uri = use_case(), f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = store.connect(uri)
    resumed, later, without = (runs.start_run(config, uri) for _ in range(3))
    for run_id in (resumed, later):
        client.set_tag(run_id, "model_uri", "models:/m")
    for ended, run_id in enumerate((later, resumed, without)):
        client.set_terminated(run_id, end_time=1_000 + ended)
    assert runs._newest_run(client, config.folder.name, None) == resumed


def test_a_run_that_newer_code_finishes_names_the_newer_code(
    use_case: UseCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, uri = use_case(), f"sqlite:///{tmp_path / 'mlflow.db'}"
    run_id = runs.start_run(config, uri)
    monkeypatch.setattr(runs, "version", lambda package: "99.0")
    with runs.open_run(config, uri, run_id) as reopened:
        assert reopened == run_id
    assert store.connect(uri).get_run(run_id).data.tags["pipeline.version"] == "99.0"


def test_a_model_that_is_not_there_is_one_sentence_with_advice(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with pytest.raises(UserError, match=r"cannot be loaded from sqlite.*; check the name and --tracking-uri$"):
        registry.fetched_model("models:/absent/1", uri).__enter__()


def test_an_installed_package_in_somebody_s_checkout_has_no_commit(
    use_case: UseCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.setattr(pipeline, "__file__", str(tmp_path / "site-packages" / "pipeline" / "__init__.py"))
    assert "mlflow.source.git.commit" not in runs._source_tags(use_case())


@pytest.mark.parametrize("before", [None, "sqlite:///mine.db"])
def test_a_job_s_store_does_not_outlive_it(before: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if before:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", before)
    with store.active(f"sqlite:///{tmp_path / 'job.db'}"):
        assert mlflow.get_tracking_uri() == f"sqlite:///{tmp_path / 'job.db'}"
    assert os.environ.get("MLFLOW_TRACKING_URI") == before
    assert store.default_uri(tmp_path) == (before or f"sqlite:///{tmp_path / 'mlflow.db'}")


def test_mlflow_is_configured_before_it_is_imported_and_a_user_s_setting_stays(tmp_path: Path) -> None:
    code = """
import os, sys
from pipeline.tracking import metric_writer, package, registry, runs, store
assert "MLFLOW_LOGGING_LEVEL" not in os.environ, "an import changes the environment"
store.configure_mlflow()
assert "mlflow" not in sys.modules
print(os.environ["MLFLOW_LOGGING_LEVEL"], os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"])
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "7"
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert ran.stdout == "WARNING 7\n", ran.stderr
