"""Holes in the data: how many rows lack a feature, or have a rare value, and when a job must not train on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pipeline.config import Config
from pipeline.config.features import CategoricalFeature, NumericFeature
from pipeline.data.manifest import Manifest, SplitName
from pipeline.data.parquet_summary import Summary
from pipeline.runtime.console import log

_LISTED = 10
_QUARANTINED = "correct schema or source, or raise the limit; each record's reason is in the quarantine"
_DROPPED = "correct the source, say with features.….missing what stands for a missing value, or raise the limit"


@dataclass(frozen=True)
class Holes:
    """Rows by feature, copies not counted; a feature without such rows is not listed."""

    missing: dict[str, int]
    """Usable rows that lack the feature."""
    missing_in_training: dict[str, int]
    """Training rows that lack it."""
    other_in_training: dict[str, int]
    """Training rows whose value is outside the vocabulary."""


def missing_by_column(names: Iterable[str], stored: Mapping[str, str], rows: Summary) -> dict[str, int]:
    """Return how many rows of some files lack each column, of those that a row lacks."""
    return {name: lacking for name in names if (lacking := rows.nulls.get(stored[name], 0))}


def find_holes(config: Config, stored: Mapping[str, str], written: Mapping[SplitName, Summary]) -> Holes:
    """Return the holes in the files of the splits; ``stored`` names each feature's column there."""
    names, copies = config.feature_columns, config.split.oversample
    by_split = {split: missing_by_column(names, stored, summary) for split, summary in written.items()}
    in_training = {name: lacking // copies for name, lacking in by_split.pop("train").items()}
    missing = Counter(in_training)
    for lacking in by_split.values():
        missing.update(lacking)
    others = written["train"].others
    rare = {name: others[stored[name]] // copies for name in names if stored[name] in others}
    return Holes(dict(missing), in_training, rare)


def check_holes(config: Config, data: Manifest) -> None:
    """Check that the source is not broken: how many rows were set aside, were dropped, or lack a feature.

    Raises:
        UserError: they are more than the settings allow; the message has both numbers.
    """
    source, rows = config.source, data.rows
    fitting, usable = rows.read - rows.quarantined, rows.train + rows.validation + rows.test
    if rows.read < source.min_rows:
        problem = f"the source holds {rows.read:,} rows, but must hold {source.min_rows:,}"
        raise config.mistake("source.min_rows", problem)
    if rows.quarantined > source.max_quarantined * rows.read:
        problem = f"{_share(rows.quarantined, rows.read)} records do not fit source.schema, but at most"
        raise config.mistake("source.max_quarantined", f"{problem} {source.max_quarantined:.2%} may: {_QUARANTINED}")
    for at, feature in _features(config):
        lacking = data.dropped_by_column.get(feature.column, 0)
        if lacking and feature.missing == "refuse":
            problem = f"{lacking:,} rows lack '{feature.column}', but missing: refuse allows none"
            raise config.mistake(f"{at}.missing", problem)
    if rows.dropped > source.max_dropped * fitting:
        columns = ", ".join(f"{lacking:,} lack {name}" for name, lacking in data.dropped_by_column.items())
        problem = f"{_share(rows.dropped, fitting)} rows were dropped for a missing value ({columns}), but at most"
        raise config.mistake("source.max_dropped", f"{problem} {source.max_dropped:.2%} may: {_DROPPED}")
    for at, feature in _features(config):
        name, lacking = feature.column, data.missing.get(feature.column, 0)
        if data.missing_in_training.get(name) == rows.train and not isinstance(feature.missing, float):
            advice = "leave it out" + (", or say what stands for it: missing: NUMBER" if "numeric" in at else "")
            raise config.mistake(at, f"'{name}' has no value in any of {rows.train:,} training rows: {advice}")
        if lacking > feature.max_missing * usable:
            problem = f"{_share(lacking, usable)} usable rows lack '{name}', but at most"
            raise config.mistake(f"{at}.max_missing", f"{problem} {feature.max_missing:.2%} may")
    for feature in config.features.categorical:
        if not data.vocabularies[feature.column]:
            problem = "no value of '%s' is in %d or more training rows, so it tells the model nothing"
            advice = "leave it out, set its min_count: 1, or hash_buckets for an id"
            log.warning(f"{problem}: {advice}", feature.column, feature.fewest_rows)
    _log("missing values, which the model can answer", data.missing, usable)
    _log('rare values, which are "other"', data.other_in_training, rows.train)


def _features(config: Config) -> Iterator[tuple[str, NumericFeature | CategoricalFeature]]:
    """Yield each feature with the key of its setting."""
    yield from ((f"features.numeric.{i}", feature) for i, feature in enumerate(config.features.numeric))
    yield from ((f"features.categorical.{i}", feature) for i, feature in enumerate(config.features.categorical))


def _log(what: str, rows: Mapping[str, int], total: int) -> None:
    if not rows:
        return
    most = sorted(rows.items(), key=lambda item: (-item[1], item[0]))
    listed = ", ".join(f"{name} in {count / total:.2%}" for name, count in most[:_LISTED])
    more = f" and {len(most) - _LISTED} more features" if len(most) > _LISTED else ""
    log.info("%s: %s%s of %d rows", what, listed, more, total)


def _share(part: int, total: int) -> str:
    return f"{part:,} of {total:,} ({part / total:.2%})"
