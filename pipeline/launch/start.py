"""The start of every job that needs Spark: its SQL is checked, its tracking store is open, its Spark session runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.config import Config
from pipeline.data import features_sql
from pipeline.runtime import session
from pipeline.tracking import runs, store

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def open_job(config: Config, job: str) -> tuple[str, SparkSession]:
    """Return the tracking store's URI and the Spark session; the store is opened while Spark starts.

    Raises:
        UserError: features.sql uses what is not allowed, or the store does not answer or refuses the password, or
            the experiment was deleted.
    """
    features_sql.check(config)  # before Spark starts, so that an error in the SQL costs no time
    store.configure_mlflow()
    uri = store.tracking_uri(config)
    wait_for_store = store.open_store(config, uri)
    spark = session.get_session(f"{job} {config.folder.name}", config.work_dir)
    wait_for_store()
    runs.check_experiment(config, uri)
    return uri, spark
