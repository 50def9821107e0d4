"""MLflow runs: opened, filled and ended by the driver."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pipeline
from pipeline.config import Config
from pipeline.runtime import storage
from pipeline.runtime.console import log
from pipeline.runtime.errors import UserError, one_line
from pipeline.tracking import experiments
from pipeline.tracking.store import active, connect, delivery_errors, is_down

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

    from pipeline.data.manifest import Manifest

_SET_UP = "version.pyspark"
"""The tag of a run that holds what its training starts from."""


def start_run(config: Config, uri: str) -> str:
    """Create the run (and its experiment, if need be); return its id."""
    client = connect(uri)
    name = experiments.experiment_name(config, uri)
    run = client.create_run(
        experiments.experiment_id(client, config, uri, name),
        tags=_source_tags(config),
        run_name=config.tracking.run_name,
    )
    log.info("MLflow run %s (%s) in experiment '%s'", run.info.run_name, run.info.run_id, name)
    return str(run.info.run_id)


@contextmanager
def open_run(config: Config, uri: str, earlier: str | None = None) -> Iterator[str]:
    """Start a run for the block, or go on in an earlier one, and end it.

    It ends as FINISHED, as FAILED if the block raises, as KILLED if it is interrupted. A platform that has started a
    run for this job names it in MLFLOW_RUN_ID.

    Raises:
        UserError: MLFLOW_RUN_ID names no run that can take this training.
    """
    with delivery_errors(uri):
        run_id = _reopened(config, uri, earlier) or _run_of_platform(config, uri) or start_run(config, uri)
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
        except Exception as error:  # the block's own result or error matters more
            log.warning("the run %s stays RUNNING in the store: %s", run_id, one_line(error))


def _run_of_platform(config: Config, uri: str) -> str | None:
    """Return the run that MLFLOW_RUN_ID names, set to RUNNING; None without that variable."""
    from mlflow.exceptions import MlflowException

    run_id = os.environ.get("MLFLOW_RUN_ID")
    if not run_id:
        return None
    client = connect(uri)
    try:
        run = client.get_run(run_id)
        if run.info.lifecycle_stage != "active":
            raise UserError(f"MLFLOW_RUN_ID={run_id}: the run was deleted; unset it, or name another")
        if _SET_UP in run.data.tags:
            raise UserError(f"MLFLOW_RUN_ID={run_id}: the run holds another training already; unset it")
        client.update_run(run_id, status="RUNNING", name=config.tracking.run_name)
        for name, text in _source_tags(config).items():
            client.set_tag(run_id, name, text)
    except MlflowException as error:
        if is_down(error):
            raise
        raise UserError(f"MLFLOW_RUN_ID={run_id}: {one_line(error)}; unset it, or name another") from None
    log.info("training in MLflow run %s (%s), which MLFLOW_RUN_ID names", run.info.run_name, run_id)
    return run_id


def _reopened(config: Config, uri: str, run_id: str | None) -> str | None:
    """Set an earlier run to RUNNING again; return its id, or None if it is not there, or in another experiment."""
    from mlflow.exceptions import MlflowException

    if run_id is None:
        return None
    client = connect(uri)
    try:
        run = client.get_run(run_id)
        experiment = client.get_experiment(run.info.experiment_id).name
        named = os.environ.get("MLFLOW_RUN_ID")
        is_ours = run_id == named or experiment == experiments.experiment_name(config, uri)
        if run.info.lifecycle_stage != "active" or not is_ours:
            return None
        client.update_run(run_id, status="RUNNING", name=config.tracking.run_name)
        for name, text in _source_tags(config).items():  # newer code may finish the run
            client.set_tag(run_id, name, text)
    except MlflowException as error:
        if is_down(error):
            raise
        return None
    log.info("going on in MLflow run %s (%s)", run.info.run_name, run_id)
    if named and named != run_id:
        log.warning("MLFLOW_RUN_ID=%s stays unused: the interrupted training is in the earlier run", named)
    return run_id


def log_setup(uri: str, run_id: str, config: Config, data: Manifest, versions: dict[str, str], num_proc: int) -> None:
    """Log what a training starts from: parameters, configuration, features.sql, the data set, versions of packages."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag

    client = connect(uri)
    run = client.get_run(run_id)
    if _SET_UP in run.data.tags:
        return  # an earlier attempt has logged all
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
    # last: a run that has these tags has all of this; parameters that a platform has set stay as they are
    params = {"num_proc": num_proc, **_flat(config.model_dump(by_alias=True)), **data.rows.model_dump()}
    # MLflow takes no other characters in a key, and an option of Spark may have any
    named = {re.sub(r"[^\w\-. /]", "_", key): str(value)[:6000] for key, value in params.items()}
    client.log_batch(
        run_id,
        params=[Param(name, text) for name, text in named.items() if name not in run.data.params],
        tags=[RunTag(f"version.{name}", version) for name, version in versions.items()],
    )


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

    from pipeline.data.manifest import Manifest

    client, name = connect(uri), experiments.experiment_name(config, uri)
    try:
        if run_id is None:
            run_id = _newest_run(client, name, config.tracking.run_name)
            if run_id is None:
                named = f" named '{config.tracking.run_name}'" if config.tracking.run_name else ""
                raise config.mistake("tracking", f"experiment '{name}' has no finished run{named}; train first")
        run = client.get_run(run_id)
        with active(uri):
            text = mlflow.artifacts.load_text(f"runs:/{run_id}/data/manifest.json")
        manifest = Manifest.model_validate_json(text)
        model_uri = run.data.tags["model_uri"]
    except (MlflowException, OSError, KeyError, ValueError, RecursionError) as error:
        if is_down(error):
            raise
        raise config.mistake(
            "tracking", f"run {run_id} holds no training of this pipeline: {one_line(error)}"
        ) from None
    metrics = {key.removeprefix("best_"): v for key, v in run.data.metrics.items() if key.startswith("best_")}
    return LoggedRun(run_id, model_uri, metrics, manifest)


