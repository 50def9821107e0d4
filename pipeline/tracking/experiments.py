"""The MLflow experiment of a job: its name, whether it can be used, and its creation."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pipeline.config import Config
from pipeline.runtime.errors import UserError, hide_password, one_line
from pipeline.tracking.store import connect, is_down

if TYPE_CHECKING:
    from mlflow import MlflowClient

_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
"""How URIs of stores begin that are a database without a server."""


def experiment_name(config: Config, uri: str) -> str:
    """Return the name of the experiment: `tracking.experiment`, else what a platform has set, else the folder's name.

    A platform sets MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID. Raises UserError if the store lacks that id.
    """
    from mlflow.exceptions import MlflowException

    named = config.tracking.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME")
    if named or not (identity := os.environ.get("MLFLOW_EXPERIMENT_ID")):
        return named or config.folder.name
    try:
        return str(connect(uri).get_experiment(identity).name)
    except MlflowException as error:
        if is_down(error):
            raise
        raise UserError(f"MLFLOW_EXPERIMENT_ID={identity}: {one_line(error)}; unset it, or name another") from None


def check_experiment(config: Config, uri: str) -> None:
    """Raise UserError if the experiment was deleted: MLflow takes no run for it, and gives nobody else its name."""
    experiment = connect(uri).get_experiment_by_name(experiment_name(config, uri))
    if experiment is not None and experiment.lifecycle_stage == "deleted":
        restore = f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
        problem = f"'{experiment.name}' was deleted; restore it (MLFLOW_TRACKING_URI={hide_password(uri)} {restore})"
        problem += " or name another"
        raise config.mistake("tracking.experiment", problem)


def experiment_id(client: MlflowClient, config: Config, uri: str, name: str) -> str:
    """Return the id of the experiment; create it if need be."""
    from mlflow.exceptions import MlflowException

    if (experiment := client.get_experiment_by_name(name)) is not None:
        return str(experiment.experiment_id)
    # a server knows where its artifacts go; a database does not
    place = (config.work_dir / "mlartifacts").as_uri() if uri.startswith(_DATABASES) else None
    try:
        return str(client.create_experiment(name, artifact_location=place))
    except MlflowException:  # each version of MLflow says in another way that the name is taken
        created = client.get_experiment_by_name(name)
        if created is None:
            raise
        return str(created.experiment_id)  # another job has created it meanwhile
