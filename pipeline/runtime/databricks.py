"""The differences of Databricks. All code that depends on it is here; the bundle is in conf/databricks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark import SparkConf

_TAGS = "spark.databricks.clusterUsageTags."


def is_runtime() -> bool:
    """Whether this process, a driver, an executor's task or a rank, runs on a Databricks cluster."""
    return "DATABRICKS_RUNTIME_VERSION" in os.environ


def workers(conf: SparkConf) -> int | None:
    """Return the number of workers of this cluster, each one executor; if it autoscales, the minimum."""
    key = "clusterMinWorkers" if conf.get(f"{_TAGS}clusterScalingType") == "autoscaling" else "clusterWorkers"
    return int(str(conf.get(_TAGS + key, "0"))) or None


def uri_for_ranks(tracking_uri: str) -> str:
    """Return the tracking URI for a rank: `databricks` for any workspace and profile, as :func:`credentials` set it."""
    return "databricks" if tracking_uri.partition(":")[0] == "databricks" else tracking_uri


def credentials(tracking_uri: str) -> dict[str, str]:
    """Return the variables with which a rank reaches the workspace of ``tracking_uri``; none for another store.

    The driver gets host and token from the job's context, which its ranks do not share. MLflow collects both for
    processes that it starts.
    """
    if tracking_uri.partition(":")[0] != "databricks":
        return {}
    from mlflow.utils.databricks_utils import get_databricks_env_vars

    variables: dict[str, str] = get_databricks_env_vars(tracking_uri)  # type: ignore[no-untyped-call]
    return {name: value for name, value in variables.items() if name != "MLFLOW_TRACKING_URI"}
