"""Prepared rows as plain Parquet that the ranks can share out evenly, and the manifest that accounts for every row."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from pipeline.config import Config
from pipeline.data import features_sql, manifest, parquet_summary, prepare, source_csv
from pipeline.data.dealing import PARTS, balanced, dealt, group_rows, writer
from pipeline.data.manifest import LabelData, Manifest, Rows, SourceData, SplitData, SplitName
from pipeline.data.parquet_summary import Contents, Question
from pipeline.data.split import SPLIT, oversampled
from pipeline.runtime import lock, storage
from pipeline.runtime.console import log
from pipeline.runtime.errors import StorageError
from pipeline.runtime.session import progress
from pipeline.runtime.storage import Folder

_DROPPED = "dropped"  # the third side of the split, there until it is counted


@dataclass(frozen=True)
class Prepared:
    """A data set that is ready to train on."""

    folder: Folder
    manifest: Manifest
    reused: bool
    """Whether an earlier job had already prepared it."""


def open_data_dir(config: Config) -> None:
    """Make the folder of all prepared data, and prove that it can be written. Raises UserError when it cannot."""
    try:
        if not config.run.data_dir:
            storage.make_private(config.work_dir)
        config.data_dir.make()
    except Exception as error:  # each store has errors of its own
        key = "run.data_dir" if config.run.data_dir else "run.work_dir"
        told = " ".join((getattr(error, "strerror", None) or str(error)).split())[:300]
        raise config.mistake(key, f"cannot write in {config.data_dir}: {told}") from None


def prepare_data(spark: SparkSession, config: Config, num_proc: int) -> Prepared:
    """Return the prepared data set for this source, configuration and number of ranks; prepare it if need be.

    Raises:
        UserError: the source or the configuration is wrong.
    """
    source = source_csv.list_source(spark, config)
    config_fingerprint = _config_fingerprint(config, num_proc)
    fingerprint = manifest.dataset_fingerprint(source.fingerprint, config_fingerprint)
    source_csv.source_schema(spark, config)
    features_sql.translate(config)  # raises unless features.sql makes one row of each row of raw
    with lock.wait_for_lock(config.lock_dir / fingerprint, "preparing the same data"):
        return _found_or_made(spark, config, num_proc, source, config_fingerprint, config.data_dir / fingerprint)


def _found_or_made(
    spark: SparkSession, config: Config, num_proc: int, source: SourceData, config_fingerprint: str, folder: Folder
) -> Prepared:
    existing = Manifest.read(folder)
    if existing is not None:
        log.info("reusing the data prepared earlier in %s: source and configuration are the same", folder)
        return Prepared(folder=folder, manifest=existing, reused=True)
    if folder.exists():
        log.info("removing %s: it has no manifest, so its preparation was interrupted", folder)
        folder.remove()
    try:
        made = _prepare(spark, config, num_proc, source, config_fingerprint, folder)
        made.write(folder)
    except Exception as error:
        if "No space left on device" in str(error):
            folder.remove()
            told = f"there is no room for the prepared data in {folder}; nothing half-written is left there"
            raise StorageError(f"{told}: make room, or name another run.data_dir, and run again") from None
        mistake = source_csv.source_mistake(spark, config, error)
        if mistake is None:
            raise
        raise mistake from None
    return Prepared(folder=folder, manifest=made, reused=False)


def _prepare(
    spark: SparkSession, config: Config, num_proc: int, source: SourceData, config_fingerprint: str, folder: Folder
) -> Manifest:
    records = source_csv.read_records(spark, config)
    typed = prepare.typed_rows(spark, config, records)
    values = prepare.vocabularies(spark, config, typed)
    classes = config.label.classes or values.get(config.label.column, [])

    # The pass: CSV to Parquet. What came of it is counted and measured in the files.
    rows = prepare.encode(spark, typed.frame, values)
    columns: dict[str, Any] = dict(rows.drop(SPLIT).dtypes)
    _write(spark, config, rows, columns, source, folder)
    counted = Question(config.label.column, len(classes))
    measured = replace(counted, measured=tuple(name for name, kind in columns.items() if kind == "float"))
    sides: dict[SplitName, Contents] = {
        "train": parquet_summary.look_into(spark, folder, _part("train"), measured),
        "validation": parquet_summary.look_into(spark, folder, _part("validation"), counted),
    }
    dropped, dropped_by_column = _take_dropped(spark, folder, columns, counted)
    counts = Rows(
        read=records.seen.get["read"],
        quarantined=records.seen.get["bad"],
        dropped=dropped,
        train=sides["train"].rows // config.split.oversample,
        validation=sides["validation"].rows,
    )
    _set_bad_records_aside(spark, config, counts, folder)
    _check_counts(config, folder, counts, sides, classes)
    _tell(counts, dropped_by_column, config.split.oversample)

    statistics = parquet_summary.statistics(sides["train"], measured)
    splits = {
        split: balanced(spark, folder, split, content, counted, columns, num_proc) for split, content in sides.items()
    }
    return Manifest(
        format_version=manifest.FORMAT_VERSION,
        source=source,
        config_fingerprint=config_fingerprint,
        num_proc=num_proc,
        seed=config.split.seed,
        spark_version=spark.version,
        columns=columns,
        rows=counts,
        dropped_by_column=dropped_by_column,
        oversample=config.split.oversample,
        numeric={f.column: statistics[f.column] for f in config.features.numeric},
        vocabularies={f.column: values[f.column] for f in config.features.categorical},
        label=LabelData(
            column=config.label.column,
            task=config.label.task,
            classes=classes,
            stats=statistics.get(config.label.column),
        ),
        splits={split: _split_data(content, len(classes), num_proc) for split, content in splits.items()},
        sha256={file.path: file.sha256 for content in splits.values() for file in content.files if file.rows},
    )


def _write(
    spark: SparkSession, config: Config, rows: DataFrame, columns: dict[str, str], source: SourceData, folder: Folder
) -> None:
    """Write the rows of each split, and those dropped, in files of one row group each.

    Raises:
        UserError: the source has changed meanwhile.
    """
    with progress(spark, f"preparing {source.files} file(s), {source.bytes / 2**20:,.1f} MiB, into {folder}"):
        kept = oversampled(rows.fillna(_DROPPED, SPLIT), config.split.oversample)
        writer(kept, group_rows(columns)).partitionBy(SPLIT).parquet((folder / PARTS).spark)
    if source_csv.list_source(spark, config).fingerprint != source.fingerprint:
        raise config.mistake("source.path", "changed while it was read; run again when nobody writes there")


def _take_dropped(
    spark: SparkSession, folder: Folder, columns: dict[str, str], question: Question
) -> tuple[int, dict[str, int]]:
    """Return how many rows were dropped, and in how many of them each column was missing; remove them."""
    dropped = parquet_summary.look_into(spark, folder, _part(_DROPPED), question)
    (folder / _part(_DROPPED)).remove()
    nulls = dropped.nulls or [0] * len(columns)
    return dropped.rows, {name: missing for name, missing in zip(columns, nulls, strict=True) if missing}


def _split_data(content: Contents, classes: int, num_proc: int) -> SplitData:
    return SplitData(
        rows=content.rows, class_counts=content.codes[:classes], row_groups=dealt(content.row_groups, num_proc)
    )


def _part(side: str) -> str:
    """Return where, below the data set's folder, the one pass over the source writes a side of the split."""
    return f"{PARTS}/{SPLIT}={side}"


