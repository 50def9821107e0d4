"""The files of `source.path`: found as Spark's CSV reader finds them, fingerprinted, or refused in one sentence."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from pipeline.config import Config
from pipeline.data.manifest import SourceData
from pipeline.data.source_csv import paths, sentence
from pipeline.runtime import storage
from pipeline.runtime.console import log
from pipeline.runtime.errors import UserError, one_line

_FINDING = ("recursivefilelookup", "pathglobfilter", "modifiedbefore", "modifiedafter")
"""Options that say which files are read."""

_LOCKED = "may not be read by this user: change its permissions"

_NO_CSV = {
    **dict.fromkeys(
        ("zip", "7z", "rar", "tar", "tgz"), "is an archive, and Spark reads none: unpack it, or pack each file as .gz"
    ),
    **dict.fromkeys(("xz", "z", "lzma"), "is packed in a way that Spark cannot unpack: pack it as .gz or .bz2"),
    **dict.fromkeys(("xlsx", "xls", "ods"), "is a spreadsheet: save it as CSV"),
    **dict.fromkeys(("parquet", "orc", "avro", "json", "feather"), "is no CSV: write it as CSV"),
}
"""What is wrong with files of these suffixes, and what to do."""


def list_source(spark: SparkSession, config: Config) -> SourceData:
    """Return the files of `source.path` and a fingerprint of their names, lengths and times.

    Raises:
        UserError: there is no such file, or one that cannot be read as CSV.
    """
    for path in config.source.path:
        if storage.scheme(path) in ("http", "https", "ftp"):
            problem = f"{path} is a web address, and Spark reads none: load the file down first"
            raise config.mistake("source.path", problem)
    try:
        # binaryFile reads no content as long as the column `content` is not asked for
        found_by = {key: v for key, v in config.source.reader_options.items() if key in _FINDING}
        files = spark.read.format("binaryFile").options(**found_by).load(paths(config))
        files = files.select("path", "length", F.col("modificationTime").cast("double").alias("time"))
        listed = sorted((row.path, row.length, row.time) for row in files.collect())  # a line per file
    except AnalysisException as error:
        raise _hidden(config) or config.mistake("source.path", sentence(error)) from None
    except Py4JJavaError as error:  # Hadoop's own: a folder that may not be read, a store that refuses
        problem = one_line(re.sub(r"^[\w.$]+: ", "", str(error.java_exception)))
        raise config.mistake("source.path", f"cannot be read: {problem}") from None
    if not listed:
        empty = f"every file in {', '.join(config.source_paths)} is empty"
        raise _hidden(config) or config.mistake("source.path", f"{empty}, or its name begins with _ or a dot")
    for name, _, _ in listed:
        suffixes = name.lower().rpartition("/")[2].split(".")[1:][-2:]
        if flaw := next((_NO_CSV[suffix] for suffix in reversed(suffixes) if suffix in _NO_CSV), None):
            raise config.mistake("source.path", f"{name} {flaw}")
        local = storage.local_path(name)
        if local is not None and local.exists() and not os.access(local, os.R_OK):
            raise config.mistake("source.path", f"{local} {_LOCKED}")
    _tell_of_hidden(config)
    digest = hashlib.sha256(repr(listed).encode()).hexdigest()
    size = sum(length for _, length, _ in listed)
    return SourceData(paths=config.source_paths, files=len(listed), bytes=size, fingerprint=digest)


def _hidden(config: Config) -> UserError | None:
    """Return the user's error if a path of this machine is there, but Spark passes it over or may not read it."""
    for path in config.source_paths:
        local = storage.local_path(path)
        if local is None:
            continue
        if not os.path.lexists(local):
            above = next((parent for parent in local.parents if parent.is_dir()), local)
            if not os.access(above, os.X_OK):
                return config.mistake("source.path", f"{above} {_LOCKED}")
            continue
        if not os.access(local, os.R_OK):
            return config.mistake("source.path", f"{local} {_LOCKED}")
        names = [local.name] if local.is_file() else _names(local)
        if names and all(name.startswith(("_", ".")) for name in names):
            problem = f"Spark passes over files whose names begin with _ or a dot, such as {local}"
            return config.mistake("source.path", f"{problem}: give {min(names)} another name")
        if local.is_dir() and not any((local / name).is_file() for name in names):
            problem = f"{local} holds no file but only folders" if names else f"{local} is an empty folder"
            return config.mistake("source.path", f"{problem}: name them, or set source.options.recursiveFileLookup")
    return None


def _tell_of_hidden(config: Config) -> None:
    """Log which files of a folder on this machine look like CSV, but are passed over by Spark."""
    for path in config.source_paths:
        local = storage.local_path(path)
        if local is None or not local.is_dir():
            continue
        hidden = [name for name in _names(local) if name.startswith(("_", ".")) and ".csv" in name.lower()]
        hidden = [name for name in hidden if not name.endswith(".crc")]
        if hidden:
            log.warning(
                "%s: %d file(s) are not read, as their names begin with _ or a dot: %s", local, len(hidden), hidden[0]
            )


def _names(folder: Path) -> Iterable[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
