"""The folder that the job predict writes: what it may replace, how its columns are called, how its CSV is written.

The job's own marker file comes first, `_SUCCESS` last. A folder with files but without the marker is never touched.
All access goes through Hadoop's FileSystem, so that it reaches every store that Spark reaches.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from pipeline.runtime import storage
from pipeline.runtime.errors import UserError, one_line

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

MARKER = "_pipeline_predictions.json"
"""The file that says that this job has written the folder."""
QUARANTINE = "_quarantine"

_SUCCESS = "_SUCCESS"
_WRITTEN_BY_US = re.compile(
    rf"part-.*|{MARKER}|{QUARANTINE}|_SUCCESS|_temporary|__magic.*|_(committed|started)_.*|\..*\.crc|.*_\$folder\$|\.spark-staging.*"
)
"""Names in an output: the job's, Spark's, those of its committers, and the checksums of Hadoop's local files."""
_SAME_STORE = {"s3": "s3a", "s3n": "s3a", "abfs": "abfss"}

_CSV: dict[str, str | bool] = {
    "header": True,
    # RFC 4180 doubles a quote inside quotes, as this project's reader and Python's csv module expect.
    "escape": '"',
    # Spark would cut the blanks at both ends off.
    "ignoreLeadingWhiteSpace": False,
    "ignoreTrailingWhiteSpace": False,
    # Spark would write milliseconds only; its reader takes this form by default.
    "timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX",
    "timestampNTZFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSS",
}

Place = tuple[str, PurePosixPath]
"""A store and a path in it: equal for all spellings of one place."""


@dataclass(frozen=True)
class OutputNames:
    """How the columns of an output are called. Spark ignores case, so no two differ in case only."""

    raw: list[str]
    """Of the input's columns, in their order."""
    added: list[str]
    """Of `prediction`, each class's probability, `reason` and `model_version`, in this order."""
    renamed: dict[str, str]
    """The names that differ from the column's own."""


def output_names(raw: Sequence[str], added: Sequence[str]) -> OutputNames:
    """Return the names of the input's columns ``raw`` and the job's columns ``added`` in an output.

    A column of the job keeps its name, and an input column of that name gets `input_` in front. Of two classes that
    differ in case only the second one's probability gets a number: `probability_yes_2`.
    """
    wanted, given = ({name.lower() for name in names} for names in (added, raw))
    taken: set[str] = set()
    ours, theirs = [], []
    for name in added:
        new, number = name, 1
        while new.lower() in taken or (new != name and new.lower() in wanted):
            number += 1
            new = f"{name}_{number}"
        ours.append(new)
        taken.add(new.lower())
    for name in raw:
        new = name
        while new.lower() in taken or (new != name and new.lower() in given):
            new = f"input_{new}"
        theirs.append(new)
        taken.add(new.lower())
    pairs = [*zip(added, ours, strict=True), *zip(raw, theirs, strict=True)]
    return OutputNames(theirs, ours, {name: new for name, new in pairs if name != new})


def spark_path(path: str) -> str:
    """Return a path of the command line for Spark: a URI as it is, a plain path absolute."""
    if storage.scheme(path):
        return path
    absolute = os.path.abspath(os.path.expanduser(path))
    mounted = storage.Folder(absolute).spark
    return mounted if mounted.startswith("dbfs:") else absolute


def check_output(spark: SparkSession, output: str, inputs: Sequence[str]) -> None:
    """Check that the job may write ``output``: a new or empty folder, or one that only this job has written.

    ``inputs`` are the paths that Spark reads. Raises UserError, too, when one of them lies in ``output`` or holds it.
    """
    with _one_sentence(output):
        place = _place(spark, output)
        for path in inputs:
            for other in _places(spark, path):
                if _is_within(other, place) or _is_within(place, other):
                    relation = "holds" if _is_within(other, place) else "lies in"
                    raise UserError(f"--output {output}: {relation} the input {path}; name another folder")
        files, folder = _hadoop(spark, output)
        if not files.exists(folder):
            return
        if not files.getFileStatus(folder).isDirectory():
            raise UserError(f"--output {output}: is a file; name a folder")
        names = _names(files, folder)
    foreign = sorted(name for name in names if not _WRITTEN_BY_US.fullmatch(name))
    if MARKER in names and not foreign:
        return
    if MARKER in names:
        problem = f"holds '{foreign[0]}', which this job has not written; move it away, or name another folder"
        raise UserError(f"--output {output}: {problem}")
    if _SUCCESS in names:
        problem = f"was written by an older version of this job, or by another job: it holds {_SUCCESS} but no {MARKER}"
        raise UserError(f"--output {output}: {problem}; delete it if nobody needs it, or name another folder")
    if names:
        raise UserError(f"--output {output}: holds files that are not an earlier output; name another folder")


