"""What the Parquet files that Spark has written hold: rows, checksums and statistics, from one look at each file.

Spark's own aggregates, in the pass that writes, took 3 s for each million rows of W2 (benchmark/NOTES.md); numpy takes
0.2 s. And this accounts for what is there, not for what was meant to be written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from pyspark.sql import SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from pipeline.data.manifest import NumericStats, RowGroup
from pipeline.runtime.session import progress
from pipeline.runtime.storage import Folder

_MOST_HERE = 64  # files of one row group, so half a GiB: with these, the driver does not wait for others to start
_THREADS = 8
_COUNTS, _MEASURES = ("groups", "nulls", "codes"), ("means", "squares", "minima", "maxima")
_SCHEMA = pa.schema(
    [("path", pa.string()), ("sha256", pa.string())]
    + [(name, pa.list_(pa.int64())) for name in _COUNTS]
    + [(name, pa.list_(pa.float64())) for name in _MEASURES]
)


@dataclass(frozen=True)
class File:
    """What one Parquet file holds."""

    path: str
    """Relative to the data set's folder."""
    sha256: str
    groups: list[int]
    """Rows of each row group."""
    nulls: list[int]
    """Of each column."""
    codes: list[int]
    """Rows of each code 0, 1, … of a class label, and last of any other; empty without classes."""
    means: list[float]
    """Of each measured column; these four are empty for a file without rows."""
    squares: list[float]
    """Sum of the squared deviations from the mean, of each measured column."""
    minima: list[float]
    maxima: list[float]

    @property
    def rows(self) -> int:
        """How many rows it holds."""
        return sum(self.groups)


@dataclass(frozen=True)
class Question:
    """What to find out, besides rows and checksums."""

    label: str
    classes: int
    """How many codes a class label has; 0 for regression."""
    measured: tuple[str, ...] = ()
    """Numeric columns whose statistics are wanted."""


@dataclass(frozen=True)
class Contents:
    """What several Parquet files hold."""

    files: list[File]
    """In the order of their paths."""

    @property
    def rows(self) -> int:
        """How many rows they hold."""
        return sum(file.rows for file in self.files)

    @property
    def nulls(self) -> list[int]:
        """How many each column has; empty without files."""
        return [sum(column) for column in zip(*(file.nulls for file in self.files), strict=True)]

    @property
    def codes(self) -> list[int]:
        """Rows of each code of the label, and last of any other; empty without files or classes."""
        return [sum(code) for code in zip(*(file.codes for file in self.files), strict=True)]

    @property
    def row_groups(self) -> list[RowGroup]:
        """The row groups that hold a row, in the order of the files."""
        groups = ((file.path, index, rows) for file in self.files for index, rows in enumerate(file.groups))
        return [RowGroup(path=path, index=index, rows=rows) for path, index, rows in groups if rows]


def look_into(spark: SparkSession, folder: Folder, below: str, question: Question) -> Contents:
    """Return what the Parquet files in ``folder/below`` hold."""
    paths = [f"{below}/{name}" for name in (folder / below).names() if name.endswith(".parquet")]
    if not paths:
        return Contents([])
    with progress(spark, f"counting what {len(paths)} file(s) in {folder / below} hold"):
        few = len(paths) <= _MOST_HERE
        seen = _seen_here(folder, paths, question) if few else _seen_by_spark(spark, folder, paths, question)
    return Contents([seen[path] for path in paths])


def _seen_here(folder: Folder, paths: list[str], question: Question) -> dict[str, File]:
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda path: _seen(path, folder.read(path), question), paths)
        return {file.path: file for file in found}


def _seen_by_spark(spark: SparkSession, folder: Folder, paths: list[str], question: Question) -> dict[str, File]:
    content = spark.read.format("binaryFile").load([(folder / path).spark for path in paths]).select("path", "content")
    with _setting(spark, "spark.sql.execution.arrow.maxRecordsPerBatch", "1"):  # a record is a whole file
        rows = content.mapInArrow(_looking(question), from_arrow_schema(_SCHEMA)).collect()  # a line per file
    found = (File(**{**row.asDict(), "path": path_below(folder, row.path)}) for row in rows)
    return {file.path: file for file in found}


def path_below(folder: Folder, uri: str) -> str:
    """Return the path below ``folder`` of a file in it. What is before it, each store spells in ways of its own."""
    return unquote(uri).rpartition(f"/{folder.path.rpartition('/')[2]}/")[2]


@contextmanager
def _setting(spark: SparkSession, key: str, value: str) -> Iterator[None]:
    before = spark.conf.get(key) or value
    spark.conf.set(key, value)
    try:
        yield
    finally:
        spark.conf.set(key, before)


def _looking(question: Question) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    def look(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for batch in batches:
            for path, content in zip(batch.column("path"), batch.column("content"), strict=True):
                seen = _seen(path.as_py(), content.as_buffer(), question)
                yield pa.RecordBatch.from_pylist([vars(seen)], _SCHEMA)

    return look


def _seen(path: str, content: bytes | pa.Buffer, question: Question) -> File:
    file = pyarrow.parquet.ParquetFile(pa.BufferReader(content))
    table = file.read(use_threads=False)
    codes: list[int] = []
    if question.classes:
        label = table.column(question.label).drop_null().to_numpy()
        codes = np.bincount(np.minimum(label, question.classes), minlength=question.classes + 1).tolist()
    means = squares = minima = maxima = np.zeros(0)
    if question.measured and table.num_rows:
        values = np.stack([table.column(name).to_numpy() for name in question.measured]).astype(np.float64)
        means, minima, maxima = values.mean(axis=1), values.min(axis=1), values.max(axis=1)
        values -= means[:, np.newaxis]
        squares = np.einsum("ij,ij->i", values, values)
    return File(
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        groups=[file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)],
        nulls=[column.null_count for column in table.columns],
        codes=codes,
        means=means.tolist(),
        squares=squares.tolist(),
        minima=minima.tolist(),
        maxima=maxima.tolist(),
    )


def statistics(contents: Contents, question: Question) -> dict[str, NumericStats]:
    """Return the statistics of each measured column, which must have no nulls, over all rows.

    The files' means and squared deviations are put together as in Chan, Golub and LeVeque, Updating Formulae and a
    Pairwise Algorithm for Computing Sample Variances (1979), and rounded to float32: how Spark has cut the rows into
    files shows in the last bits of a double.
    """
    full = [file for file in contents.files if file.rows]
    rows = np.array([file.rows for file in full], dtype=np.float64)[:, np.newaxis]
    means = np.array([file.means for file in full])
    mean = (rows * means).sum(axis=0) / rows.sum()
    squares = np.array([file.squares for file in full]).sum(axis=0) + (rows * (means - mean) ** 2).sum(axis=0)
    kinds = {
        "mean": mean,
        "std": np.sqrt(squares / rows.sum()),
        "min": np.min([file.minima for file in full], axis=0),
        "max": np.max([file.maxima for file in full], axis=0),
    }
    return {
        name: NumericStats(**{kind: float(np.float32(values[i])) for kind, values in kinds.items()})
        for i, name in enumerate(question.measured)
    }
