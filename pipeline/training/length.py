"""How long a training is, and in what steps, where the settings leave that to the number of rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.config import Training
from pipeline.data.manifest import Manifest

_BATCH_SHARE = 1 / 100  # of the training rows
_FEWEST_BATCH_ROWS, _USUAL_BATCH_ROWS, _MOST_BATCH_ROWS = 64, 512, 8_192
_LARGE = 1_000_000  # of more training rows a batch has a two-thousandth
_FEWEST_RANK_ROWS = 16
_STEPS = 15_000  # about a minute and a half on two cores, with up to so many columns:
_COLUMNS = 20
_FEWEST_EPOCHS, _MOST_EPOCHS = 8, 200

LR_SCALINGS: dict[str, Callable[[int], float]] = {
    "none": lambda num_proc: 1.0,
    "linear": float,
    "sqrt": math.sqrt,
}


@dataclass(frozen=True)
class Length:
    """The same on every rank, since it follows from settings, manifest and the number of ranks."""

    epochs: int
    batch_size: int
    """Rows per step and rank."""
    peak: float
    """The learning rate after the warm-up."""


def length_of(settings: Training, data: Manifest, num_proc: int) -> Length:
    """Return the length of a training on ``num_proc`` ranks.

    With `batch_size: auto` the global batch follows from the rows, and the learning rate is that of the settings. A
    rank takes at least 16 rows, so many ranks make the batch larger. The rate grows with the square root of a batch
    that is larger than usual (Malladi et al. 2022: the rule that holds for Adam).
    """
    split, wanted = data.splits["train"], 0
    if settings.batch_size == "auto":
        wanted = _global_batch(split.rows)
        batch_size = max(_FEWEST_RANK_ROWS, -(-wanted // num_proc))
        usual = min(wanted, _USUAL_BATCH_ROWS)
        peak = settings.learning_rate * math.sqrt(max(1.0, batch_size * num_proc / usual))
    else:
        batch_size, peak = settings.batch_size, peak_learning_rate(settings, num_proc)
    if settings.epochs != "auto":
        return Length(settings.epochs, batch_size, peak)
    # by the batch that is wanted: as many epochs, however many ranks share it
    steps = -(-split.rows // (wanted or batch_size * num_proc))
    columns = len(data.numeric) + len(data.vocabularies)
    affordable = round(_STEPS * min(1.0, _COLUMNS / columns) / steps)
    return Length(min(_MOST_EPOCHS, max(_FEWEST_EPOCHS, affordable)), batch_size, peak)


def peak_learning_rate(settings: Training, num_proc: int) -> float:
    """Return the learning rate of a batch per rank after the warm-up, by `training.lr_scaling`."""
    return settings.learning_rate * LR_SCALINGS[settings.lr_scaling](num_proc)


def _global_batch(rows: int) -> int:
    """Return the rows of a step of all ranks: a power of two."""
    share = rows * _BATCH_SHARE if rows <= _LARGE else max(_USUAL_BATCH_ROWS, rows / 2_000)
    most = _USUAL_BATCH_ROWS if rows <= _LARGE else _MOST_BATCH_ROWS
    return int(min(most, max(_FEWEST_BATCH_ROWS, 2 ** round(math.log2(max(1.0, share))))))
