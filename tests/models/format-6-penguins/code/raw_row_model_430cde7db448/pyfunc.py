"""The model as MLflow calls it. This file knows no MLflow: tracking/package.py writes the file that MLflow runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from .scorer import Scorer


class RawRows:
    """`predict` takes the CSV's columns and returns prediction, probabilities and reason; see scorer.py."""

    def load_context(self, context: Any) -> None:
        """Load the weights and the description beside them, once."""
        self.scorer = Scorer(Path(context.artifacts["model"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return the predictions of raw rows; what a refused row lacks is None, because JSON has no NaN."""
        answers = self.scorer.predict(model_input)
        lacking = {name: answers[name].astype(object) for name in answers.columns[answers.isna().any()]}
        return answers.assign(**{name: values.where(values.notna(), None) for name, values in lacking.items()})
