"""``manifest.json``: what a prepared data set holds, down to the rows of each row group.

The driver writes it last and atomically: a folder without a manifest is not a data set. Every rank compares the rows
that it reads with it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.data.names import stored_names
from pipeline.runtime.errors import UserError
from pipeline.runtime.storage import Folder

FORMAT_VERSION = 5
FILE_NAME = "manifest.json"

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rows(_Record):
    """Where the rows of the source are: read = quarantined + dropped + train + validation + test."""

    read: int
    quarantined: int
    dropped: int
    train: int
    """Before oversampling."""
    validation: int
    test: int = 0
    """0 in manifests of formats 1 to 3, which have no such rows."""


class RowGroup(_Record):
    """One row group of one Parquet file; the unit that a rank's shard is made of."""

    path: str = Field(pattern=r"^[A-Za-z0-9][^/]*(/[A-Za-z0-9][^/]*)*$")
    """Relative to the data set's folder, and below it."""
    index: int
    """Of the row group within its file."""
    rows: int


class SplitData(_Record):
    """One split, as it lies in Parquet (so after oversampling)."""

    rows: int
    class_counts: list[int]
    """Rows of each class in the order of `Label.classes`; empty for regression."""
    row_groups: list[RowGroup]
    """In the order in which they are dealt to the ranks: row group i belongs to rank i mod num_proc."""

    def shard_rows(self, num_proc: int) -> list[int]:
        """Return how many rows each rank's shard holds."""
        return [sum(group.rows for group in self.row_groups[rank::num_proc]) for rank in range(num_proc)]


