"""The MLflow store: which one a job uses, how it is reached, and what it means when it does not answer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline.config import Config
from pipeline.config.sections import DEFAULT_WORK_DIR
from pipeline.runtime import databricks, storage
from pipeline.runtime.errors import DeliveryError, hide_password, one_line, reason

if TYPE_CHECKING:
    from mlflow import MlflowClient

_MLFLOW_SETTINGS = {
    # a user's job reports to nobody but the user's own store
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # a store that does not answer is an error within seconds; MLflow's own patience is minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}

CREDENTIALS = (
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_AUTH",
    "MLFLOW_TRACKING_AWS_SIGV4",
    "MLFLOW_TRACKING_INSECURE_TLS",
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
    "DATABRICKS_HOST",
    "DATABRICKS_TOKEN",
    # what `requests`, by which MLflow reaches a server, reads
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    *(name for proxy in ("http_proxy", "https_proxy", "all_proxy", "no_proxy") for name in (proxy, proxy.upper())),
)
"""Variables that rank 0 needs to reach the store; they travel in the environment of the ranks, nowhere else."""


def configure_mlflow() -> None:
    """Set what MLflow reads from the environment when it is imported; every job, and rank 0, calls this before.

    A variable that the user has set stays as it is.
    """
    for name, value in _MLFLOW_SETTINGS.items():
        os.environ.setdefault(name, value)


def connect(uri: str) -> MlflowClient:
    """Return a client of the store. MLflow takes seconds to import, so not every rank does it at its start."""
    import mlflow

    return mlflow.MlflowClient(uri)


@contextmanager
def active(uri: str) -> Iterator[None]:
    """Let MLflow's functions that take no URI use this store during the block.

    MLflow writes the URI to MLFLOW_TRACKING_URI, too. Afterwards that variable holds again what the user has set.
    """
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]
        if before is None:
            os.environ.pop("MLFLOW_TRACKING_URI", None)  # MLflow 2 leaves it


def tracking_uri(config: Config) -> str:
    """Return `tracking.uri`, MLFLOW_TRACKING_URI, else the SQLite file in the work directory.

    Raises:
        UserError: the URI holds a password.
    """
    if config.tracking.uri and urlsplit(config.tracking.uri).password:  # settings are kept with the run, and shown
        problem = "must hold no password: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD for a server, or "
        raise config.mistake(
            "tracking.uri", f"{problem}leave tracking.uri out and set MLFLOW_TRACKING_URI for a database"
        )
    return config.tracking.uri or default_uri(config.work_dir)


def default_uri(work_dir: Path | None = None) -> str:
    """Return MLFLOW_TRACKING_URI, else the SQLite file in the work directory (without one, that of a plain run)."""
    folder = work_dir or Path(DEFAULT_WORK_DIR).absolute()
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"


def open_store(config: Config, uri: str) -> Callable[[], None]:
    """Import MLflow and reach the store in the background, while Spark starts; return a function that waits for it.

    That function raises UserError when the store cannot be used: before any work is done.
    """

    def reach() -> None:
        from mlflow.exceptions import MlflowException

        try:
            databricks.credentials(uri)  # fails now, before any work, if the ranks would lack them
            if uri.startswith("sqlite:"):
                _make_work_dir(config)
            connect(uri).search_experiments(max_results=1)
            if config.tracking.registered_model:
                connect(uri).search_registered_models(max_results=1)
        except (MlflowException, OSError) as error:
            raise config.mistake(
                "tracking.uri", f"cannot use the MLflow store {hide_password(uri)}: {one_line(error)}"
            ) from None

    pool = ThreadPoolExecutor(1)
    reached = pool.submit(reach)
    pool.shutdown(wait=False)
    return reached.result


def _make_work_dir(config: Config) -> None:
    try:
        storage.make_private(config.work_dir)
    except OSError as error:
        problem = f"cannot make the folder {config.work_dir}: {reason(error)}"
        raise config.mistake("run.work_dir", f"{problem}; name one that this user can write") from None


@contextmanager
def delivery_errors(uri: str) -> Iterator[None]:
    """Turn an error of the block into a DeliveryError, one sentence, if the store does not answer."""
    try:
        yield
    except Exception as error:
        if not is_down(error):
            raise
        problem = f"the MLflow store {hide_password(uri)} does not answer ({one_line(error)})"
        raise DeliveryError(f"{problem}; the prepared data are kept, run again when it is back") from None


def is_down(error: BaseException) -> bool:
    """Return whether an error means that the store is away or overloaded; False if the store refuses the request."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

    status: int | None = None
    if isinstance(error, MlflowException):
        status = int(error.get_http_status_code())  # type: ignore[no-untyped-call]
    elif isinstance(error, RequestException) and error.response is not None:
        status = error.response.status_code
    elif isinstance(error, RequestException):
        return True
    return status is not None and (status >= 500 or status in (408, 425, 429))
