"""Loss, optimizer and schedule are made by name; the whole training is tested with real ranks in tests/horovod."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn

from pipeline.config import Training
from pipeline.config.sections import Label
from pipeline.training.components import (
    LOSSES,
    LR_SCALINGS,
    OPTIMIZERS,
    make_optimizer,
    make_schedule,
    peak_learning_rate,
)


def test_every_name_that_the_settings_allow_has_its_line_in_a_table() -> None:
    assert set(LOSSES) == set(get_args(Label.model_fields["task"].annotation))
    assert set(OPTIMIZERS) == set(get_args(Training.model_fields["optimizer"].annotation))
    assert set(LR_SCALINGS) == set(get_args(Training.model_fields["lr_scaling"].annotation))


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_an_optimizer_is_made_by_name_with_its_settings(name: str, kind: type[torch.optim.Optimizer]) -> None:
    settings = Training.model_validate({"optimizer": name, "weight_decay": 0.3})
    optimizer = make_optimizer(settings, nn.Parameter(torch.zeros(3)), 0.2)
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"], group.get("momentum", 0.9)) == (0.2, 0.3, 0.9)


@pytest.mark.parametrize(("scaling", "peak"), [("none", 0.1), ("linear", 0.4), ("sqrt", 0.2)])
def test_the_learning_rate_grows_with_the_ranks(scaling: str, peak: float) -> None:
    settings = Training.model_validate({"learning_rate": 0.1, "lr_scaling": scaling})
    assert peak_learning_rate(settings, 4) == pytest.approx(peak)


@pytest.mark.parametrize(
    ("peak", "expected"),
    [
        (0.4, [0.175, 0.25, 0.325, 0.4, 0.4, 0.4]),  # scaled by 4 ranks: from the 1-rank rate up
        (0.1, [0.025, 0.05, 0.075, 0.1, 0.1, 0.1]),  # not scaled: from 0 up
    ],
)
def test_warm_up_rises_step_by_step(peak: float, expected: list[float]) -> None:
    schedule = make_schedule(Training(learning_rate=0.1, warmup_epochs=2), peak, steps_per_epoch=2)
    assert [schedule(step) for step in range(6)] == pytest.approx(expected)


def test_without_warm_up_the_rate_is_constant() -> None:
    schedule = make_schedule(Training(), peak=0.3, steps_per_epoch=5)
    assert [schedule(step) for step in (0, 1, 99)] == [0.3] * 3
