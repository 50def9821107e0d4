"""MLflow: the run, its parameters, metrics, figures and data set. The driver opens and ends it, rank 0 fills it."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline import databricks, storage
from pipeline.config import Config
from pipeline.console import log
from pipeline.errors import DeliveryError

# Read when mlflow is imported: a user's job reports to nobody but the user's own store, and warns but does not chat.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# A store that does not answer is told within seconds; MLflow's own patience is minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
# As the user has set it: MLflow itself writes to this variable later.
_ENVIRONMENT_URI = os.environ.get("MLFLOW_TRACKING_URI")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")

_RECORDS_PER_BATCH = 50  # MLflow takes 1,000 metrics at once
_PATIENCE_S = 20  # with a store that does not answer, when training has ended

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
)
"""Variables that rank 0 needs to reach the store; they travel in the environment of the ranks, nowhere else."""

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

    from pipeline.manifest import Manifest


def connect(uri: str) -> MlflowClient:
    """Return a client of the store. MLflow takes seconds to import, so not every rank does it at its start."""
    import mlflow

    return mlflow.MlflowClient(uri)


def tracking_uri(config: Config) -> str:
    """Return `tracking.uri`, MLFLOW_TRACKING_URI, or the SQLite file in the work directory that stands in for both.

    Raises:
        UserError: the URI holds a password.
    """
    if config.tracking.uri and urlsplit(config.tracking.uri).password:  # settings are kept with the run, and shown
        problem = "must hold no password: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD for a server, or "
        raise config.mistake(
            "tracking.uri", f"{problem}leave tracking.uri out and set MLFLOW_TRACKING_URI for a database"
        )
    return config.tracking.uri or _ENVIRONMENT_URI or f"sqlite:///{config.work_dir / 'mlflow.db'}"


def open_store(config: Config, uri: str) -> Callable[[], None]:
    """Import MLflow and reach the store in the background, while Spark starts; return a function that waits for it.

    That function raises UserError when the store cannot be used: before any work is done.
    """

    def reach() -> None:
        from mlflow.exceptions import MlflowException

        try:
            databricks.credentials(uri)  # what the ranks will need is there, or is told now
            if uri.startswith("sqlite:"):
                config.work_dir.mkdir(parents=True, exist_ok=True)
            connect(uri).search_experiments(max_results=1)
            if config.tracking.registered_model:
                connect(uri).search_registered_models(max_results=1)
        except (MlflowException, OSError) as error:
            raise config.mistake(
                "tracking.uri", f"cannot use the MLflow store {shown(uri)}: {one_line(error)}"
            ) from None

    pool = ThreadPoolExecutor(1)
    reached = pool.submit(reach)
    pool.shutdown(wait=False)
    return reached.result


def start_run(config: Config, uri: str) -> str:
    """Create the run (and its experiment, if need be); return its id."""
    client = connect(uri)
    name = config.tracking.experiment or config.folder.name
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        experiment_id = experiment.experiment_id
    else:
        # a server knows where its artifacts go; beside an SQLite file that is for us to say
        place = (config.work_dir / "mlartifacts").as_uri() if uri.startswith("sqlite:") else None
        experiment_id = client.create_experiment(name, artifact_location=place)
    tags = {"mlflow.source.name": "jobs/train.py", "mlflow.source.type": "JOB"}
    commit = _git_commit(config.folder)
    if commit:
        tags["mlflow.source.git.commit"] = commit
    run = client.create_run(experiment_id, tags=tags, run_name=config.tracking.run_name)
    log.info("MLflow run %s (%s) in experiment '%s'", run.info.run_name, run.info.run_id, name)
    return str(run.info.run_id)


@contextmanager
def open_run(config: Config, uri: str) -> Iterator[str]:
    """Start a run for the block and end it: FINISHED, FAILED if the block raises, KILLED if it is interrupted."""
    with told_if_down(uri):
        run_id = start_run(config, uri)
    status = "FAILED"
    try:
        yield run_id
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        try:
            connect(uri).set_terminated(run_id, status)
        except Exception as error:  # what the block has done, or how it failed, matters more
            log.warning("the run %s stays RUNNING in the store: %s", run_id, one_line(error))


@contextmanager
def told_if_down(uri: str) -> Iterator[None]:
    """Turn what a store that does not answer makes of the block into one sentence, a DeliveryError."""
    try:
        yield
    except Exception as error:
        if not is_down(error):
            raise
        problem = f"the MLflow store {shown(uri)} does not answer ({one_line(error)})"
        raise DeliveryError(f"{problem}; the prepared data are kept, run again when it is back") from None


def log_setup(uri: str, run_id: str, config: Config, data: Manifest, versions: dict[str, str], num_proc: int) -> None:
    """Log what is known before training: parameters, configuration, features.sql, the data set, versions."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag

    client = connect(uri)
    params = {"num_proc": num_proc, **_flat(config.model_dump(by_alias=True)), **data.rows.model_dump()}
    client.log_batch(
        run_id,
        params=[Param(key, str(value)[:6000]) for key, value in params.items()],
        tags=[RunTag(f"version.{name}", version) for name, version in versions.items()],
    )
    client.log_text(run_id, config.to_yaml(), "config/pipeline.yaml")
    client.log_text(run_id, config.features_sql, "config/features.sql")
    client.log_text(run_id, data.model_dump_json(indent=1), "data/manifest.json")
    dataset = Dataset(
        name=config.folder.name,
        digest=data.fingerprint,
        source_type=storage.scheme(data.source.paths[0]) or "local",
        source=json.dumps({"uri": data.source.paths, "fingerprint": data.source.fingerprint}),
        profile=json.dumps({"num_rows": data.rows.read, "num_files": data.source.files, "bytes": data.source.bytes}),
    )
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


