"""The start of every job that needs Spark: its SQL is checked, its tracking store is open, its Spark session runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import Config
from pipeline.data import features_sql
from pipeline.launch.executors import local_slots
from pipeline.runtime import session, storage, surroundings
from pipeline.tracking import experiments, store

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def open_job(config: Config, job: str) -> tuple[str, SparkSession]:
    """Return the tracking store's URI and the Spark session; the store is opened while Spark starts.

    Raises:
        UserError: features.sql uses what is not allowed, or the store does not answer or refuses the password, or
            the experiment was deleted, or the machine lacks what Spark or Horovod need.
    """
    _check_paths(config)
    features_sql.check(config)  # before Spark starts, so that an error in the SQL costs no time
    store.configure_mlflow()
    uri = store.tracking_uri(config)
    wait_for_store = store.open_store(config, uri)
    paths = [str(config.folder), str(config.work_dir), str(config.data_dir), *config.source_paths]
    spark = start_spark(f"{job} {config.folder.name}", config.work_dir, paths)
    wait_for_store()
    experiments.check_experiment(config, uri)
    return uri, spark


def _check_paths(config: Config) -> None:
    """Raise UserError if a folder that the job writes has a name that one of our libraries misreads."""
    for key, path in (("run.work_dir", str(config.work_dir)), ("run.data_dir", str(config.data_dir))):
        if unusable := storage.unusable_characters(path):
            marks = " ".join(map(repr, unusable))
            problem = f"{path} holds {marks}, which Spark, Petastorm or MLflow take for a pattern or a mark"
            raise config.mistake(key, f"{problem}: name a folder whose path is without")


def start_spark(name: str, work_dir: Path, paths: Iterable[str]) -> SparkSession:
    """Return the Spark session of a job that uses ``paths``; ``name`` is what Spark calls the application.

    Raises:
        UserError: Spark does not start here, or was started with what the job cannot run on.
    """
    surroundings.check_machine()
    spark = session.get_session(name, work_dir)
    surroundings.check_spark(spark, local_slots(str(spark.sparkContext.master)) is not None, paths)
    return spark