class NumericStats(_Record):
    """Of the training rows' values, rounded so that the order of Spark's partial sums does not matter.

    Missing values are not among them.
    """

    mean: float
    std: float
    """Population standard deviation."""
    min: float
    max: float
    offset: float = 0.0
    """A number near the mean of a wide column, one that float32 would spoil; 0 for all others.

    The value minus the offset is what the network takes. The subtraction is in float64, and the result is float32.
    """
    quantiles: list[float] = []
    """At equal steps from 0 to 1, see data/quantiles.py; empty for a label, and in manifests of formats 1 to 4."""

    @property
    def quartiles(self) -> tuple[float, float]:
        """The values below which a quarter and three quarters are."""
        steps = len(self.quantiles) - 1
        return self.quantiles[steps // 4], self.quantiles[steps - steps // 4]

    @property
    def median(self) -> float:
        """The middle one of the quantiles."""
        return self.quantiles[len(self.quantiles) // 2]


class LabelData(_Record):
    """The label and its classes."""

    column: str
    task: Literal["classification", "regression"]
    classes: list[str]
    """Class names in the order of their codes 0, 1, …; empty for regression."""
    stats: NumericStats | None
    """Regression only."""
    positive: str | None = None
    """Of two classes the one that precision, recall, f1 and pr_auc are of, as the settings of the job say."""

    @property
    def positive_code(self) -> int | None:
        """The code of the positive class."""
        return None if self.positive is None else self.classes.index(self.positive)


class TimeCuts(_Record):
    """Where `split.time` cuts the rows: those from ``test_from`` on are test, those before ``validation_from`` train.

    Both are moments of the source: a number as it is, a DATE in days and a TIMESTAMP in microseconds since 1970.
    """

    validation_from: float
    test_from: float | None
    """None without test rows."""
    texts: list[str]
    """Both as people write them."""


class SourceData(_Record):
    """Where the rows came from."""

    paths: list[str]
    files: int
    bytes: int
    fingerprint: str
    """SHA-256 over path, length and modification time of every file."""


class Manifest(_Record):
    """A prepared data set."""

    format_version: int
    source: SourceData
    config_fingerprint: str
    """SHA-256 over everything in the configuration that shapes the data."""
    num_proc: int
    seed: int
    spark_version: str
    pipeline_version: str = ""
    """Of this project; older manifests do not state it."""
    use_case: str = ""
    """The name of the configuration's folder, for `run.keep_data`; older manifests do not state it."""
    columns: dict[str, Literal["float", "double", "bigint"]]
    """Columns of the Parquet files under their names there: numeric features, categorical codes, the label, the weight.

    A wide column is a double. A float may be a double in the files, too: the pass over the source writes it before all
    values are known, and it is cast when it is read.
    """
    rows: Rows
    dropped_by_column: dict[str, int]
    """Dropped rows in which a column is NULL or not finite; a row may count for several columns."""
    missing: dict[str, int] = {}
    """Usable rows, copies not counted, in which a feature is NULL or not finite; only those of which there are any."""
    missing_in_training: dict[str, int] = {}
    """The same among the training rows alone."""
    other_in_training: dict[str, int] = {}
    """Training rows, copies not counted, whose value of a categorical feature is outside its vocabulary."""
    oversample: int
    numeric: dict[str, NumericStats]
    vocabularies: dict[str, list[str]]
    """Sorted values of each categorical feature; a value not in it has the code len(vocabulary), a missing one is NULL.

    With `hash_buckets` they are the names of the buckets.
    """
    label: LabelData
    weight: str | None = None
    """Column of features.sql with the weight of each row, a float; None: all rows weigh the same."""
    splits: dict[SplitName, SplitData]
    """Without `test` when no row is kept for it."""
    time_cuts: TimeCuts | None = None
    """With `split.time` only."""
    sha256: dict[str, str]
    """Checksum of each Parquet file, by its path in the row groups."""

    @property
    def fingerprint(self) -> str:
        """The name of the data set: a hash of source and configuration in 16 hexadecimal digits."""
        source, versions = self.source.fingerprint, (self.spark_version, self.pipeline_version)
        return dataset_fingerprint(source, self.config_fingerprint, *versions)

    @property
    def measured_split(self) -> SplitName:
        """The split whose rows the metrics are of: test, if there are such rows."""
        return "test" if "test" in self.splits else "validation"

    @property
    def stored(self) -> dict[str, str]:
        """The name in the Parquet files of each feature and of the label, in their order."""
        return {name: file for name, file in self._all_stored.items() if name != self.weight}

    @property
    def _all_stored(self) -> dict[str, str]:
        weight = [] if self.weight is None else [self.weight]
        return stored_names([*self.numeric, *self.vocabularies, self.label.column, *weight])

    @property
    def weight_stored(self) -> str | None:
        """The name in the Parquet files of the weight."""
        return None if self.weight is None else self._all_stored[self.weight]

    @property
    def offsets(self) -> dict[str, float]:
        """The offset of each wide column, features and label."""
        stats = {**self.numeric, **({self.label.column: self.label.stats} if self.label.stats else {})}
        return {column: numbers.offset for column, numbers in stats.items() if numbers.offset}

    def shard_bytes(self, num_proc: int) -> int:
        """Return the memory of the largest shard's rows of all splits: 4 bytes per feature and weight, 8 per label."""
        row = 4 * (len(self.numeric) + len(self.vocabularies) + (self.weight is not None)) + 8
        return row * sum(max(split.shard_rows(num_proc)) for split in self.splits.values())

    def write(self, folder: Folder) -> None:
        """Write ``manifest.json`` into ``folder`` so that it is there whole or not at all."""
        folder.write(FILE_NAME, self.model_dump_json(indent=1).encode())

    @classmethod
    def read(cls, folder: Folder) -> Manifest | None:
        """Return the manifest of ``folder``; None when there is no valid one.

        Raises:
            UserError: a newer version of this project has written it.
        """
        try:
            content = folder.read(FILE_NAME)
            fields = json.loads(content)
            version = fields.get("format_version") if isinstance(fields, dict) else None
            if isinstance(version, int) and version > FORMAT_VERSION:
                problem = f"has format {version}, but this version reads only up to {FORMAT_VERSION}"
                raise UserError(f"{folder}/{FILE_NAME} {problem}; use the newer version, or another run.data_dir")
            return cls.model_validate_json(content)
        except (FileNotFoundError, ValueError, RecursionError):
            return None


def dataset_fingerprint(source: str, config: str, spark_version: str, pipeline_version: str) -> str:
    """Return the name of the data set of this source and configuration, as these versions prepare it."""
    of = [str(FORMAT_VERSION), source, config, spark_version, *([pipeline_version] if pipeline_version else [])]
    return hashlib.sha256(" ".join(of).encode()).hexdigest()[:16]