@dataclass(frozen=True)
class LoggedRun:
    """What the gate needs to know of a training that has ended."""

    run_id: str
    model_uri: str
    metrics: dict[str, float]
    """Of the kept weights on the validation rows, by name."""
    data: Manifest


def read_run(config: Config, uri: str, run_id: str | None) -> LoggedRun:
    """Return a training's run: the one named, or the experiment's newest that has ended well (under its run_name).

    Raises:
        UserError: there is none, or it is not one of this pipeline.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    from pipeline.manifest import Manifest

    client, name = connect(uri), config.tracking.experiment or config.folder.name
    try:
        if run_id is None:
            run_id = _newest_run(client, name, config.tracking.run_name)
            if run_id is None:
                named = f" named '{config.tracking.run_name}'" if config.tracking.run_name else ""
                raise config.mistake("tracking", f"experiment '{name}' has no finished run{named}; train first")
        run = client.get_run(run_id)
        mlflow.set_tracking_uri(uri)
        manifest = mlflow.artifacts.load_text(f"runs:/{run_id}/data/manifest.json")
        model_uri = run.data.tags["model_uri"]
    except (MlflowException, OSError, KeyError) as error:
        if is_down(error):
            raise
        raise config.mistake(
            "tracking", f"run {run_id} holds no training of this pipeline: {one_line(error)}"
        ) from None
    metrics = {key.removeprefix("best_"): v for key, v in run.data.metrics.items() if key.startswith("best_")}
    return LoggedRun(run_id, model_uri, metrics, Manifest.model_validate_json(manifest))


def _newest_run(client: MlflowClient, experiment: str, run_name: str | None) -> str | None:
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return None
    newest_first = {"max_results": 1000, "order_by": ["attributes.start_time DESC"]}
    runs = client.search_runs([found.experiment_id], "attributes.status = 'FINISHED'", **newest_first)  # type: ignore[arg-type]
    ids = (str(run.info.run_id) for run in runs if run_name in (None, run.info.run_name))
    return next(ids, None)


def log_outcome(
    uri: str, run_id: str, metrics: dict[str, float | None], tags: dict[str, str], params: dict[str, str] | None = None
) -> None:
    """Log the kept weights' metrics, each under `best_…`, tags, and parameters that only the ranks could tell."""
    client = connect(uri)
    for name, text in (params or {}).items():
        client.log_param(run_id, name, text[:6000])
    for name, value in metrics.items():
        if value is not None:
            client.log_metric(run_id, f"best_{name}", value)
    for name, text in tags.items():
        client.set_tag(run_id, name, text)


def log_figure(uri: str, run_id: str, figure: Figure, path: str) -> None:
    """Log ``figure`` as a PNG at ``path`` of the run's artifacts."""
    connect(uri).log_figure(run_id, figure, path)


