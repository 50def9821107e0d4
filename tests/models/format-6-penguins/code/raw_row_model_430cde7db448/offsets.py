"""Wide numbers: those that float32 would merge are counted from an offset before they become float32.

float32 holds whole numbers up to 2^24, so that it holds neither a time in seconds nor a date like 20240131. It holds
their distance from an offset near their mean. Everything that feeds the network takes the distance by this function.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def relative(values: npt.NDArray[Any], offset: float) -> npt.NDArray[np.float32]:
    """Return float32(value - offset), subtracted in float64; with offset 0 each value's own float32.

    What is beyond float32 becomes infinite.
    """
    with np.errstate(over="ignore"):
        return (values.astype(np.float64) - offset if offset else values).astype(np.float32)
