"""Row accounting of the preparation: every row of the source is quarantined, dropped, or in a split.

The ranks check their rows against the manifest in every epoch (training/trainer.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import SparkSession

from pipeline.config import Config
from pipeline.data.manifest import SPLITS, Rows, SplitName
from pipeline.data.parquet_summary import Summary
from pipeline.data.quarantine import write_quarantine
from pipeline.runtime.console import log
from pipeline.runtime.errors import StorageError
from pipeline.runtime.session import progress
from pipeline.runtime.storage import Folder


def quarantine(spark: SparkSession, config: Config, rows: Rows, folder: Folder) -> None:
    """Write the records that do not fit the schema, if there are any, to ``folder/quarantine``.

    Raises:
        UserError: the source has changed, or `source.bad_records` is 'fail'.
    """
    if not rows.quarantined:
        return
    place = folder / "quarantine"
    with progress(spark, f"writing {rows.quarantined} records that do not fit the schema to {place}"):
        written = write_quarantine(spark, config, place.spark)
    if written != rows.quarantined:
        problem = f"changed while it was read ({rows.quarantined} records that do not fit, then {written}); run again"
        raise config.mistake("source.path", problem)
    if config.source.bad_records == "fail":
        first = spark.read.json(place.spark).first()
        assert first is not None
        problem = f"{written} of {rows.read} records do not fit source.schema and bad_records is fail; the first, in "
        problem += f"{first.file}: {first.reason}; all are in {place}"
        raise config.mistake("source.bad_records", problem)


def check_rows(config: Config, folder: Folder, rows: Rows, written: Mapping[SplitName, Summary]) -> None:
    """Check that every row is accounted for, and that each split has one; ``written`` are the files of the splits.

    Raises:
        StorageError: the files do not hold the rows that were written.
        UserError: the source has no usable row, or a split would be empty.
    """
    usable = rows.train + rows.validation
    is_uneven = written["train"].rows % config.split.oversample != 0
    if is_uneven or rows.read != rows.quarantined + rows.dropped + usable:  # features.sql makes one row of each
        there = f"{rows.read - rows.quarantined} rows were written in {folder}, but {rows.dropped + usable} are there"
        raise StorageError(f"{there}: make sure that nothing else writes there, and run again")
    if not usable:
        counts = f"{rows.read} read, {rows.quarantined} quarantined, {rows.dropped} dropped for a missing value"
        raise config.mistake("source.path", f"there is no usable row in {', '.join(config.source_paths)} ({counts})")
    for split in SPLITS:
        if not getattr(rows, split):
            problem = f"left no {split} row of {usable} usable rows; take another split.seed or more rows"
            raise config.mistake("split.validation_fraction", problem)


def check_classes(config: Config, classes: list[str], written: Mapping[SplitName, Summary]) -> None:
    """Raise UserError unless every class has a row, every row a class, and there are at least two classes."""
    if config.label.task == "regression":
        return
    copies, validation = (written[split].class_rows[: len(classes)] for split in SPLITS)
    per_class = [n // config.split.oversample + rows for n, rows in zip(copies, validation, strict=True)]
    usable = written["train"].rows // config.split.oversample + written["validation"].rows
    label = f"'{config.label.column}'"
    if sum(per_class) < usable:
        problem = f"lists {len(classes)} classes, but {usable - sum(per_class)} of {usable} rows have another {label}"
        raise config.mistake("label.classes", f"{problem} than {', '.join(classes)} (an integer label counts from 0)")
    missing = [name for name, rows in zip(classes, per_class, strict=True) if not rows]
    if missing:
        problem = f"lists {len(classes)} classes, but no row has {', '.join(missing)} as its {label}"
        raise config.mistake("label.classes", problem)
    if len(classes) < 2:
        raise config.mistake("label.column", f"{label} has one value only, {classes[0]}: there is nothing to learn")
    alike = [name for name in classes if [other.lower() for other in classes].count(name.lower()) > 1]
    if alike:
        log.warning(
            "%s has classes that differ in case only: %s; map them in features.sql if one is meant", label, alike
        )


def log_rows(rows: Rows, dropped_by_column: dict[str, int], oversample: int) -> None:
    """Log where the rows of the source are."""
    missing = ", ".join(f"{count} lack {name}" for name, count in dropped_by_column.items())
    log.info(
        "read %d rows: %d quarantined, %d dropped%s, %d to train on%s, %d to validate on",
        rows.read,
        rows.quarantined,
        rows.dropped,
        f" ({missing})" if missing else "",
        rows.train,
        f" (each {oversample} times)" if oversample > 1 else "",
        rows.validation,
    )
