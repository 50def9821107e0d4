"""Which class is predicted: the most probable one, or the positive one of two from a threshold on."""

from __future__ import annotations

from torch import Tensor


def chosen_classes(probabilities: Tensor, positive: int | None, threshold: float) -> Tensor:
    """Return codes (rows,) of ``probabilities`` (rows, classes).

    With ``positive``, the code of one of two classes, it is that one wherever its probability is at least
    ``threshold``.
    """
    if positive is None:
        return probabilities.argmax(dim=1)
    return (probabilities[:, positive] >= threshold).long() * (2 * positive - 1) + (1 - positive)
