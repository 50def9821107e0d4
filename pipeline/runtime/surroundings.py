"""What a job needs of the machine around it, checked before any work: one sentence names what stands in the way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import pipeline
from pipeline.runtime import databricks
from pipeline.runtime.errors import UserError, one_line

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_ACTIVATE = "source conf/spark/env.sh sets all that the job needs"


def check_machine() -> None:
    """Check what can be known before Spark starts; what Java needs, conf/spark/spark-env.sh has checked before.

    Raises:
        UserError: another package has our name, or another Spark is used than was installed.
    """
    first_found, ours = Path(str(pipeline.__file__)).parent, Path(__file__).parents[1]
    if not first_found.samefile(ours):  # an editable installation adds our modules to that package
        raise UserError(f"{first_found} is another package 'pipeline' than {ours}: take it off PYTHONPATH")
    _check_spark_version()


def _check_spark_version() -> None:
    import pyspark

    used, home = pyspark.__version__, os.environ.get("SPARK_HOME")
    where = f"SPARK_HOME={home}" if home else os.path.dirname(str(pyspark.__file__))
    if not used.startswith("3.5."):
        raise UserError(f"{where} is Spark {used}, but the jobs run on Spark 3.5: unset SPARK_HOME ({_ACTIVATE})")
    try:
        installed = version("pyspark")
    except PackageNotFoundError:  # the Spark of a cluster is no package
        return
    if installed != used and not databricks.is_runtime():
        problem = f"{where} is Spark {used}, but {installed} is installed in this environment"
        raise UserError(f"{problem}: unset SPARK_HOME ({_ACTIVATE})")


def check_spark(spark: SparkSession, is_local: bool, paths: Iterable[str]) -> None:
    """Check what the running Spark was started with.

    Raises:
        UserError: tasks run on another Python than the driver (on a local master), Java cannot name one of the
            ``paths``, or a setting of Spark would run a rank twice.
    """
    if spark.sparkContext.getConf().get("spark.speculation", "false").lower() == "true":
        raise UserError("spark.speculation is true, and Spark would start a slow rank a second time: set it to false")
    _check_characters(spark, paths)
    if is_local:
        _check_python(str(spark.sparkContext.pythonExec))


def _check_characters(spark: SparkSession, paths: Iterable[str]) -> None:
    """Raise UserError if Java cannot name a path: in the locale C it knows ASCII alone."""
    encoding = str(spark._jvm.java.lang.System.getProperty("sun.jnu.encoding"))  # type: ignore[union-attr]
    for path in paths:
        if not path.isascii() and encoding.upper().replace("-", "") != "UTF8":
            problem = f"Java cannot name {path} in the encoding {encoding} of this locale"
            raise UserError(f"{problem}: set LC_ALL=C.UTF-8, and start the job again")


def _check_python(python: str) -> None:
    """Raise UserError unless the Python of Spark's tasks is this one, or has its version and this package."""
    if python == sys.executable:
        return
    shown = "import pipeline.runtime, sys; print('{}.{}'.format(*sys.version_info))"
    try:
        ran = subprocess.run([python, "-c", shown], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"PYSPARK_PYTHON={python} cannot be started ({one_line(error)}): {_PYTHON}") from None
    mine = "{}.{}".format(*sys.version_info)
    if ran.returncode != 0:
        raise UserError(f"PYSPARK_PYTHON={python} lacks this project's packages: {_PYTHON}")
    if ran.stdout.strip() != mine:
        raise UserError(f"PYSPARK_PYTHON={python} is Python {ran.stdout.strip()}, the driver's is {mine}: {_PYTHON}")


_PYTHON = f"unset PYSPARK_PYTHON, or set it to {sys.executable}"
