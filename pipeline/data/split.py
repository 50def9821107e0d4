"""The split: training, validation or test for each row, and where `split.time` cuts the rows.

A row's split depends on its values and the settings only, never on how Spark has cut the rows into partitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, DateType, NumericType, StructType, TimestampType

from pipeline.config import Config, Split
from pipeline.data import names
from pipeline.data.manifest import SPLITS, TimeCuts
from pipeline.data.source_csv import column, source_schema
from pipeline.model.spec import HASH_VERSION, SplitRule
from pipeline.runtime.console import log
from pipeline.runtime.errors import nearest
from pipeline.runtime.session import progress

SPLIT = names.SPLIT
"""The column that names each row's split."""
ELSEWHERE = "other"
"""Stands for a split where `split.column` holds something else than the name of one."""

_WHOLE_IN_FLOAT32 = 2.0**24
"""float32 holds every whole number up to this one."""
_SHARES = 1_000_000
_SAMPLED_MOMENTS = 1_000_000
"""Of so many rows at most the moments pass through the driver. Among more rows the cuts are off by about 0.04 % of
them, the standard error of a share of 15 % in such a sample."""


@dataclass(frozen=True)
class Sides:
    """The rule that puts each row on a side: the settings of a use case, or of a packaged model."""

    settings: Split
    version: int = HASH_VERSION
    validation_from: float | None = None
    """With `split.time`: the first moment of the validation rows, as in :class:`TimeCuts`."""
    test_from: float | None = None

    @classmethod
    def of(cls, settings: Split, cuts: TimeCuts | None) -> Sides:
        """Return today's rule with the cuts that a manifest holds."""
        return cls(settings, HASH_VERSION, *((cuts.validation_from, cuts.test_from) if cuts else ()))

    @classmethod
    def of_model(cls, settings: Split, rule: SplitRule) -> Sides:
        """Return the rule of a packaged model."""
        return cls(settings, rule.version, rule.validation_from, rule.test_from)

    def key(self, schema: StructType) -> Column | None:
        """Return what decides about a raw row beside its features, an expression over the raw columns; NULL for none.

        It is a hash of the group, a moment as a DOUBLE, or the name of a split.
        """
        settings, kinds = self.settings, {field.name.lower(): field.dataType for field in schema.fields}
        if settings.group:
            values = [column(name).cast("string") for name in sorted(settings.group, key=str.lower)]
            is_whole = F.coalesce(*[F.when(value.isNull(), F.lit(False)) for value in values], F.lit(True))
            return F.when(is_whole, F.xxhash64(F.lit(settings.seed), *values))
        if settings.time:
            return _moment(settings.time, kinds[settings.time.lower()])
        return F.coalesce(column(settings.column), F.lit(ELSEWHERE)) if settings.column else None

    def split(self, key: Column | None, used: dict[str, Column], doubles: dict[str, Column]) -> Column:
        """Return each row's split. Without a key, identical rows are in the same one.

        ``key`` is that of :meth:`key`. ``used`` are the used columns under the user's names, in the order of the
        configuration; numbers are FLOAT. ``doubles`` are those that were DOUBLE, as such.
        """
        if key is None:
            return self._by_hash(self.row_hash(used, doubles))
        if self.settings.group:
            return self._by_hash(key)
        if self.settings.time:
            return self._by_time(key)
        return F.when(key.isin(*SPLITS), key).otherwise(F.lit(ELSEWHERE))

    def row_hash(self, used: dict[str, Column], doubles: dict[str, Column]) -> Column:
        """Return a hash of `split.seed` and the values of the used columns, which :meth:`split` describes."""
        # Large numbers that are equal as FLOAT need not be in the same split. The hash leaves NULL out, so that all
        # other rows have the split that they had when every number was a FLOAT.
        rest = {
            name: F.when((F.abs(x) >= F.lit(_WHOLE_IN_FLOAT32)) & (x.cast("float").cast("double") != x), x)
            for name, x in doubles.items()
        }
        if self.version > 1:  # by name, so that the order of the configuration does not matter
            used, rest = dict(sorted(used.items())), dict(sorted(rest.items()))
        return F.xxhash64(F.lit(self.settings.seed), *used.values(), *rest.values())

    def _by_hash(self, of_a_row: Column) -> Column:
        validation = round(self.settings.validation_fraction * _SHARES)
        test = validation + round(self.settings.test_fraction * _SHARES)
        place = F.pmod(of_a_row, F.lit(_SHARES))
        return F.when(place < validation, "validation").when(place < test, "test").otherwise("train")

    def _by_time(self, moment: Column) -> Column:
        if self.validation_from is None:  # not cut yet
            return F.lit("train")
        side = F.when(moment < self.validation_from, "train")
        if self.test_from is None:
            return side.otherwise("validation")
        return side.when(moment < self.test_from, "validation").otherwise("test")