def log_text(uri: str, run_id: str, text: str, path: str) -> None:
    """Log ``text`` as the file ``path`` of the run's artifacts."""
    connect(uri).log_text(run_id, text, path)


def log_bytes(uri: str, run_id: str, content: bytes, path: str) -> None:
    """Log ``content`` as the file ``path`` of the run's artifacts."""
    folder, _, name = path.rpartition("/")
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / name).write_bytes(content)
        connect(uri).log_artifact(run_id, str(Path(scratch) / name), folder)


Pending = tuple[int, int, dict[str, float]]
"""One epoch's metrics on their way to the store: time in ms, epoch, values."""


class MetricWriter:
    """Rank 0's way to the store while training runs: a thread of its own writes, training never waits for it.

    While the store does not answer, epochs pile up (each is in the run's history anyway, so this takes no more memory)
    and are delivered in their order when it does again. What the store refuses stays pending: the driver tells.
    """

    def __init__(self, uri: str, run_id: str) -> None:
        self._uri = uri
        self._run_id = run_id
        self._records: deque[Pending] = deque()
        self._wake = threading.Event()
        self._give_up_at = math.inf
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def pending(self) -> list[Pending]:
        """Return the epochs that the store has not confirmed. To send one again is harmless: it has its own time."""
        return list(self._records)

    def write(self, record: dict[str, float], epoch: int) -> None:
        """Hand over one epoch's metrics; returns at once. NaN and infinite ones are left out."""
        finite = {name: value for name, value in record.items() if math.isfinite(value)}
        self._records.append((int(time.time() * 1000), epoch, finite))
        self._wake.set()

    def __enter__(self) -> MetricWriter:
        return self

    def __exit__(self, *raised: object) -> None:
        """Wait until everything is in the store, but no longer than 20 s."""
        self._give_up_at = time.monotonic() + _PATIENCE_S
        self._wake.set()
        self._thread.join(_PATIENCE_S)

    def _run(self) -> None:
        client = connect(self._uri)
        is_away, wait_s = False, 0.5
        while self._records or self._give_up_at == math.inf:
            self._wake.wait()
            self._wake.clear()
            while self._records and time.monotonic() < self._give_up_at:
                # what has come in since the last time goes out together: one transaction, not one an epoch
                batch = list(itertools.islice(self._records, _RECORDS_PER_BATCH))
                try:
                    log_records(self._uri, self._run_id, batch, client)
                except Exception as error:
                    if not is_down(error):
                        _say(f"the MLflow store refuses the metrics; training goes on ({one_line(error)})")
                        return
                    if not is_away:
                        _say(f"the MLflow store does not answer; training goes on ({one_line(error)})")
                    is_away, wait_s = True, min(10.0, wait_s * 2)
                    time.sleep(max(0.1, min(wait_s, self._give_up_at - time.monotonic())))
                    continue
                if is_away:
                    _say("the MLflow store answers again")
                is_away, wait_s = False, 0.5
                for _ in batch:
                    self._records.popleft()
            if time.monotonic() >= self._give_up_at:
                return


def log_records(uri: str, run_id: str, records: Sequence[Pending], client: MlflowClient | None = None) -> None:
    """Log the metrics of some epochs, with the time at which each ended."""
    from mlflow.entities import Metric

    for start in range(0, len(records), _RECORDS_PER_BATCH):
        batch = records[start : start + _RECORDS_PER_BATCH]
        metrics = [Metric(name, value, when, epoch) for when, epoch, values in batch for name, value in values.items()]
        (client or connect(uri)).log_batch(run_id, metrics)


def is_down(error: BaseException) -> bool:
    """Whether an error says that the store cannot be reached or is overloaded, not that it refuses what we ask."""
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


def shown(uri: str) -> str:
    """Return a URI for people to read: without the password that it may hold."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", uri)


def _say(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, file=sys.stderr, flush=True)


def one_line(error: BaseException) -> str:
    """Return what an error says in one line of at most 200 characters."""
    return shown(" ".join(str(error).split())[:200])


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as dotted keys; lists stay whole."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _git_commit(folder: Path) -> str | None:
    try:
        asked = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() if asked.returncode == 0 else None
