"""The learning rate's path; the rest of worker.py is tested with real ranks in tests/horovod."""

from __future__ import annotations

import pytest

from pipeline.config import Training
from pipeline.training.components import warmed_up


@pytest.mark.parametrize(
    ("peak", "expected"),
    [
        (0.4, [0.175, 0.25, 0.325, 0.4, 0.4, 0.4]),  # scaled by 4 ranks: from the 1-rank rate up
        (0.1, [0.025, 0.05, 0.075, 0.1, 0.1, 0.1]),  # not scaled: from 0 up
    ],
)
def test_warm_up_rises_step_by_step(peak: float, expected: list[float]) -> None:
    settings = Training(learning_rate=0.1, warmup_epochs=2)
    rates = [warmed_up(settings, epoch, peak, steps=2)(step) for epoch in (1, 2, 3) for step in (0, 1)]
    assert rates == pytest.approx(expected)


def test_without_warm_up_the_rate_is_flat() -> None:
    assert warmed_up(Training(), epoch=1, peak=0.3, steps=5)(0) == 0.3