def begin(spark: SparkSession, output: str, about: dict[str, Any]) -> None:
    """Empty ``output``, which :func:`check_output` has checked, and write the marker, which holds ``about``.

    `_SUCCESS` goes first: an output without it is not whole.
    """
    with _one_sentence(output):
        files, folder = _hadoop(spark, output)
        names = _names(files, folder) if files.exists(folder) else []
        for name in sorted(names, key=lambda name: name != _SUCCESS):
            if name != MARKER:
                files.delete(_below(spark, folder, name), True)
        _write(spark, output, MARKER, json.dumps(about, indent=1, ensure_ascii=False).encode())


def write_rows(rows: DataFrame, output: str, kind: str) -> None:
    """Write ``rows`` beside the marker as ``kind``, parquet or csv, without `_SUCCESS`."""
    writer = rows.write.mode("append").option("mapreduce.fileoutputcommitter.marksuccessfuljobs", "false")
    (writer.options(**_CSV) if kind == "csv" else writer).format(kind).save(output)


def finish(spark: SparkSession, output: str) -> None:
    """Write `_SUCCESS`: everything is there."""
    with _one_sentence(output):
        _write(spark, output, _SUCCESS, b"")


def _is_within(place: Place, other: Place) -> bool:
    """Whether ``place`` is ``other`` or lies below it."""
    return place[0] == other[0] and place[1].is_relative_to(other[1])


def _places(spark: SparkSession, path: str) -> Iterator[Place]:
    """Yield the places of an input: its path, what its glob matches, and every file that Spark reads of it."""
    yield _place(spark, path)
    files, glob = _hadoop(spark, path)
    for status in files.globStatus(glob) or ():
        yield _place(spark, str(status.getPath().toString()))
    # a folder may hold links to files elsewhere
    for uri in spark.read.format("binaryFile").load(path).inputFiles():
        yield _place(spark, unquote(uri))


def _place(spark: SparkSession, path: str) -> Place:
    files, folder = _hadoop(spark, path)
    uri = str(files.makeQualified(folder).toString())
    return place_of(uri)


def place_of(uri: str) -> Place:
    """Return the place of a whole URI."""
    if (local := storage.local_path(uri)) is not None:
        return "", PurePosixPath(os.path.realpath(local))
    scheme, _, rest = uri.partition("://")
    host, _, below = rest.partition("/")
    store = f"{_SAME_STORE.get(scheme.lower(), scheme.lower())}://{host.lower()}"
    return store, PurePosixPath(posixpath.normpath("/" + below.lstrip("/")))  # it keeps two slashes at the start


def _hadoop(spark: SparkSession, path: str) -> tuple[Any, Any]:
    """Return Hadoop's file system of a path, and the path as Hadoop's."""
    jvm: Any = spark._jvm
    folder = jvm.org.apache.hadoop.fs.Path(path)
    return folder.getFileSystem(spark._jsc.hadoopConfiguration()), folder


def _below(spark: SparkSession, folder: Any, name: str) -> Any:
    jvm: Any = spark._jvm
    return jvm.org.apache.hadoop.fs.Path(folder, name)


def _names(files: Any, folder: Any) -> list[str]:
    return [str(status.getPath().getName()) for status in files.listStatus(folder)]


def _write(spark: SparkSession, output: str, name: str, content: bytes) -> None:
    files, folder = _hadoop(spark, output)
    stream = files.create(_below(spark, folder, name), True)
    try:
        stream.write(content)
    finally:
        stream.close()


@contextmanager
def _one_sentence(output: str) -> Iterator[None]:
    """Turn an error of Hadoop's into a UserError: no such store, no right to write."""
    from py4j.protocol import Py4JJavaError

    try:
        yield
    except Py4JJavaError as error:
        cause = error.java_exception.toString()
        raise UserError(f"--output {output}: cannot be used: {one_line(cause)}") from None
