"""The sentences for a training whose loss is not finite."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.runtime.errors import UserError
from pipeline.training.exchange import Ranks
from pipeline.training.task import Task


def not_finite(task: Task, ranks: Ranks, where: str, features: Tensor) -> UserError:
    """Return the error for a step whose loss or gradient is not finite; all ranks call this together.

    ``features`` (rows, features) is this rank's batch. An infinite value in it is the cause, or a missing one for which
    nothing stands.
    """
    names = task.config.feature_columns
    required = [feature.missing in ("drop", "refuse") for feature in task.config.features.all]
    is_bad = features.isinf() | (features.isnan() & torch.tensor(required, device=features.device))
    bad: list[int] = is_bad.any(dim=0).nonzero().flatten().tolist()
    first = min((columns[0] for columns in ranks.gather(bad) if columns), default=None)
    problem = f"{where}: the loss is no longer a finite number"
    if first is not None:
        cause = f"{names[first]} holds a value that is not finite: correct it in features.sql"
        return task.config.mistake("features", f"{problem}; {cause}")
    hint = "lower it, or set a scaling for the numeric features; the checkpoints before are kept"
    return task.config.mistake("training.learning_rate", f"{problem}; {hint}")


def check_losses(task: Task, epoch: int, *losses: float) -> None:
    """Raise UserError unless an epoch's losses are finite; all ranks have the same losses."""
    if not math.isfinite(sum(losses)):
        problem = f"epoch {epoch}: the validation loss is not a finite number"
        hint = "lower it, or set a scaling for the numeric features"
        raise task.config.mistake("training.learning_rate", f"{problem}; {hint}")