def check_columns(spark: SparkSession, config: Config) -> None:
    """Raise UserError unless the CSV has the columns that decide about the split, in types that can decide."""
    fields = {field.name: field.dataType for field in source_schema(spark, config).fields}
    for key in ("group", "time", "column"):
        value = getattr(config.split, key)
        for name in [value] if isinstance(value, str) else value or []:
            if name not in fields:
                problem = f"source.schema declares no column '{name}'{nearest(name, list(fields))}"
                raise config.mistake(f"split.{key}", problem)
            if key == "time" and not isinstance(fields[name], NumericType | DateType | TimestampType):
                kind = fields[name].simpleString().upper()
                problem = f"'{name}' is a {kind}: declare it in source.schema as a number, a DATE or a TIMESTAMP"
                raise config.mistake("split.time", problem)


def find_cuts(spark: SparkSession, config: Config, usable: DataFrame, source_bytes: int) -> TimeCuts:
    """Return where `split.time` cuts the rows.

    ``usable`` are the rows that lack no column: their moment as the column `moment`, and a hash as `hash`. The cuts are
    those whose shares of the rows are nearest to the fractions. Rows of equal time stay together.

    Raises:
        UserError: there are too few different moments.
    """
    assert config.split.time
    with progress(spark, f"finding where split.time cuts the rows by {config.split.time}"):
        # a row of the source has at least a byte
        count = usable.count() if source_bytes > _SAMPLED_MOMENTS else 0
        if count > _SAMPLED_MOMENTS:
            share = round(_SHARES * _SAMPLED_MOMENTS / count)
            usable = usable.where(F.pmod(F.col("hash"), F.lit(_SHARES)) < share)
        found: Any = usable.groupBy("moment").agg(F.count(F.lit(1)).alias("rows")).toPandas()
    moments, counts = (found[name].to_numpy(np.float64) for name in ("moment", "rows"))
    order = moments.argsort()
    moments, counts = moments[order], counts[order]
    wants_test = config.split.test_fraction > 0
    if len(moments) < 2 + wants_test:
        problem = f"'{config.split.time}' has {len(moments)} different values in the usable rows"
        raise config.mistake("split.time", f"{problem}; the splits need at least {2 + wants_test}")
    after = counts[::-1].cumsum()[::-1] / counts.sum()  # share of the rows from each moment on
    test = _nearest_cut(after, config.split.test_fraction, 2, len(after)) if wants_test else len(after)
    kept = config.split.test_fraction if wants_test else 0.0
    validation = _nearest_cut(after, kept + config.split.validation_fraction, 1, test)
    kind = {f.name: f.dataType for f in source_schema(spark, config).fields}[config.split.time]
    cuts = [float(moments[place]) for place in (validation, test) if place < len(moments)]
    texts = [_as_text(moment, kind) for moment in cuts]
    named = zip(("validation", "test"), texts, strict=False)
    log.info("split by %s: %s", config.split.time, ", ".join(f"{split} from {text} on" for split, text in named))
    return TimeCuts(validation_from=cuts[0], test_from=cuts[1] if wants_test else None, texts=texts)


def _nearest_cut(after: npt.NDArray[np.float64], share: float, first: int, end: int) -> int:
    """Return the position in ``first`` … ``end`` - 1 from which on the share of the rows is nearest to ``share``."""
    return first + int(np.abs(after[first:end] - share).argmin())


def _moment(name: str, kind: DataType) -> Column:
    """Return a column as a DOUBLE that has its order: days or microseconds since 1970, or the number itself."""
    if isinstance(kind, DateType):
        return F.unix_date(column(name)).cast("double")
    if isinstance(kind, TimestampType):
        return F.unix_micros(column(name)).cast("double")
    number = column(name).cast("double")
    return F.when(F.abs(number) < float("inf"), number)  # NaN is missing, too


def _as_text(moment: float, kind: DataType) -> str:
    if isinstance(kind, DateType):
        return str((datetime(1970, 1, 1) + timedelta(days=moment)).date())
    if isinstance(kind, TimestampType):
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment)).isoformat(" ")
    return f"{moment:.15g}"


def values_elsewhere(frame: DataFrame, name: str, most: int = 10) -> Sequence[str]:
    """Return some of the values of a column that name no split, sorted."""
    others = frame.where(~F.coalesce(column(name).isin(*SPLITS), F.lit(False))).select(column(name)).distinct()
    return sorted("NULL" if value is None else f"'{value}'" for (value,) in others.limit(most).collect())