def _newest_run(client: MlflowClient, experiment: str, run_name: str | None) -> str | None:
    named = client.get_experiment_by_name(experiment)
    if named is None:
        return None
    newest_first = {"max_results": 1000, "order_by": ["attributes.end_time DESC"]}  # one that was resumed ends last
    runs = client.search_runs([named.experiment_id], "attributes.status = 'FINISHED'", **newest_first)  # type: ignore[arg-type]
    trained = (run for run in runs if "model_uri" in run.data.tags)
    ids = (str(run.info.run_id) for run in trained if run_name in (None, run.info.run_name))
    return next(ids, None)


def log_outcome(
    uri: str, run_id: str, metrics: dict[str, float | None], tags: dict[str, str], params: dict[str, str] | None = None
) -> None:
    """Log the end of a training: metrics, tags, and the parameters that only the ranks know."""
    client = connect(uri)
    known = client.get_run(run_id).data  # an earlier attempt may have come as far as here
    for name, text in (params or {}).items():
        if name not in known.params:  # a parameter cannot change
            client.log_param(run_id, name, text[:6000])
    for name, value in metrics.items():
        if value is not None and known.metrics.get(name) != value:
            client.log_metric(run_id, name, value)
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


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as dotted keys; lists stay whole."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _source_tags(config: Config) -> dict[str, str]:
    """Return what a run came from: the job, this project's version and commit, and the commit of the configuration.

    A commit is left out where there is none: an installed wheel is no checkout.
    """
    tags = {"mlflow.source.name": "jobs/train.py", "mlflow.source.type": "JOB"}
    with suppress(PackageNotFoundError):  # a folder on PYTHONPATH has no version
        tags["pipeline.version"] = version("pipeline")
    checkout = Path(pipeline.__file__).resolve().parents[1]
    # a folder of packages may lie inside the checkout of something else
    is_ours = _git(checkout, "rev-parse", "--show-toplevel") == str(checkout)
    commits = {
        "mlflow.source.git.commit": _git(checkout, "rev-parse", "HEAD") if is_ours else None,
        "config.git.commit": _git(config.folder, "rev-parse", "HEAD"),
    }
    return tags | {name: commit for name, commit in commits.items() if commit}


def _git(folder: Path, *command: str) -> str | None:
    """Return what git answers about a folder; None where it has no answer."""
    try:
        ran = subprocess.run(["git", "-C", folder, *command], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ran.stdout.strip() if ran.returncode == 0 else None
