"""A summary of the Parquet files that Spark has written: rows, checksums and statistics, from one read of each file.

It counts the rows that are really in the files. It is also fast: Spark's own aggregates, in the pass that writes, took
3 s per million rows of W2 (tests/benchmark/README.md), numpy takes 0.2 s.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from pyspark.sql import SparkSession

from pipeline.data import wide_numbers
from pipeline.data.manifest import NumericStats, RowGroup
from pipeline.data.moments import ExactMoments, Moments, combine_moments, measure, measure_doubles
from pipeline.runtime.session import progress
from pipeline.runtime.storage import Folder

_DRIVER_FILES = 64  # of one row group each, so half a GiB: the driver reads as many before Spark's tasks would start
_THREADS = 8


@dataclass(frozen=True)
class Aggregates:
    """What a summary holds besides rows, nulls and checksums."""

    label: str
    """The column whose classes are counted."""
    classes: int
    """Number of codes of a class label; 0 for regression."""
    numeric: tuple[str, ...] = ()
    """Columns whose moments are computed."""
    codes: Mapping[str, int] = field(default_factory=dict)
    """Columns of codes, and the code of "other", whose rows are counted."""


@dataclass(frozen=True)
class FileSummary:
    """One Parquet file."""

    path: str
    """Relative to the data set's folder."""
    sha256: str
    group_rows: list[int]
    """Rows of each row group."""
    nulls: dict[str, int]
    """Rows in which a column is NULL, of every column."""
    class_rows: list[int]
    """Rows of each code 0, 1, … of a class label, and last of any other; empty without classes."""
    moments: dict[str, Moments]
    """Of the float32 values by numeric column that has a value."""
    exact: dict[str, ExactMoments]
    """By numeric column that is DOUBLE in the file and has a value."""
    others: dict[str, int]
    """Rows with the code of "other" by column."""

    @property
    def rows(self) -> int:
        """Rows of all row groups."""
        return sum(self.group_rows)

    def to_json(self) -> str:
        """Return the summary as JSON, with every bit of its numbers."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> FileSummary:
        """Return the summary that :meth:`to_json` has written."""
        fields = json.loads(text)
        moments = {column: Moments(**numbers) for column, numbers in fields.pop("moments").items()}
        exact = {column: ExactMoments(**numbers) for column, numbers in fields.pop("exact").items()}
        return cls(**fields, moments=moments, exact=exact)


@dataclass(frozen=True)
class Summary:
    """Several Parquet files."""

    files: list[FileSummary]
    """In the order of their paths."""

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(file.rows for file in self.files)

    @property
    def nulls(self) -> dict[str, int]:
        """Rows in which a column is NULL, of each column that has one."""
        total: Counter[str] = Counter()
        for file in self.files:
            total.update(file.nulls)
        return {column: rows for column, rows in total.items() if rows}

    @property
    def others(self) -> dict[str, int]:
        """Rows with the code of "other", of each column that has one."""
        total: Counter[str] = Counter()
        for file in self.files:
            total.update(file.others)
        return {column: rows for column, rows in total.items() if rows}

    @property
    def class_rows(self) -> list[int]:
        """Rows of each code of the label, and last of any other; empty without files or classes."""
        return [sum(rows) for rows in zip(*(file.class_rows for file in self.files), strict=True)]

    @property
    def row_groups(self) -> list[RowGroup]:
        """The row groups that hold a row, in the order of the files."""
        groups = ((file.path, index, rows) for file in self.files for index, rows in enumerate(file.group_rows))
        return [RowGroup(path=path, index=index, rows=rows) for path, index, rows in groups if rows]

    def statistics(self) -> dict[str, NumericStats]:
        """Return the statistics of the values of each numeric column that has one.

        A wide column has an offset, and its statistics are those of its float64 values.
        """
        exact, rounding = combine_moments([file.exact for file in self.files]), self.rounding
        wide = {column: wide_numbers.wide_stats(stats, rounding[column]) for column, stats in exact.items()}
        held = combine_moments([file.moments for file in self.files])
        return {column: wide.get(column) or wide_numbers.float32_stats(stats) for column, stats in held.items()}

    @property
    def rounding(self) -> dict[str, float]:
        """The largest difference between a value and its float32, of each numeric column that is DOUBLE in a file."""
        largest: dict[str, float] = {}
        for file in self.files:
            for column, moments in file.exact.items():
                largest[column] = max(largest.get(column, 0.0), moments.rounding)
        return largest


def summarize(spark: SparkSession, folder: Folder, below: str, aggregates: Aggregates) -> Summary:
    """Return the summary of the Parquet files in ``folder/below``; the driver gets one line per file."""
    paths = [f"{below}/{name}" for name in (folder / below).names() if name.endswith(".parquet")]
    if not paths:
        return Summary([])
    if len(paths) <= _DRIVER_FILES and folder.is_local:  # a second at most, which needs no line
        return Summary(_summarize_in_driver(folder, paths, aggregates))
    with progress(spark, f"counting the rows of {len(paths)} file(s) in {folder / below}"):
        if len(paths) <= _DRIVER_FILES:
            return Summary(_summarize_in_driver(folder, paths, aggregates))
        return Summary(_summarize_in_spark(spark, folder, paths, aggregates))


def _summarize_in_driver(folder: Folder, paths: list[str], aggregates: Aggregates) -> list[FileSummary]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(lambda path: _summarize_file(path, folder.read(path), aggregates), paths))


def _summarize_in_spark(
    spark: SparkSession, folder: Folder, paths: list[str], aggregates: Aggregates
) -> list[FileSummary]:
    files = spark.read.format("binaryFile").load([(folder / path).spark for path in paths]).select("path", "content")
    with _spark_setting(spark, "spark.sql.execution.arrow.maxRecordsPerBatch", "1"):  # a record is a whole file
        rows = files.mapInArrow(_file_summarizer(folder, aggregates), "summary string").collect()
    by_path = {file.path: file for file in (FileSummary.from_json(row.summary) for row in rows)}
    return [by_path[path] for path in paths]


def _file_summarizer(
    folder: Folder, aggregates: Aggregates
) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    """Return the function that Spark's tasks run over the contents of files."""

    def summarize_files(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for batch in batches:
            for path, content in zip(batch.column("path"), batch.column("content"), strict=True):
                summary = _summarize_file(path_below(folder, path.as_py()), content.as_buffer(), aggregates)
                yield pa.RecordBatch.from_pydict({"summary": [summary.to_json()]})

    return summarize_files


def path_below(folder: Folder, uri: str) -> str:
    """Return the path below ``folder`` of a file in it. Each store spells the part before it in its own way."""
    return unquote(uri).rpartition(f"/{folder.path.rpartition('/')[2]}/")[2]


@contextmanager
def _spark_setting(spark: SparkSession, key: str, value: str) -> Iterator[None]:
    before = spark.conf.get(key) or value
    spark.conf.set(key, value)
    try:
        yield
    finally:
        spark.conf.set(key, before)


def _summarize_file(path: str, content: bytes | pa.Buffer, aggregates: Aggregates) -> FileSummary:
    file = pyarrow.parquet.ParquetFile(pa.BufferReader(content))
    table = file.read(use_threads=False)
    class_rows: list[int] = []
    if aggregates.classes:
        codes = table.column(aggregates.label).drop_null().to_numpy()
        class_rows = np.bincount(np.minimum(codes, aggregates.classes), minlength=aggregates.classes + 1).tolist()
    return FileSummary(
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        group_rows=[file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)],
        nulls={name: column.null_count for name, column in zip(table.column_names, table.columns, strict=True)},
        class_rows=class_rows,
        moments=measure(table, aggregates.numeric),
        exact=measure_doubles(table, aggregates.numeric),
        others={name: _count(table.column(name), code) for name, code in aggregates.codes.items()},
    )


def _count(codes: pa.ChunkedArray, code: int) -> int:
    return int((codes.drop_null().to_numpy() == code).sum())
