"""What is measured after the last epoch: the kept weights, on the validation rows and then on the test rows."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.data.manifest import SplitName
from pipeline.evaluation.metrics import Evaluation, Importance
from pipeline.model.network import TabularNet
from pipeline.training.components import Loss
from pipeline.training.exchange import Ranks
from pipeline.training.importance import measure_importance
from pipeline.training.loader import Shard
from pipeline.training.task import Task
from pipeline.training.temperature import fit_temperature
from pipeline.training.validation import Answering, evaluate, fit_threshold


@dataclass(frozen=True)
class Measured:
    """What :class:`.task.TrainingResult` says of the kept weights, the same on all ranks."""

    temperature: float
    threshold: float
    evaluation: Evaluation
    validation: Evaluation
    uncalibrated: Evaluation | None
    importance: list[Importance]


def measure(net: TabularNet, loss: Loss, task: Task, ranks: Ranks, shards: dict[SplitName, Shard]) -> Measured:
    """Fit what the model keeps beside its weights on the validation rows; then measure it.

    The test rows take the place of the others in ``shards``.

    Raises:
        RowAccountingError: a row is missing.
    """
    temperature = fit_temperature(net, shards["validation"], task, ranks)
    threshold = fit_threshold(net, task, ranks, shards["validation"], temperature)
    evaluations = evaluate(net, loss, task, ranks, shards, Answering(temperature, threshold))
    tested = shards[task.data.measured_split]
    importance = measure_importance(net, tested, task, ranks, temperature)
    return Measured(
        temperature,
        threshold,
        evaluations.measured,
        evaluations.validation,
        evaluations.uncalibrated,
        importance,
    )
