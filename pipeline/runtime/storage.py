"""Paths: the only place that translates a user's path for Spark, Petastorm and Python.

| the user's path | Spark | Python and Petastorm |
|---|---|---|
| `/x`, `file:///x` | `file:///x` | `/x` |
| `dbfs:/x`, on Databricks `/dbfs/x` | `dbfs:/x` | `/dbfs/x`, mounted on every node |
| on Databricks `/Volumes/x` | `dbfs:/Volumes/x` | `/Volumes/x`, mounted on every node |
| `s3a://b/x`, `abfss://c@a.dfs.core.windows.net/x`, `hdfs://h/x` | as it is | as it is, through fsspec |
"""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipeline.runtime import databricks

CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_CA_BUNDLE",
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_TENANT_ID",
    "AZURE_STORAGE_CLIENT_ID",
    "AZURE_STORAGE_CLIENT_SECRET",
)
"""Variables with which s3fs and adlfs find and open a store; the driver passes them on to the ranks."""

_REMOTE = ("s3a", "s3", "abfss", "abfs", "hdfs")


def scheme(path: str) -> str | None:
    """Return the scheme of a URI (`s3a` of `s3a://bucket/x`, `dbfs` of `dbfs:/x`); None for a plain path."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):/", path)
    return match[1].lower() if match else None


def local_path(path: str) -> Path | None:
    """Return the absolute path of a file in this machine's file system; None if only fsspec can reach the file.

    Relative paths start in the working directory.
    """
    match scheme(path):
        case None:
            return Path(os.path.abspath(os.path.expanduser(path)))  # keeps links, because executors may have others
        case "file":
            return Path(re.sub(r"^file:/*", "/", path))
        case "dbfs":
            below = re.sub(r"^dbfs:/*", "/", path)
            return Path(below if below.startswith("/Volumes/") else f"/dbfs{below}")
    return None


def check(path: str, *, local: bool = False) -> str:
    """Return ``path`` if it names a folder of a known file system, or with ``local`` of this one. Raises ValueError."""
    if local_path(path) is None:
        if local:
            raise ValueError(f"must be a folder of the driver's machine, not {path}; prepared data go to run.data_dir")
        if not path.startswith(tuple(f"{name}://" for name in _REMOTE)):
            raise ValueError(f"{path} is neither a path nor one of file:, dbfs:, {'://, '.join(_REMOTE)}://")
    return path


def unusable_characters(path: str) -> str:
    """Return the characters of a path that Spark, Petastorm or fsspec take for something else; most often none."""
    return "".join(sorted(set(re.findall(r"[*?\[\]{}\\#%;,\n\r]", path))))


def as_spark_reads(path: str) -> str:
    """Return ``path`` for Spark's readers, which take `*?[]{}` for patterns: not in the name of something that exists.

    A name such as `[v2]` may be both. What is on this machine's disk under exactly this name is meant; what comes after
    it may be a pattern.
    """
    local = local_path(path)
    there = local and next((above for above in (local, *local.parents) if os.path.lexists(above)), None)
    if there is None or not re.search(r"[*?\[\]{}\\]", str(there)):
        return path
    named = re.sub(r"([*?\[\]{}\\])", r"\\\1", str(there))
    return Folder(named + str(local)[len(str(there)) :]).spark


def make_private(folder: Path) -> None:
    """Make a folder that only this user can read; an existing folder stays as it is."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


@dataclass(frozen=True)
class Folder:
    """A folder that Spark, the driver and the ranks share."""

    path: str
    """For Python: an absolute path, or a URL for fsspec."""

    @classmethod
    def at(cls, path: str) -> Folder:
        """Return the folder of a user's path."""
        return cls(str(local_path(path) or path.rstrip("/")))

    def __truediv__(self, below: str) -> Folder:
        return Folder(f"{self.path}/{below}")

    def __str__(self) -> str:
        return self.path

    @property
    def is_local(self) -> bool:
        """Whether it is in this machine's file system."""
        return scheme(self.path) is None

    @property
    def is_on_this_disk(self) -> bool:
        """Whether it is in this machine's file system, and not a store of Databricks that is mounted there."""
        return self.spark.startswith("file:")

    @property
    def spark(self) -> str:
        """The path for Spark."""
        if not self.is_local:
            return self.path
        if databricks.is_runtime() and (mount := re.match(r"/dbfs(?=/)|(?=/Volumes/)", self.path)):
            return "dbfs:" + self.path[mount.end() :]
        return f"file://{self.path}"

    @property
    def url(self) -> str:
        """The URL for Petastorm."""
        return f"file://{self.path}" if self.is_local else self.path

    def filesystem(self) -> Any:
        """Return fsspec's file system for this folder. Raises ImportError with the name of a missing package."""
        from fsspec.core import url_to_fs

        return url_to_fs(self.path)[0]

    def exists(self) -> bool:
        """Whether anything is there."""
        return bool(self.filesystem().exists(self.path))

    def names(self) -> list[str]:
        """Return the sorted names of its files and folders; an empty list if the folder does not exist."""
        files = self.filesystem()
        files.invalidate_cache()  # Spark has written meanwhile
        try:
            return sorted(path.rstrip("/").rpartition("/")[2] for path in files.ls(self.path, detail=False))
        except FileNotFoundError:
            return []

    def open(self, name: str) -> IO[bytes]:
        """Open one of its files for reading."""
        files = self.filesystem()
        files.invalidate_cache()  # another process may have written it after the folder was listed
        opened: IO[bytes] = files.open(f"{self.path}/{name}", "rb")
        return opened

    def read(self, name: str) -> bytes:
        """Return the content of one of its files. Raises FileNotFoundError."""
        with self.open(name) as file:
            return file.read()

    def write(self, name: str, content: bytes) -> None:
        """Write one of its files, whole or not at all."""
        target, part = f"{self.path}/{name}", f"{self.path}/.{name}.{uuid.uuid4().hex}"
        if self.is_local:
            try:
                with open(part, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(part, target)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(part)
                raise
        elif scheme(self.path) == "hdfs":
            self.filesystem().pipe_file(part, content)
            self.filesystem().mv(part, target)
        else:  # an object store shows an object when it is complete
            self.filesystem().pipe_file(target, content)

    def delete(self, name: str) -> None:
        """Delete one of its files, if it exists."""
        with contextlib.suppress(FileNotFoundError):
            self.filesystem().rm_file(f"{self.path}/{name}")

    def make(self) -> None:
        """Make the folder, where the store has folders, and check that it can be written.

        Raises:
            OSError: it cannot be made or written.
            ImportError: the package that reaches the store is missing.
        """
        if self.is_local:
            os.makedirs(self.path, exist_ok=True)
        probe = f".writable-{uuid.uuid4().hex}"
        self.write(probe, b"-" * 4096)  # a full disk still accepts an empty file
        self.filesystem().rm_file(f"{self.path}/{probe}")

    def remove(self) -> None:
        """Delete the folder and all its files. In an object store a folder without files does not exist."""
        if self.exists():
            self.filesystem().rm(self.path, recursive=True)
