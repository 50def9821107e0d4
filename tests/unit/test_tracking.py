"""Which errors mean that a store is away, and what of a URI may be shown."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from mlflow.exceptions import MlflowException, RestException

from conftest import ROOT
from pipeline.config import load_config
from pipeline.runtime import errors
from pipeline.runtime.errors import DeliveryError, UserError
from pipeline.tracking import store


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
def test_a_store_that_is_away_is_told_from_one_that_refuses(error: Exception, is_down: bool) -> None:
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
        store.told_if_down("http://host"),
    ):
        raise requests.ConnectionError("refused")
    with pytest.raises(KeyError), store.told_if_down("http://host"):
        raise KeyError("ours")
