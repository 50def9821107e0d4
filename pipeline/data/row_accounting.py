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
from pipeline.data.source_csv import Records
from pipeline.runtime.console import log
from pipeline.runtime.errors import StorageError, nearest
from pipeline.runtime.session import observed, progress
from pipeline.runtime.storage import Folder

_FEW_ROWS = 10
"""A class with fewer training rows than this is named in a warning."""
_LISTED = 10


def account(
    spark: SparkSession,
    config: Config,
    records: Records,
    written: dict[SplitName, Summary],
    dropped: int,
    folder: Folder,
) -> Rows:
    """Return where the rows of the source are, checked; write the records that do not fit."""
    counts = observed(records.counts)
    rows = Rows(
        read=counts["read"],
        quarantined=counts["bad"],
        dropped=dropped,
        train=written["train"].rows // config.split.oversample,
        validation=written["validation"].rows,
        test=written["test"].rows,
    )
    quarantine(spark, config, rows, folder)
    check_rows(config, folder, rows, written)
    return rows


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
    usable = rows.train + rows.validation + rows.test
    is_uneven = written["train"].rows % config.split.oversample != 0
    if is_uneven or rows.read != rows.quarantined + rows.dropped + usable:  # features.sql makes one row of each
        there = f"{rows.read - rows.quarantined} rows were written in {folder}, but {rows.dropped + usable} are there"
        raise StorageError(f"{there}: make sure that nothing else writes there, and run again")
    if not usable:
        counts = f"{rows.read} read, {rows.quarantined} quarantined, {rows.dropped} dropped for a missing value"
        raise config.mistake("source.path", f"there is no usable row in {', '.join(config.source_paths)} ({counts})")
    for split in SPLITS:
        if getattr(rows, split) or (split == "test" and not config.split.test_fraction):
            continue
        if split == "test" and config.split.column:
            log.warning("'%s' marks no row as test: the validation rows measure the model", config.split.column)
            continue
        fraction = "test_fraction" if split == "test" else "validation_fraction"
        key = next((key for key in ("column", "time", "group") if getattr(config.split, key)), fraction)
        advice = {
            "column": f"let some rows of '{config.split.column}' say {split}",
            "group": "take another split.seed, or more groups",
        }.get(key, "take another split.seed or more rows")
        if split == "test":
            advice += ", or set split.test_fraction: 0"
        raise config.mistake(f"split.{key}", f"left no {split} row of {usable} usable rows; {advice}")


def check_classes(config: Config, classes: list[str], written: Mapping[SplitName, Summary]) -> None:
    """Raise UserError unless every class has a row, every row a class, and there are at least two classes."""
    if config.label.task == "regression":
        return
    factors = {split: config.split.oversample if split == "train" else 1 for split in written}
    by_split = {
        split: [rows // factors[split] for rows in summary.class_rows[: len(classes)]] or [0] * len(classes)
        for split, summary in written.items()
    }
    per_class = [sum(rows) for rows in zip(*by_split.values(), strict=True)]
    usable = sum(summary.rows // factors[split] for split, summary in written.items())
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
    _log_rare_classes(classes, by_split)


def check_named_classes(config: Config, classes: list[str]) -> None:
    """Raise UserError unless `label.positive` and `training.class_weights` name classes that there are."""
    positive, weights = config.label.positive, config.training.class_weights
    if positive is not None and len(classes) != 2:
        raise config.mistake("label.positive", f"is for two classes, but '{config.label.column}' has {len(classes)}")
    named = {"label.positive": [] if positive is None else [positive]}
    named["training.class_weights"] = [*weights] if isinstance(weights, dict) else []
    for key, names in named.items():
        for name in names:
            if name not in classes:
                problem = f"'{name}' is not a class of '{config.label.column}': {', '.join(classes[:_LISTED])}"
                raise config.mistake(key, f"{problem}{nearest(name, classes)}")


def check_weights(config: Config, stored: Mapping[str, str], written: Mapping[SplitName, Summary]) -> None:
    """Raise UserError unless every row's weight is at least 0, and some training and validation row's is above 0."""
    if config.label.weight is None:
        return
    for split, summary in written.items():
        stats = summary.statistics().get(stored[config.label.weight])
        if stats is None:  # there may be no test row
            continue
        if stats.min < 0:
            problem = f"'{config.label.weight}' is {stats.min:g} in a {split} row; a weight is at least 0"
            raise config.mistake("label.weight", f"{problem}: correct it in {config.features.sql}")
        if stats.max == 0 and split != "test":
            purpose = "to learn from" if split == "train" else "to choose the epoch by"
            problem = f"'{config.label.weight}' is 0 in every {split} row, so there is nothing {purpose}"
            raise config.mistake("label.weight", problem)


def _log_rare_classes(classes: list[str], by_split: Mapping[SplitName, list[int]]) -> None:
    """Warn of classes that lack rows in a split, or have too few to learn from."""
    for split, rows in by_split.items():
        lacking = [name for name, count in zip(classes, rows, strict=True) if not count]
        if lacking and any(rows):
            log.warning("no %s row has the class %s", split, ", ".join(lacking))
    few = [f"{name} ({n})" for name, n in zip(classes, by_split["train"], strict=True) if 0 < n < _FEW_ROWS]
    if few:
        log.warning("fewer than %d training rows have these classes: %s", _FEW_ROWS, ", ".join(few))


def log_rows(rows: Rows, dropped_by_column: dict[str, int], oversample: int) -> None:
    """Log where the rows of the source are."""
    missing = ", ".join(f"{count} lack {name}" for name, count in dropped_by_column.items())
    log.info(
        "read %d rows: %d quarantined, %d dropped%s, %d to train on%s, %d to validate on, %d to test on",
        rows.read,
        rows.quarantined,
        rows.dropped,
        f" ({missing})" if missing else "",
        rows.train,
        f" (each {oversample} times)" if oversample > 1 else "",
        rows.validation,
        rows.test,
    )