def _tell(counts: Rows, dropped_by_column: dict[str, int], oversample: int) -> None:
    missing = ", ".join(f"{rows} lack {name}" for name, rows in dropped_by_column.items())
    log.info(
        "read %d rows: %d quarantined, %d dropped%s, %d to train on%s, %d to validate on",
        counts.read,
        counts.quarantined,
        counts.dropped,
        f" ({missing})" if missing else "",
        counts.train,
        f" (each {oversample} times)" if oversample > 1 else "",
        counts.validation,
    )


def _config_fingerprint(config: Config, num_proc: int) -> str:
    """Hash what shapes the data; a change of the rest (epochs, scaling, …) reuses it."""
    shape = {
        "source": config.source.model_dump(),
        "sql": config.features_sql,
        "numeric": [f.column for f in config.features.numeric],
        "categorical": [(f.column, f.values) for f in config.features.categorical],
        "label": config.label.model_dump(),
        "split": config.split.model_dump(exclude={"oversample"}),
        "oversample": config.split.oversample,
        "num_proc": num_proc,
    }
    return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()


def check_prepared_from(config: Config, data: Manifest) -> None:
    """Raise UserError unless ``data`` is what this configuration prepares."""
    if _config_fingerprint(config, data.num_proc) != data.config_fingerprint:
        problem = "source, features, label or split are not those that the training had"
        raise config.mistake("--config", f"{problem}; give the same file and --set, or train again")


