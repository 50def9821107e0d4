"""The prepared data set: one pass from the CSV to Parquet that ranks share evenly, its manifest, and its reuse."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from pipeline.config import Config
from pipeline.data import (
    dealing,
    features_sql,
    holes,
    kept,
    manifest,
    parity,
    prepare,
    row_accounting,
    source_csv,
    source_files,
    split,
    vocabularies,
    wide_numbers,
)
from pipeline.data.manifest import SPLITS, LabelData, Manifest, SourceData, SplitData, SplitName
from pipeline.data.oversampling import oversample
from pipeline.data.parquet_summary import Aggregates, Summary, summarize
from pipeline.data.quantiles import fit_quantiles
from pipeline.data.source_csv import Records
from pipeline.data.specs import Resolved
from pipeline.data.split import ELSEWHERE, SPLIT, Sides
from pipeline.runtime import lock, storage
from pipeline.runtime.console import log
from pipeline.runtime.errors import StorageError, one_line, reason
from pipeline.runtime.session import progress
from pipeline.runtime.storage import Folder
from pipeline.runtime.versions import project_version

_PASS = "parts"  # below the data set's folder: the files that the one pass over the source has written, by split
_DROPPED = "dropped"  # stands for a split in the pass; its rows are counted, then removed


@dataclass(frozen=True)
class Prepared:
    """A data set that is ready to train on."""

    folder: Folder
    manifest: Manifest
    resolved: Resolved
    """features.sql as the packaged model runs it."""
    reused: bool
    """Whether an earlier job had already prepared it."""


def open_data_dir(config: Config) -> None:
    """Make the folder of all prepared data, and check that it can be written. Raises UserError when it cannot."""
    try:
        if not config.run.data_dir:
            storage.make_private(config.work_dir)
        config.data_dir.make()
    except Exception as error:  # each store has errors of its own
        key = "run.data_dir" if config.run.data_dir else "run.work_dir"
        raise config.mistake(key, f"cannot write in {config.data_dir}: {one_line(reason(error), 300)}") from None


def prepare_data(spark: SparkSession, config: Config, num_proc: int) -> Prepared:
    """Return the prepared data set for this source, configuration and number of ranks; prepare it if need be.

    Raises:
        UserError: the source or the configuration is wrong.
        StorageError: there is no room, or the files do not hold what was written.
    """
    source = source_files.list_source(spark, config)
    shape = _config_fingerprint(config, num_proc)
    fingerprint = manifest.dataset_fingerprint(source.fingerprint, shape, spark.version, project_version())
    folder = config.data_dir / fingerprint
    resolved = features_sql.resolve(spark, config)
    with lock.wait_for_lock(config.lock_dir / fingerprint, "preparing the same data"):
        if (existing := Manifest.read(folder)) is not None:
            kept.beat(folder)  # under the lock: who removes old data takes it, too
            log.info("reusing the data prepared earlier in %s: source and configuration are the same", folder)
            return Prepared(folder, _checked(config, existing), resolved, reused=True)
        if folder.exists():
            log.info("removing %s: it has no manifest, so its preparation was interrupted", folder)
            folder.remove()
        made = _prepare(spark, config, num_proc, resolved, source, folder)
        kept.beat(folder)
        return Prepared(folder, _checked(config, made), resolved, reused=False)


def _checked(config: Config, data: Manifest) -> Manifest:
    """Check the data against the settings that do not shape them; return them with the positive class of the job.

    Raises:
        UserError: the source is broken, or its classes are others than the settings name.
    """
    holes.check_holes(config, data)
    row_accounting.check_named_classes(config, data.label.classes)
    label = data.label.model_copy(update={"positive": config.label.positive})
    return data.model_copy(update={"label": label})


def check_prepared_from(config: Config, data: Manifest) -> None:
    """Raise UserError unless this configuration prepares ``data``."""
    if _config_fingerprint(config, data.num_proc) != data.config_fingerprint:
        problem = "source, features, label or split are not the same as in the training"
        raise config.mistake("--config", f"{problem}; give the same file and --set, or train again")
    if config.label.positive != data.label.positive:
        problem = f"is {config.label.positive or 'not set'}, but was {data.label.positive or 'not set'} in the training"
        raise config.mistake("label.positive", f"{problem}; give the same file and --set, or train again")


def _config_fingerprint(config: Config, num_proc: int) -> str:
    """Hash the settings that shape the data; a job that changes only others (epochs, scaling, …) reuses them."""
    shape = {
        "source": config.source.model_dump(exclude={"max_quarantined", "max_dropped", "min_rows"}),
        "sql": config.features_sql,
        "numeric": [(f.column, f.missing in ("drop", "refuse")) for f in config.features.numeric],
        "categorical": [
            (f.column, f.values, f.fewest_rows, f.max_values, f.hash_buckets, f.missing != "value")
            for f in config.features.categorical
        ],
        "label": config.label.model_dump(
            exclude={"positive", "threshold", *([] if config.label.weight else ["weight"])}
        ),
        "split": config.split.model_dump(exclude={"oversample"}),
        "oversample": config.split.oversample,
        "num_proc": num_proc,
    }
    return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()


def _prepare(
    spark: SparkSession, config: Config, num_proc: int, resolved: Resolved, source: SourceData, folder: Folder
) -> Manifest:
    """Make the data set and write its manifest last; turn an error of Spark with a known cause into one sentence."""
    try:
        made = _build_data_set(spark, config, num_proc, resolved, source, folder)
        made.write(folder)
    except Exception as error:
        if "No space left on device" in str(error):
            folder.remove()
            problem = f"there is no room for the prepared data in {folder}; nothing half-written is left there"
            raise StorageError(f"{problem}: make room, or name another run.data_dir, and run again") from None
        mistake = source_csv.source_mistake(spark, config, error)
        if mistake is None:
            raise
        raise mistake from None
    return made


def _build_data_set(
    spark: SparkSession, config: Config, num_proc: int, resolved: Resolved, source: SourceData, folder: Folder
) -> Manifest:
    split.check_columns(spark, config)
    records = source_csv.read_records(spark, config, config.split.needed_columns)
    cuts = prepare.find_cuts(spark, config, source.bytes)
    sides = Sides.of(config.split, cuts)
    sampling = parity.Sampling(config, resolved, records, parity.estimate(spark, config, resolved, source))
    typed = prepare.typed_rows(spark, config, sampling.rows, sides, sampling.carried)
    values = vocabularies.find_vocabularies(spark, config, typed, sides)
    classes = config.label.classes or values.get(config.label.column, [])

    # The pass: CSV to Parquet.
    stored = typed.stored
    encoded = prepare.encode(spark, config, typed, sampling.observe(typed), values)
    columns: dict[str, Any] = dict(encoded.drop(SPLIT).dtypes)
    _write(spark, config, encoded, dealing.group_rows(columns), source, folder)

    # Rows and statistics come from the files.
    counted = _counted(config, stored, values, len(classes))
    written = _summarize_splits(spark, folder, counted, columns)
    _check_no_other_split(config, records, folder)
    dropped = _summarize_dropped(spark, folder, counted)
    rows = row_accounting.account(spark, config, records, written, dropped.rows, folder)
    dropped_by_column = holes.missing_by_column(prepare.required_columns(config), stored, dropped)
    row_accounting.check_classes(config, classes, written)
    row_accounting.check_weights(config, stored, written)
    row_accounting.log_rows(rows, dropped_by_column, config.split.oversample)
    sampling.keep(spark, folder)

    statistics = _statistics(spark, config, stored, written["train"], folder)
    wide_numbers.log_merged_values(spark, folder, _part("train"), statistics, written["train"].rounding)
    # A double stays one only if it is wide: float32 holds the others.
    columns |= {name: "float" for name, stats in statistics.items() if not stats.offset}
    filled = {name: summary for name, summary in written.items() if summary.rows}  # there may be no test row
    splits = {n: dealing.deal_evenly(spark, folder, n, s, counted, columns, num_proc) for n, s in filled.items()}
    _remove_empty_pass(folder)
    return Manifest(
        format_version=manifest.FORMAT_VERSION,
        source=source,
        config_fingerprint=_config_fingerprint(config, num_proc),
        num_proc=num_proc,
        seed=config.split.seed,
        spark_version=spark.version,
        pipeline_version=project_version(),
        use_case=config.folder.name,
        columns=columns,
        rows=rows,
        dropped_by_column=dropped_by_column,
        oversample=config.split.oversample,
        **vars(holes.find_holes(config, stored, written)),
        numeric={f.column: statistics[stored[f.column]] for f in config.features.numeric},
        vocabularies={f.column: values[f.column] for f in config.features.categorical},
        label=_label_data(config, classes, statistics.get(stored[config.label.column])),
        weight=config.label.weight,
        splits={name: _split_data(summary, len(classes), num_proc) for name, summary in splits.items()},
        time_cuts=cuts,
        sha256={file.path: file.sha256 for summary in splits.values() for file in summary.files if file.rows},
    )


def _counted(config: Config, stored: dict[str, str], values: dict[str, list[str]], classes: int) -> Aggregates:
    codes = {stored[f.column]: len(values[f.column]) for f in config.features.categorical}
    weight = config.label.weight
    return Aggregates(stored[config.label.column], classes, () if weight is None else (stored[weight],), codes)


def _label_data(config: Config, classes: list[str], stats: manifest.NumericStats | None) -> LabelData:
    return LabelData(column=config.label.column, task=config.label.task, classes=classes, stats=stats)


def _statistics(
    spark: SparkSession, config: Config, stored: dict[str, str], train: Summary, folder: Folder
) -> dict[str, manifest.NumericStats]:
    """Return the statistics of the training rows' values by the numeric columns' names in the files."""
    statistics = train.statistics()
    names = [stored[feature.column] for feature in config.features.numeric]
    quantiles = fit_quantiles(spark, folder, _part("train"), names, train.rows)
    for name in names:
        stats = statistics.get(name, manifest.NumericStats(mean=0.0, std=0.0, min=0.0, max=0.0))  # without a value
        few = [stats.min, stats.mean, stats.max]  # the sample may miss all values of a feature that hardly any row has
        statistics[name] = stats.model_copy(update={"quantiles": quantiles[name] or few})
    return statistics


def _write(
    spark: SparkSession, config: Config, rows: DataFrame, file_rows: int, source: SourceData, folder: Folder
) -> None:
    """Write the rows of each split, and the dropped ones, in files of one row group each.

    Raises:
        UserError: the source has changed meanwhile.
    """
    with progress(spark, f"preparing {source.files} file(s), {source.bytes / 2**20:,.1f} MiB, into {folder}"):
        copied = oversample(rows.fillna(_DROPPED, SPLIT), config.split.oversample)
        dealing.writer(copied, file_rows).partitionBy(SPLIT).parquet((folder / _PASS).spark)
    if source_files.list_source(spark, config).fingerprint != source.fingerprint:
        raise config.mistake("source.path", "changed while it was read; run again when no other job writes there")


def _summarize_splits(
    spark: SparkSession, folder: Folder, counted: Aggregates, columns: dict[str, Any]
) -> dict[SplitName, Summary]:
    """Return the summaries of what the pass has written, with the statistics of the training rows."""
    measured = replace(counted, numeric=tuple(name for name, kind in columns.items() if kind != "bigint"))
    return {name: summarize(spark, folder, _part(name), measured if name == "train" else counted) for name in SPLITS}


def _summarize_dropped(spark: SparkSession, folder: Folder, counted: Aggregates) -> Summary:
    """Return the summary of the dropped rows, which nobody needs any more."""
    dropped = summarize(spark, folder, _part(_DROPPED), counted)
    (folder / _part(_DROPPED)).remove()
    return dropped


def _check_no_other_split(config: Config, records: Records, folder: Folder) -> None:
    """Raise UserError for what `split.column` holds beside the names of splits."""
    name = config.split.column
    if name and (folder / _part(ELSEWHERE)).exists():
        others = ", ".join(split.values_elsewhere(records.good(), name))
        raise config.mistake("split.column", f"'{name}' must hold {', '.join(SPLITS)}, but also holds {others}")


def _part(side: str) -> str:
    """Return where the pass writes a split, below the data set's folder."""
    return f"{_PASS}/{SPLIT}={side}"


def _remove_empty_pass(folder: Folder) -> None:
    """Remove the folder of the pass if all splits were written again."""
    if not any(name.startswith(SPLIT) for name in (folder / _PASS).names()):
        (folder / _PASS).remove()


def _split_data(summary: Summary, classes: int, num_proc: int) -> SplitData:
    row_groups = dealing.deal(summary.row_groups, num_proc)
    return SplitData(rows=summary.rows, class_counts=summary.class_rows[:classes], row_groups=row_groups)
