"""The settings of the features: what the network takes of a row, and what is made of missing and rare values."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from pipeline.config.base import Settings


def _as_column(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) else value


_FEWEST_ROWS = 5
_LARGEST = 3.4e38  # float32


class NumericFeature(Settings):
    """A column of features.sql that the network takes as a number; the bare column name is short for it."""

    column: str
    """Name of the column in the result of features.sql."""
    scaling: Literal["none", "standard", "minmax", "robust", "quantile"] = "standard"
    """`standard`: (x - mean) / std; `minmax`: to 0…1; `robust`: z = (x - median) / interquartile range, then the smooth
    clip z / √(1 + (z / 3)²); `quantile`: to a normal distribution. All are fitted on the training rows and stored in
    the model."""
    missing: Literal["median", "mean", "drop", "refuse"] | float = Field(default="median", union_mode="left_to_right")
    """What stands for a missing value: the training rows' `median` or `mean`, or a number. `drop`: training leaves the
    row out, and a model refuses it. `refuse`: like that, but a row that lacks it stops the training (exit 2)."""

    @field_validator("missing")
    @classmethod
    def _is_held_by_float32(cls, missing: Any) -> Any:
        if isinstance(missing, float) and abs(missing) > _LARGEST:
            raise ValueError(f"{missing:g} is too large for float32")
        return missing

    indicator: bool = True
    """Whether the network also takes, as an input of its own, whether the value was missing."""
    max_missing: float = Field(default=1.0, ge=0, le=1)
    """The largest share of the usable rows that may lack the value; with more, the job stops (exit 2)."""


class CategoricalFeature(Settings):
    """A column of features.sql that the network takes as a category; the bare column name is short for it."""

    column: str
    """Name of the column in the result of features.sql."""
    encoding: Literal["auto", "index", "onehot", "embedding"] = "auto"
    """What the network takes: the position in the sorted vocabulary, one input per value, or a learned vector. `auto`:
    one input per value of up to 8 values, else a learned vector."""
    dim: int | None = Field(default=None, ge=1)
    """Length of the learned vector; default min(600, round(1.6 · values^0.56))."""
    values: list[str] | None = Field(default=None, min_length=1)
    """The vocabulary. Without it, one more pass over the data collects the training rows' values."""
    min_count: int | None = Field(default=None, ge=1)
    """Values that fewer training rows have are not in the vocabulary: together they are "other". Default: 5, and 1 with
    `unknown: refuse`."""
    max_values: int = Field(default=10_000, ge=1, le=1_000_000)
    """The vocabulary holds at most so many values, the most frequent ones."""
    hash_buckets: int | None = Field(default=None, ge=2, le=1_000_000)
    """For ids: no vocabulary, a hash puts each value into one of so many buckets. Values of a bucket are alike."""
    unknown: Literal["other", "refuse"] = "other"
    """What a value outside the vocabulary is: "other", like the rare values, or a reason to refuse the row."""
    missing: Literal["value", "drop", "refuse"] = "value"
    """A missing value is a `value` of its own. `drop`: training leaves the row out, and a model refuses it. `refuse`:
    like that, but a row that lacks it stops the training (exit 2)."""
    max_missing: float = Field(default=1.0, ge=0, le=1)
    """The largest share of the usable rows that may lack the value; with more, the job stops (exit 2)."""

    @property
    def fewest_rows(self) -> int:
        """Training rows that a value needs to be in the vocabulary."""
        return self.min_count or (1 if self.unknown == "refuse" else _FEWEST_ROWS)

    @model_validator(mode="after")
    def _settings_agree(self) -> CategoricalFeature:
        if self.dim is not None and self.encoding not in ("embedding", "auto"):
            raise ValueError(f"dim is for encoding: embedding, but encoding is {self.encoding}")
        if self.hash_buckets is not None and self.values is not None:
            raise ValueError("hash_buckets and values exclude each other: take one of them")
        return self


class Features(Settings):
    """What the network takes of a row."""

    sql: str = "features.sql"
    """File with one Spark SQL `SELECT … FROM raw`; relative to the config's folder."""
    numeric: list[Annotated[NumericFeature, BeforeValidator(_as_column)]] = Field(default=[])
    """Numeric inputs, in order."""
    categorical: list[Annotated[CategoricalFeature, BeforeValidator(_as_column)]] = Field(default=[])
    """Categorical inputs, in order, after the numeric ones."""

    @property
    def all(self) -> list[NumericFeature | CategoricalFeature]:
        """Every feature in the order of the network's inputs."""
        return [*self.numeric, *self.categorical]
