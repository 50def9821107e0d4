"""What is different on Databricks. All that knows of it is here, but for the bundle in conf/databricks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark import SparkConf

_TAGS = "spark.databricks.clusterUsageTags."


def is_runtime() -> bool:
    """Whether this process runs on a Databricks cluster, be it the driver, an executor's task or a rank."""
    return "DATABRICKS_RUNTIME_VERSION" in os.environ


def workers(conf: SparkConf) -> int | None:
    """Return the workers of this cluster, each of which is one executor; of an autoscaling one those it always has."""
    key = "clusterMinWorkers" if conf.get(f"{_TAGS}clusterScalingType") == "autoscaling" else "clusterWorkers"
    return int(str(conf.get(_TAGS + key, "0"))) or None


def uri_for_ranks(tracking_uri: str) -> str:
    """Return the tracking URI as a rank has it: for any workspace and profile the one its variables describe."""
    return "databricks" if tracking_uri.partition(":")[0] == "databricks" else tracking_uri


def credentials(tracking_uri: str) -> dict[str, str]:
    """Return the variables by which a rank reaches the workspace that ``tracking_uri`` names; none for another store.

    The driver has host and token from the job's own context, which its ranks do not share. MLflow knows where to look,
    and gives both as what a process started by it would need.
    """
    if tracking_uri.partition(":")[0] != "databricks":
        return {}
    from mlflow.utils.databricks_utils import get_databricks_env_vars

    found: dict[str, str] = get_databricks_env_vars(tracking_uri)  # type: ignore[no-untyped-call]
    return {name: value for name, value in found.items() if name != "MLFLOW_TRACKING_URI"}
