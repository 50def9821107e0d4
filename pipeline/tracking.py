"""MLflow: the run, its parameters, metrics, figures and data set. The driver opens and ends the run, rank 0 fills it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

# before mlflow is imported: no run of a user's job reports to anyone but the user's own store
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from pipeline.config import Config
from pipeline.console import log

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.manifest import Manifest


def tracking_uri(config: Config) -> str:
    """Return `tracking.uri`, or the SQLite file in the work directory that stands in for a server."""
    return config.tracking.uri or f"sqlite:///{config.work_dir / 'mlflow.db'}"


def start_run(config: Config, uri: str) -> str:
    """Create the run (and its experiment, if need be); return its id."""
    config.work_dir.mkdir(parents=True, exist_ok=True)
    client = MlflowClient(uri)
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
    run_id = start_run(config, uri)
    client = MlflowClient(uri)
    try:
        yield run_id
    except KeyboardInterrupt:
        client.set_terminated(run_id, "KILLED")
        raise
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")


def log_setup(uri: str, run_id: str, config: Config, data: Manifest, versions: dict[str, str], num_proc: int) -> None:
    """Log what is known before training: parameters, configuration, features.sql, the data set, versions."""
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.data.sources import LocalArtifactDatasetSource
    from mlflow.entities import DatasetInput, InputTag, Param, RunTag

    client = MlflowClient(uri)
    params = {"num_proc": num_proc, **_flat(config.model_dump(by_alias=True)), **data.rows.model_dump()}
    client.log_batch(
        run_id,
        params=[Param(key, str(value)[:6000]) for key, value in params.items()],
        tags=[RunTag(f"version.{name}", version) for name, version in versions.items()],
    )
    client.log_text(run_id, config.to_yaml(), "config/pipeline.yaml")
    client.log_text(run_id, config.features_sql, "config/features.sql")
    client.log_text(run_id, data.model_dump_json(indent=1), "data/manifest.json")
    dataset = MetaDataset(
        LocalArtifactDatasetSource(data.source.paths[0]), name=config.folder.name, digest=data.fingerprint
    )
    tags = [InputTag("mlflow.data.context", "training"), InputTag("source_fingerprint", data.source.fingerprint)]
    client.log_inputs(run_id, [DatasetInput(dataset._to_mlflow_entity(), tags)])


def log_outcome(uri: str, run_id: str, metrics: dict[str, float], tags: dict[str, str]) -> None:
    """Log the kept weights' metrics, each under `best_…`, and tags."""
    client = MlflowClient(uri)
    for name, value in metrics.items():
        client.log_metric(run_id, f"best_{name}", value)
    for name, text in tags.items():
        client.set_tag(run_id, name, text)


def log_figure(uri: str, run_id: str, figure: Figure, path: str) -> None:
    """Log ``figure`` as a PNG at ``path`` of the run's artifacts."""
    MlflowClient(uri).log_figure(run_id, figure, path)


def log_files(uri: str, run_id: str, files: Sequence[Path], folder: str) -> None:
    """Log each file below ``folder`` of the run's artifacts."""
    client = MlflowClient(uri)
    for file in files:
        client.log_artifact(run_id, str(file), folder)


class MetricWriter:
    """Rank 0's way to the store while training runs: MLflow's own background thread does the writing."""

    def __init__(self, uri: str, run_id: str) -> None:
        self._client = MlflowClient(uri)
        self._run_id = run_id
        self._pending: list[Any] = []

    def write(self, record: dict[str, float], epoch: int) -> None:
        """Hand over one epoch's metrics; returns at once. NaN and infinite ones are left out."""
        now = int(time.time() * 1000)
        metrics = [
            Metric(name, value, now, epoch)
            for name, value in record.items()
            if name not in ("epoch", "train_rows", "validation_rows") and abs(value) < float("inf")
        ]
        self._pending.append(self._client.log_batch(self._run_id, metrics, synchronous=False))

    def flush(self) -> None:
        """Wait until everything handed over is in the store. Raises what the store raised."""
        for operation in self._pending:
            operation.wait()
        self._pending.clear()


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


__all__ = ["MetricWriter", "MlflowException", "log_files", "log_figure", "log_outcome", "log_setup", "open_run"]
