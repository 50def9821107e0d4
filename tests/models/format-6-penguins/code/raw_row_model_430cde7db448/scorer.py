"""Raw rows in, predictions out: all that a packaged model needs, without Spark and without MLflow.

A row gets no prediction, and a `reason` instead, when a value is not of its column's type, or when its numbers are so
large that the network has no finite answer. A feature may be missing (NULL, NaN, or not a float32) if its training said
what stands for it, else the row is refused, too. With `unknown: refuse` so is a category that was never seen. One bad
row never spoils the others.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from safetensors.torch import load_file

from .features import RawFeatures
from .network import TabularNet
from .offsets import relative
from .spec import PROBABILITY, CategoricalInput, ModelSpec, NumericInput

if TYPE_CHECKING:
    from .features_duckdb import TranslatedFeatures

Objects = npt.NDArray[np.object_]


class Scorer:
    """A packaged model, loaded: `model.json` and `weights.safetensors` of one folder."""

    def __init__(self, folder: Path) -> None:
        self.spec = ModelSpec.from_json((folder / "model.json").read_text(encoding="utf-8"))
        self.net = TabularNet(self.spec.network)
        self.net.load_state_dict(load_file(folder / "weights.safetensors"))
        self.net.eval()
        self._vocabularies = {name: pd.Index(values, dtype=object) for name, values in self.spec.vocabularies.items()}
        self._features = raw_features(self.spec)

    def predict(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return `prediction`, `probability_CLASS` for each class, and `reason` (None where there is a prediction).

        ``rows`` holds the CSV's columns, in any order, as numbers or as text; columns that no feature needs may lack.
        """
        features, reasons = self.features(rows)
        return self.score(features, reasons.to_numpy(dtype=object)).set_index(rows.index)

    def features(self, rows: pd.DataFrame, read_by_spark: bool = False) -> tuple[pd.DataFrame, pd.Series]:
        """Return the features of raw rows, and the reason of each row that has a value that is not of its type.

        ``read_by_spark`` is as in :meth:`RawFeatures.run`.
        """
        return self._features.run(rows, read_by_spark)

    @torch.no_grad()
    def score(self, features: pd.DataFrame, reasons: Objects | None = None) -> pd.DataFrame:
        """Return the predictions of rows that features.sql has already been run on, by Spark or in process.

        ``reasons`` (rows,) holds why a row is refused already, or None.
        """
        if reasons is None:
            reasons = np.full(len(features), None, dtype=object)
        numbers = [self._numbers(features, number, reasons) for number in self.spec.network.numeric]
        codes = [self._codes(features, category, reasons) for category in self.spec.network.categorical]
        rows = np.stack([*numbers, *codes], axis=1).astype(np.float32, copy=False)
        return self._answers(self.net(torch.from_numpy(rows)), reasons)

    def _numbers(self, features: pd.DataFrame, number: NumericInput, reasons: Objects) -> npt.NDArray[np.float32]:
        """Return one numeric column (rows,), counted from its offset; NaN where it is missing, 0 if it must not be."""
        values = features[number.column].to_numpy(np.float64, na_value=np.nan)
        missing = ~np.isfinite(relative(values, 0.0))
        if number.fill is None:
            _refuse(reasons, missing, f"{number.column} is missing")
        filled = np.float32(0 if number.fill is None else np.nan)
        return np.where(missing, filled, relative(values, number.offset))

    def _codes(self, features: pd.DataFrame, category: CategoricalInput, reasons: Objects) -> npt.NDArray[np.float32]:
        """Return one categorical column (rows,) as codes; an unseen value has the code after the last one."""
        text = features[category.column].astype(object)
        missing = text.isna().to_numpy()
        if category.hashed:
            pairs = zip(text, missing, strict=True)
            codes = np.array([0 if gone else bucket(value, category.values) for value, gone in pairs])
        else:
            codes = self._vocabularies[category.column].get_indexer(text)
        if category.missing is None:
            _refuse(reasons, missing, f"{category.column} is missing")
        if category.column not in self.spec.encode_unknown:
            for row in np.flatnonzero((codes < 0) & ~missing):
                reasons[row] = reasons[row] or f"{category.column}: '{text.iloc[row]}' was never seen in training"
        codes = np.where(codes < 0, category.values, codes)
        other = category.values if category.missing is None else category.missing
        return np.where(missing, other, codes).astype(np.float32)

    def _answers(self, outputs: torch.Tensor, reasons: Objects) -> pd.DataFrame:
        """Return the network's outputs as the model's columns; a refused row has its reason only."""
        _refuse(reasons, ~torch.isfinite(outputs).all(dim=1).numpy(), "the network has no finite answer")
        refused = np.array([reason is not None for reason in reasons], dtype=bool)
        columns: dict[str, Any] = {}
        if self.spec.classes:
            probabilities = torch.softmax(outputs.double() / self.spec.temperature, dim=1).numpy()
            names = np.array(self.spec.classes, dtype=object)[probabilities.argmax(axis=1)]
            columns["prediction"] = np.where(refused, np.array(None, dtype=object), names)
            for code, name in enumerate(self.spec.classes):
                columns[PROBABILITY + name] = np.where(refused, np.nan, probabilities[:, code])
        else:
            numbers = outputs.squeeze(1).double().numpy() + self.spec.network.label_offset
            columns["prediction"] = np.where(refused, np.nan, numbers)
        return pd.DataFrame({**columns, "reason": reasons})


def bucket(value: str, buckets: int) -> int:
    """Return the bucket of a hashed value. Spark has the same function: `crc32(value) % buckets` of the UTF-8 bytes."""
    # to Java half of a character is a question mark, too
    return zlib.crc32(str(value).encode("utf-8", "replace")) % buckets


def raw_features(spec: ModelSpec) -> RawFeatures | TranslatedFeatures:
    """Return what makes a model's features of raw rows: its trees, or the translation of formats 1 and 2."""
    if not spec.select:
        return RawFeatures(spec.raw, spec.missing, spec.features)
    from .features_duckdb import TranslatedFeatures  # DuckDB is needed for these models only

    numeric = [number.column for number in spec.network.numeric]
    return TranslatedFeatures(spec.raw, spec.select, numeric, [c.column for c in spec.network.categorical])


def _refuse(reasons: Objects, rows: npt.NDArray[np.bool_], reason: str) -> None:
    """Give the rows a reason, unless they have one."""
    for row in np.flatnonzero(rows):
        reasons[row] = reasons[row] or reason
