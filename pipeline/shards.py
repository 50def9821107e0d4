"""Prepared rows as plain Parquet that the ranks can share out evenly, and the manifest that accounts for every row."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pyarrow.parquet
from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from pipeline import features, ingest, lock, manifest, prepare, storage
from pipeline.config import Config
from pipeline.console import log
from pipeline.errors import StorageError
from pipeline.manifest import LabelData, Manifest, RowGroup, Rows, SourceData, SplitData, SplitName
from pipeline.prepare import SPLIT
from pipeline.session import progress
from pipeline.storage import Folder

# Small enough that a shard is many row groups (ranks get equal shares, rows of several can be mixed), large enough
# that decoding one is worth a task.
_ROW_GROUP_BYTES = 8 * 2**20
_ROW_GROUP_MIN_ROWS = 1_000

# A split is dealt out again when the fullest rank has this much more than the average one.
_MAX_IMBALANCE = 1.05


_PARTS = "parts"  # below the data set's folder: what the one pass over the source wrote, by split


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
    source = ingest.list_source(spark, config)
    config_fingerprint = _config_fingerprint(config, num_proc)
    fingerprint = manifest.dataset_fingerprint(source.fingerprint, config_fingerprint)
    ingest.source_schema(spark, config)
    features.translate(config)  # raises unless features.sql makes one row of each row of raw
    with lock.one_at_a_time(config, fingerprint, "preparing the same data"):
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
        mistake = ingest.source_mistake(spark, config, error)
        if mistake is None:
            raise
        raise mistake from None
    return Prepared(folder=folder, manifest=made, reused=False)


def _prepare(
    spark: SparkSession, config: Config, num_proc: int, source: SourceData, config_fingerprint: str, folder: Folder
) -> Manifest:
    records = ingest.read_records(spark, config)
    typed = prepare.typed_rows(spark, config, records)
    values = prepare.vocabularies(spark, config, typed)
    classes = config.label.classes or values.get(config.label.column, [])
    measured = [*(f.column for f in config.features.numeric)]
    measured += [config.label.column] if config.label.task == "regression" else []

    # The pass: CSV to Parquet, counting and measuring on the way.
    seen = Observation()
    rows = prepare.encode(spark, typed.frame, values).observe(
        seen,
        *_row_counts(typed.frame),
        *_class_counts(config.label.column, len(classes)),
        *prepare.numeric_statistics(measured),
    )
    columns: dict[str, Any] = dict(rows.drop(SPLIT).dtypes)
    group_rows = max(_ROW_GROUP_MIN_ROWS, _ROW_GROUP_BYTES // sum(8 if t == "bigint" else 4 for t in columns.values()))
    _write(spark, config, rows, group_rows, source, folder)

    observed = seen.get | records.seen.get
    counts = Rows(
        read=observed["read"],
        quarantined=observed["bad"],
        dropped=observed["dropped"],
        train=observed["train"],
        validation=observed["validation"],
    )
    dropped_by_column = {name: observed[f"null{i}"] for i, name in enumerate(columns) if observed[f"null{i}"]}
    _set_bad_records_aside(spark, config, counts, folder)
    _check_counts(config, counts, observed, classes)
    _tell(counts, dropped_by_column, config.oversample)

    statistics = prepare.read_statistics(measured, observed)
    splits = _deal(spark, config, observed, len(classes), num_proc, group_rows, folder)
    files = [group.path for split in splits.values() for group in split.row_groups]
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
        oversample=config.oversample,
        numeric={f.column: statistics[f.column] for f in config.features.numeric},
        vocabularies={f.column: values[f.column] for f in config.features.categorical},
        label=LabelData(
            column=config.label.column,
            task=config.label.task,
            classes=classes,
            stats=statistics.get(config.label.column),
        ),
        splits=splits,
        sha256=_checksums(spark, folder, list(dict.fromkeys(files))),
    )


def _write(
    spark: SparkSession, config: Config, rows: DataFrame, group_rows: int, source: SourceData, folder: Folder
) -> None:
    """Write the rows of both splits, in files of one row group each. Raises UserError if the source has changed."""
    with progress(spark, f"preparing {source.files} file(s), {source.bytes / 2**20:,.1f} MiB, into {folder}"):
        kept = _oversampled(rows.where(F.col(SPLIT).isNotNull()), config.oversample)
        writer = kept.write.mode("overwrite").option("maxRecordsPerFile", group_rows).partitionBy(SPLIT)
        writer.parquet((folder / _PARTS).spark)
    if ingest.list_source(spark, config).fingerprint != source.fingerprint:
        raise config.mistake("source.path", "changed while it was read; run again when nobody writes there")


def _deal(
    spark: SparkSession,
    config: Config,
    observed: dict[str, Any],
    classes: int,
    num_proc: int,
    group_rows: int,
    folder: Folder,
) -> dict[SplitName, SplitData]:
    """Return what each split holds, in row groups that give every rank as many rows as the others."""
    copies: dict[SplitName, int] = {"train": config.oversample, "validation": 1}
    splits = {
        split: SplitData(
            rows=observed[split] * times,
            class_counts=[observed[f"{split}{code}"] * times for code in range(classes)],
            row_groups=_balanced(spark, folder, split, observed[split] * times, num_proc, group_rows),
        )
        for split, times in copies.items()
    }
    if not any(name.startswith(SPLIT) for name in (folder / _PARTS).names()):
        (folder / _PARTS).remove()
    return splits


def _checksums(spark: SparkSession, folder: Folder, files: list[str]) -> dict[str, str]:
    """Return the SHA-256 of each file, by its path below ``folder``; the executors read them again for it."""
    with progress(spark, f"checksums of {len(files)} file(s)"):
        content = spark.read.format("binaryFile").load([(folder / path).spark for path in files])
        found = content.select("path", F.sha2("content", 256).alias("sha256")).collect()  # a line per file
    own = f"/{folder.path.rpartition('/')[2]}/"  # both splits may have a file of the same name
    by_path = {unquote(row.path).rpartition(own)[2]: row.sha256 for row in found}
    return {path: by_path[path] for path in files}


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
        "split": config.split.model_dump(),
        "oversample": config.oversample,
        "num_proc": num_proc,
    }
    return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()


def check_prepared_from(config: Config, data: Manifest) -> None:
    """Raise UserError unless ``data`` is what this configuration prepares."""
    if _config_fingerprint(config, data.num_proc) != data.config_fingerprint:
        problem = "source, features, label, split or oversample are not those that the training had"
        raise config.mistake("--config", f"{problem}; give the same file and --set, or train again")


def _row_counts(typed: DataFrame) -> list[Column]:
    names = [name for name in typed.columns if name != SPLIT]
    return [
        F.count_if(F.col(SPLIT).isNull()).alias("dropped"),
        F.count_if(F.col(SPLIT) == "train").alias("train"),
        F.count_if(F.col(SPLIT) == "validation").alias("validation"),
        *[F.count_if(ingest.column(name).isNull()).alias(f"null{i}") for i, name in enumerate(names)],
    ]


def _class_counts(label: str, classes: int) -> list[Column]:
    return [
        F.count_if((F.col(SPLIT) == split) & (ingest.column(label) == code)).alias(f"{split}{code}")
        for split in manifest.SPLITS
        for code in range(classes)
    ]


def _oversampled(rows: DataFrame, factor: int) -> DataFrame:
    if factor == 1:
        return rows
    copies = F.array_repeat(F.lit(0), F.when(F.col(SPLIT) == "train", factor).otherwise(1))
    return rows.select("*", F.explode(copies).alias("copies")).drop("copies")


def _set_bad_records_aside(spark: SparkSession, config: Config, counts: Rows, folder: Folder) -> None:
    if not counts.quarantined:
        return
    place = folder / "quarantine"
    with progress(spark, f"setting {counts.quarantined} records aside in {place}"):
        written = ingest.quarantine(spark, config, place.spark)
    if written != counts.quarantined:
        problem = f"changed while it was read ({counts.quarantined} records that do not fit, then {written}); run again"
        raise config.mistake("source.path", problem)
    if config.source.bad_records == "fail":
        first = spark.read.json(place.spark).first()
        assert first is not None
        problem = f"{written} of {counts.read} records do not fit source.schema and bad_records is fail; the first, in "
        problem += f"{first.file}: {first.reason}; all are in {place}"
        raise config.mistake("source.bad_records", problem)


def _check_counts(config: Config, counts: Rows, observed: dict[str, Any], classes: list[str]) -> None:
    usable = counts.train + counts.validation
    if counts.read != counts.quarantined + counts.dropped + usable:  # features.sql makes one row of each
        problem = f"changed while it was read ({counts.read - counts.quarantined} good rows, then "
        raise config.mistake("source.path", problem + f"{counts.dropped + usable}); run again")
    if not usable:
        told = f"{counts.read} read, {counts.quarantined} quarantined, {counts.dropped} dropped for a missing value"
        raise config.mistake("source.path", f"there is no usable row in {', '.join(config.source_paths)} ({told})")
    for split in manifest.SPLITS:
        if not getattr(counts, split):
            problem = f"left no {split} row of {usable} usable rows; take another split.seed or more rows"
            raise config.mistake("split.validation_fraction", problem)
    if config.label.task == "regression":
        return
    per_class = [sum(observed[f"{split}{code}"] for split in manifest.SPLITS) for code in range(len(classes))]
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


def _balanced(
    spark: SparkSession, folder: Folder, split: str, rows: int, num_proc: int, group_rows: int
) -> list[RowGroup]:
    """Return the split's row groups; dealt out again if the ranks' shares would be unequal.

    Spark writes many row groups of a large source, which deal out evenly. A small or lopsided split is rewritten by
    one task, in the order of the rows' hash, as files of equal length.
    """
    written = f"{_PARTS}/{SPLIT}={split}"
    groups = _row_groups(folder, written)
    if sum(group.rows for group in groups) != rows:
        raise RuntimeError(f"{folder / written} holds {sum(g.rows for g in groups)} rows, but {rows} were written")
    shares = [sum(group.rows for group in groups[rank::num_proc]) for rank in range(num_proc)]
    if max(shares) <= max(_MAX_IMBALANCE * rows / num_proc, min(shares) + 1):
        return groups
    with progress(spark, f"dealing {rows} {split} rows out to {num_proc} ranks evenly"):
        frame = spark.read.parquet((folder / written).spark)
        ordered = frame.coalesce(1).sortWithinPartitions(F.xxhash64(*map(ingest.column, frame.columns)))
        length = _group_length(rows, num_proc, group_rows)
        ordered.write.mode("overwrite").option("maxRecordsPerFile", length).parquet((folder / split).spark)
    (folder / written).remove()
    return _row_groups(folder, split)


def _group_length(rows: int, num_proc: int, most: int) -> int:
    """Return a file length that cuts ``rows`` into at least ``num_proc`` files, the same number for each rank.

    With fewer rows than ranks, every file holds one row and some ranks get none.
    """
    per_rank = -(-rows // (num_proc * most))
    length = -(-rows // (num_proc * per_rank))
    return length if -(-rows // length) >= num_proc else max(1, rows // num_proc)


def _row_groups(folder: Folder, below: str) -> list[RowGroup]:
    """Read the row counts from the footers of all Parquet files in ``folder/below``; return the longest first.

    Dealt out in this order, no rank gets more than the others by more than a row group.
    """
    files = [f"{below}/{name}" for name in (folder / below).names() if name.endswith(".parquet")]

    def read(path: str) -> list[RowGroup]:
        with folder.open(path) as file:
            footer = pyarrow.parquet.read_metadata(file)
        return [RowGroup(path=path, index=i, rows=footer.row_group(i).num_rows) for i in range(footer.num_row_groups)]

    with ThreadPoolExecutor(16) as pool:
        groups = [group for groups in pool.map(read, files) for group in groups if group.rows]
    return sorted(groups, key=lambda group: (-group.rows, group.path, group.index))