def _set_bad_records_aside(spark: SparkSession, config: Config, counts: Rows, folder: Folder) -> None:
    if not counts.quarantined:
        return
    place = folder / "quarantine"
    with progress(spark, f"setting {counts.quarantined} records aside in {place}"):
        written = source_csv.quarantine(spark, config, place.spark)
    if written != counts.quarantined:
        problem = f"changed while it was read ({counts.quarantined} records that do not fit, then {written}); run again"
        raise config.mistake("source.path", problem)
    if config.source.bad_records == "fail":
        first = spark.read.json(place.spark).first()
        assert first is not None
        problem = f"{written} of {counts.read} records do not fit source.schema and bad_records is fail; the first, in "
        problem += f"{first.file}: {first.reason}; all are in {place}"
        raise config.mistake("source.bad_records", problem)


def _check_counts(
    config: Config, folder: Folder, counts: Rows, sides: dict[SplitName, Contents], classes: list[str]
) -> None:
    usable = counts.train + counts.validation
    surplus = sides["train"].rows % config.split.oversample
    if surplus or counts.read != counts.quarantined + counts.dropped + usable:  # features.sql makes one row of each
        told = (
            f"{counts.read - counts.quarantined} rows were written in {folder}, but {counts.dropped + usable} are there"
        )
        raise StorageError(f"{told}: does something else write there? Run again")
    if not usable:
        told = f"{counts.read} read, {counts.quarantined} quarantined, {counts.dropped} dropped for a missing value"
        raise config.mistake("source.path", f"there is no usable row in {', '.join(config.source_paths)} ({told})")
    for split in manifest.SPLITS:
        if not getattr(counts, split):
            problem = f"left no {split} row of {usable} usable rows; take another split.seed or more rows"
            raise config.mistake("split.validation_fraction", problem)
    if config.label.task == "regression":
        return
    train, validation = (sides[split].codes[: len(classes)] for split in manifest.SPLITS)
    per_class = [copies // config.split.oversample + rows for copies, rows in zip(train, validation, strict=True)]
    where = f"'{config.label.column}'"
    if sum(per_class) < usable:
        problem = f"lists {len(classes)} classes, but {usable - sum(per_class)} of {usable} rows have another {where}"
        raise config.mistake("label.classes", f"{problem} than {', '.join(classes)} (an integer label counts from 0)")
    missing = [name for name, rows in zip(classes, per_class, strict=True) if not rows]
    if missing:
        problem = f"lists {len(classes)} classes, but no row has {', '.join(missing)} as its {where}"
        raise config.mistake("label.classes", problem)
    if len(classes) < 2:
        raise config.mistake("label.column", f"{where} has one value only, {classes[0]}: there is nothing to learn")
