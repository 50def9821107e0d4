"""The section `tracking` of a use case's settings: where results are kept, and when a model becomes the champion."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.config.base import Settings


class Gate(Settings):
    """When a newly trained model becomes the champion of its name."""

    metric: str | None = None
    """What decides, on the test rows: accuracy, precision, recall, f1, roc_auc, log_loss or calibration_error
    (default accuracy); for a number rmse, mae or r2 (default rmse)."""
    rule: Literal["better", "not_worse"] = "better"
    """`better`: the candidate must be better than the champion by more than chance explains. `not_worse`, for fresh
    data: it must not be worse by more than `margin`."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """How sure that must be, over all models that are measured on the same test rows."""
    min_improvement: float = Field(default=0.0, ge=0)
    """`better`: by how much, in the metric's unit, the candidate must surely be better."""
    margin: float | None = Field(default=None, gt=0)
    """`not_worse`: by how much, in the metric's unit, the candidate may be worse."""
    min_rows: int = Field(default=200, ge=1)
    """The fewest test rows, unknown to the champion, on which the two are compared."""
    thresholds: dict[str, float] = Field(default={})
    """What a candidate must reach, by metric: at least this, or at most this for log_loss, calibration_error, rmse and
    mae."""

    @model_validator(mode="after")
    def _rule_has_its_number(self) -> Gate:
        if (self.margin is None) == (self.rule == "not_worse"):
            raise ValueError(f"rule {self.rule} {'needs a' if self.margin is None else 'takes no'} margin")
        return self


class Tracking(Settings):
    """Where MLflow keeps what happened."""

    uri: str | None = None
    """MLflow tracking URI; default: the environment's MLFLOW_TRACKING_URI, or else an SQLite file in work_dir."""
    experiment: str | None = None
    """Experiment name; default: the name of the config's folder."""
    run_name: str | None = None
    """Run name; default: MLflow makes one up."""
    registered_model: str | None = Field(default=None, pattern="^[^/:@]+$")
    """Register each trained model under this name, and let the gate decide which is the alias `champion`."""
    gate: Gate = Gate()
    """When a newly trained model becomes the champion of its name."""
