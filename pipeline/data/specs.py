"""The network that a configuration asks for on a data set, and the description that is packaged with its weights."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from pipeline.config import Config
from pipeline.config.features import CategoricalFeature, NumericFeature
from pipeline.model.dialect.tree import Node
from pipeline.model.spec import (
    HASH_VERSION,
    CategoricalInput,
    ModelSpec,
    NetSpec,
    NumericInput,
    Periodic,
    RawColumn,
    SplitRule,
)

if TYPE_CHECKING:
    from pipeline.data.manifest import Manifest, NumericStats


_MOST_ONE_HOT = 8
"""With `encoding: auto` a larger vocabulary gets learned vectors."""


@dataclass(frozen=True)
class Resolved:
    """features.sql as Spark resolves it."""

    raw: tuple[RawColumn, ...]
    """The declared columns of the CSV, each with the tree that reads it."""
    features: dict[str, Node]
    """The tree of each feature: DOUBLE for a number, STRING for a category."""

    @property
    def needed(self) -> set[str]:
        """The columns of the CSV that a feature is made from."""
        return {column.name for column in self.raw if column.needed}


@dataclass(frozen=True)
class Trained:
    """What a training has made."""

    weights: bytes
    """As a safetensors file."""
    temperature: float = 1.0
    """What the network's outputs are divided by: see training/temperature.py."""
    threshold: float = 0.5
    """The positive class is predicted from this probability on: see evaluation/threshold.py."""


def net_spec(config: Config, data: Manifest) -> NetSpec:
    """Return the description of the network for this configuration and data."""
    stats = data.label.stats
    return NetSpec(
        numeric=tuple(_numeric_input(feature, data.numeric[feature.column]) for feature in config.features.numeric),
        categorical=tuple(
            _categorical_input(
                feature, len(data.vocabularies[feature.column]), data.missing_in_training.get(feature.column, 0)
            )
            for feature in config.features.categorical
        ),
        hidden_sizes=tuple(config.model.hidden_sizes),
        dropout=config.model.dropout,
        outputs=len(data.label.classes) or 1,
        label_mean=stats.mean - stats.offset if stats else 0.0,
        label_std=(stats.std or 1.0) if stats else 1.0,
        periodic=_periodic(config) if config.features.numeric else None,
        members=config.model.members,
        label_offset=stats.offset if stats else 0.0,
    )


def _periodic(config: Config) -> Periodic | None:
    settings = config.model
    if settings.numeric_embedding == "none":
        return None
    return Periodic(settings.frequencies, settings.frequency_scale, settings.embedding_size)


def _numeric_input(feature: NumericFeature, stats: NumericStats) -> NumericInput:
    """Return the scaling of one column; a column with a single value is shifted to 0 and not scaled.

    A wide column is counted from its offset, even without scaling.
    """
    shift, scale = 0.0, 1.0
    if feature.scaling == "standard":
        shift, scale = stats.mean - stats.offset, 1 / stats.std if stats.std else 1.0
    elif feature.scaling == "minmax":
        span = stats.max - stats.min
        shift, scale = stats.min - stats.offset, 1 / span if span else 1.0
    elif feature.scaling == "robust":
        low, high = stats.quartiles
        spread = high - low or (stats.max - stats.min) / 2  # as RealMLP does (Holzmüller et al. 2024)
        shift, scale = stats.median - stats.offset, 1 / spread if spread else 1.0
    fill = _fill(feature, stats)
    knots, levels = _normal_levels(stats) if feature.scaling == "quantile" else ((), ())
    is_clipped = feature.scaling == "robust"
    indicator = feature.indicator and fill is not None
    return NumericInput(feature.column, shift, scale, stats.offset, fill, indicator, is_clipped, knots, levels)


def _normal_levels(stats: NumericStats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the different quantiles, counted from the offset, and the normal distribution's value at each.

    A value that several quantiles share has the middle of their levels. A column with a single value becomes 0.
    """
    by_knot: dict[float, list[float]] = {}
    steps = len(stats.quantiles) - 1
    for i, quantile in enumerate(stats.quantiles):
        by_knot.setdefault(float(np.float32(quantile - stats.offset)), []).append(i / max(1, steps))
    last = 0.5 / max(1, steps)
    levels = [min(1 - last, max(last, sum(levels) / len(levels))) for levels in by_knot.values()]
    if len(levels) < 2:
        return tuple(by_knot), (0.0,) * len(levels)
    return tuple(by_knot), tuple(NormalDist().inv_cdf(level) for level in levels)


def _fill(feature: NumericFeature, stats: NumericStats) -> float | None:
    """Return what stands for a missing value, counted from the offset; None if nothing does."""
    match feature.missing:
        case "drop" | "refuse":
            return None
        case "median":
            return stats.median - stats.offset
        case "mean":
            return stats.mean - stats.offset
        case number:
            return number - stats.offset


def _categorical_input(feature: CategoricalFeature, values: int, missing_rows: int) -> CategoricalInput:
    """Return the encoding of one category. A value that no training row lacks is "other" when it is missing."""
    encoding = feature.encoding
    if encoding == "auto":
        encoding = "onehot" if values <= _MOST_ONE_HOT else "embedding"
    missing = None if feature.missing != "value" else values + 1 if missing_rows else values
    width = _width(encoding, values, feature.dim) + (encoding == "onehot" and (missing or 0) > values)
    hashed = feature.hash_buckets is not None
    return CategoricalInput(feature.column, encoding, values, width, missing, hashed)


def _width(encoding: str, values: int, dim: int | None) -> int:
    if encoding == "index":
        return 1
    if encoding == "onehot":
        return values
    # the rule of thumb of fastai's tabular models (fastai.tabular.model.emb_sz_rule)
    return dim or min(600, round(1.6 * values**0.56))


def class_weights(config: Config, data: Manifest) -> list[float] | None:
    """Return how much a row of each class weighs, as `training.class_weights` says; None if all weigh 1.

    `balanced` gives a class of n of all N training rows, with k classes, the weight N / (k n): scikit-learn's formula
    (King and Zeng 2001). Copies of rows count.
    """
    settings, classes = config.training.class_weights, data.label.classes
    if settings == "none":
        return None
    if isinstance(settings, dict):
        return [settings.get(name, 1.0) for name in classes]
    counts = data.splits["train"].class_counts
    return [sum(counts) / (len(classes) * max(1, count)) for count in counts]


def missing_texts(config: Config) -> tuple[str, ...]:
    """Return the texts of a field that has no value."""
    return tuple(dict.fromkeys(("", config.source.null_value)))


def model_spec(
    config: Config, data: Manifest, resolved: Resolved, temperature: float = 1.0, threshold: float = 0.5
) -> ModelSpec:
    """Return the description that is packaged with the weights."""
    cuts = data.time_cuts
    return ModelSpec(
        network=net_spec(config, data),
        raw=resolved.raw,
        missing=missing_texts(config),
        features=resolved.features,
        vocabularies=data.vocabularies,
        classes=data.label.classes,
        temperature=temperature,
        positive=config.label.positive,
        threshold=threshold,
        split=SplitRule(HASH_VERSION, *(cuts.validation_from, cuts.test_from) if cuts else ()),
        encode_unknown=[f.column for f in config.features.categorical if f.unknown == "other"],
    )
