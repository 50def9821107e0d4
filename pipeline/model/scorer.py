"""Raw rows in, predictions out: all that a packaged model needs, without Spark and without MLflow.

A row gets no prediction, and a `reason` instead, when a feature of it is missing (NULL, NaN, or not a float32), when a
value is not of its column's type, when a category was never seen in training (unless the feature says
`unknown: encode`), or when its numbers are so large that the network has no finite answer. One bad row never spoils the
others.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from safetensors.torch import load_file

from .features_duckdb import RawColumn, RawFeatures
from .network import CategoricalInput, NetSpec, NumericInput, TabularNet

PROBABILITY = "probability_"
Objects = npt.NDArray[np.object_]


@dataclass(frozen=True)
class ModelSpec:
    """What the packaged model's `model.json` holds."""

    network: NetSpec
    raw: tuple[RawColumn, ...]
    select: str
    """features.sql in DuckDB's dialect."""
    vocabularies: dict[str, list[str]]
    classes: list[str]
    """Empty for regression."""
    encode_unknown: list[str]
    """Categorical features that take a value which training never saw as such, instead of refusing the row."""

    def to_json(self) -> str:
        """Return this as JSON text."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Return what :meth:`to_json` wrote."""
        tree = json.loads(text)
        net = tree["network"]
        network = NetSpec(
            **{
                **net,
                "numeric": tuple(NumericInput(**n) for n in net["numeric"]),
                "categorical": tuple(CategoricalInput(**c) for c in net["categorical"]),
                "hidden_sizes": tuple(net["hidden_sizes"]),
            }
        )
        return cls(**{**tree, "network": network, "raw": tuple(RawColumn(**c) for c in tree["raw"])})


class Scorer:
    """A packaged model, loaded: `model.json` and `weights.safetensors` of one folder."""

    def __init__(self, folder: Path) -> None:
        self.spec = ModelSpec.from_json((folder / "model.json").read_text(encoding="utf-8"))
        self.net = TabularNet(self.spec.network)
        self.net.load_state_dict(load_file(folder / "weights.safetensors"))
        self.net.eval()
        self._vocabularies = {name: pd.Index(values, dtype=object) for name, values in self.spec.vocabularies.items()}
        self._features = RawFeatures(
            self.spec.raw,
            self.spec.select,
            [number.column for number in self.spec.network.numeric],
            [category.column for category in self.spec.network.categorical],
        )

    def predict(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return `prediction`, `probability_CLASS` for each class, and `reason` (None where there is a prediction).

        ``rows`` holds the CSV's columns, in any order, as numbers or as text; columns that no feature needs may lack.
        """
        features, problems = self._features.run(rows)
        return self.score(features, problems.to_numpy(dtype=object)).set_index(rows.index)

    @torch.no_grad()
    def score(self, features: pd.DataFrame, problems: Objects | None = None) -> pd.DataFrame:
        """Return the predictions of rows that features.sql has already been run on, by Spark or by DuckDB.

        ``problems`` (rows,) says what is already known to be wrong with a row, or None.
        """
        reason = np.full(len(features), None, dtype=object) if problems is None else problems
        numeric, categorical = self.spec.network.numeric, self.spec.network.categorical
        matrix = np.zeros((len(features), len(numeric) + len(categorical)), np.float32)
        for i, number in enumerate(numeric):
            values = features[number.column].to_numpy(np.float32, na_value=np.nan)
            missing = ~np.isfinite(values)
            _refuse(reason, missing, f"{number.column} is missing")
            matrix[:, i] = np.where(missing, 0, values)
        for i, category in enumerate(categorical, start=len(numeric)):
            text = features[category.column].astype(object)
            missing = text.isna().to_numpy()
            codes = self._vocabularies[category.column].get_indexer(text)
            _refuse(reason, missing, f"{category.column} is missing")
            if category.column not in self.spec.encode_unknown:
                for row in np.flatnonzero(codes < 0):
                    reason[row] = reason[row] or f"{category.column}: '{text.iloc[row]}' was never seen in training"
            matrix[:, i] = np.where(codes < 0, category.values, codes)
        return self._told(self.net(torch.from_numpy(matrix)), reason)

    def _told(self, outputs: torch.Tensor, reason: Objects) -> pd.DataFrame:
        _refuse(reason, ~torch.isfinite(outputs).all(dim=1).numpy(), "the network has no finite answer")
        refused = np.array([told is not None for told in reason], dtype=bool)
        columns: dict[str, Any] = {}
        if self.spec.classes:
            probabilities = torch.softmax(outputs.double(), dim=1).numpy()
            names = np.array(self.spec.classes, dtype=object)[probabilities.argmax(axis=1)]
            columns["prediction"] = np.where(refused, np.array(None, dtype=object), names)
            for code, name in enumerate(self.spec.classes):
                columns[PROBABILITY + name] = np.where(refused, np.nan, probabilities[:, code])
        else:
            columns["prediction"] = np.where(refused, np.nan, outputs.squeeze(1).double().numpy())
        return pd.DataFrame({**columns, "reason": reason})


def _refuse(reason: Objects, rows: npt.NDArray[np.bool_], why: str) -> None:
    """Give the rows a reason, unless they have one."""
    for row in np.flatnonzero(rows):
        reason[row] = reason[row] or why
