"""How much each row weighs in the loss: `label.weight` times `training.class_weights`.

A step's loss is the sum of weight times loss over the rows of all ranks, divided by the sum of their weights.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.data.manifest import Manifest
from pipeline.data.specs import class_weights
from pipeline.training.loader import Batch


class Weighting:
    """The weights of rows, the same on all ranks."""

    def __init__(self, config: Config, data: Manifest, device: torch.device | str = "cpu") -> None:
        of_classes = class_weights(config, data)
        self._of_classes = None if of_classes is None else torch.tensor(of_classes, device=device)
        self.is_on = self._of_classes is not None or data.weight is not None
        """Whether rows may weigh differently."""

    def of(self, batch: Batch) -> Tensor | None:
        """Return the weights, float32 (rows,), of a batch on the device; None if all rows weigh 1."""
        if self._of_classes is None:
            return batch.weights
        of_class = self._of_classes[batch.labels]
        return of_class if batch.weights is None else of_class * batch.weights


def add_up_losses(losses: Tensor, weights: Tensor | None) -> Tensor:
    """Return the sum of the rows' losses, each times its weight."""
    return losses.sum() if weights is None else (losses * weights).sum()
