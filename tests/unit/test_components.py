"""Loss, optimizer and schedule are made by name; the whole training is tested with real ranks in tests/horovod."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast, get_args

import pytest
import torch
from torch import nn

from pipeline.config import Training
from pipeline.config.label import Label
from pipeline.model.network import TabularNet
from pipeline.model.spec import CategoricalInput, NetSpec, NumericInput, Periodic
from pipeline.training.components import (
    LOSSES,
    OPTIMIZERS,
    SCHEDULES,
    decaying,
    make_loss,
    make_optimizer,
    make_schedule,
)
from pipeline.training.length import LR_SCALINGS, Length, length_of, peak_learning_rate


def test_every_name_that_the_settings_allow_has_its_line_in_a_table() -> None:
    assert set(LOSSES) == set(get_args(Label.model_fields["task"].annotation))
    assert set(OPTIMIZERS) == set(get_args(Training.model_fields["optimizer"].annotation))
    assert set(SCHEDULES) == set(get_args(Training.model_fields["schedule"].annotation))
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
    schedule = make_schedule(Training(learning_rate=0.1, warmup_epochs=2), Length(9, 1, peak), steps_per_epoch=2)
    assert [schedule(step, []) for step in range(6)] == pytest.approx(expected)


def test_without_warm_up_the_rate_is_constant() -> None:
    schedule = make_schedule(Training(), Length(9, 1, 0.3), steps_per_epoch=5)
    assert [schedule(step, []) for step in (0, 1, 99)] == [0.3] * 3


def test_the_rate_falls_after_every_eight_epochs_without_a_lower_loss() -> None:
    schedule = make_schedule(Training(schedule="plateau"), Length(99, 1, 1.0), steps_per_epoch=3)
    losses = [5.0, 4.0, *[4.0] * 8, *[4.5] * 8, 3.0, *[3.5] * 7]
    rates = [schedule(3 * epoch, losses[:epoch]) for epoch in range(len(losses) + 1)]
    assert rates == pytest.approx([1.0] * 10 + [0.3] * 8 + [0.09] * 9)
    assert schedule(80, [*losses, 3.0]) == pytest.approx(0.027)  # the eighth epoch since the lowest


def test_the_cosine_falls_to_0_over_all_steps() -> None:
    schedule = make_schedule(Training(schedule="cosine"), Length(4, 1, 2.0), steps_per_epoch=5)
    rates = [schedule(step, []) for step in range(21)]
    assert rates == pytest.approx([1 + math.cos(math.pi * step / 20) for step in range(21)])


def test_one_cycle_is_torch_s() -> None:
    steps, peak = 200, 0.5
    schedule = make_schedule(Training(schedule="one_cycle"), Length(10, 1, peak), steps_per_epoch=20)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    # torch counts from the first step to the last one, and this project to the end of the last one
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, steps + 1, pct_start=60 / (steps + 1) + 1e-9)
    for step in range(steps):
        assert schedule(step, []) == pytest.approx(theirs.get_last_lr()[0], abs=0.02 * peak)
        optimizer.step()
        theirs.step()
    assert schedule(60, []) == pytest.approx(peak)


def test_biases_and_learned_vectors_do_not_decay() -> None:
    spec = NetSpec(
        numeric=(NumericInput("a", 0.0, 1.0),),
        categorical=(CategoricalInput("k", "embedding", 3, 2),),
        hidden_sizes=(4,),
        dropout=0.0,
        outputs=2,
        label_mean=0.0,
        label_std=1.0,
        periodic=Periodic(5, 0.1, 3),
    )
    net = TabularNet(spec)
    names, sizes = zip(*[(name, parameter.numel()) for name, parameter in net.named_parameters()], strict=True)
    marks = dict(zip(names, torch.split(decaying(net), list(sizes)), strict=True))
    matrices = {"periodic.weight", "layers.0.weight", "layers.2.weight"}
    assert {name: {mark.item() for mark in part} for name, part in marks.items()} == {
        name: {float(name in matrices)} for name in names
    }


def test_adamw_lets_only_the_marked_weights_decay() -> None:
    settings = Training.model_validate({"optimizer": "adamw", "weight_decay": 0.5})
    marks, start, gradient = torch.tensor([1.0, 0.0]), torch.tensor([2.0, 2.0]), torch.tensor([0.3, 0.3])
    ours, theirs, still = (nn.Parameter(start.clone()) for _ in range(3))
    pairs = [
        (ours, make_optimizer(settings, ours, 0.1, marks)),
        (theirs, torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.5)),
        (still, torch.optim.AdamW([still], lr=0.1, weight_decay=0.0)),
    ]
    for _ in range(3):
        for parameter, optimizer in pairs:
            parameter.grad = gradient.clone()
            optimizer.step()
    assert ours[0].item() == theirs[0].item()
    assert ours[1].item() == still[1].item()


def test_label_smoothing_is_torch_s_and_validation_has_none() -> None:
    spec = SimpleNamespace(label_std=1.0)
    outputs, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    smooth = make_loss("classification", cast(Any, spec), 0.1)(outputs, labels)
    assert torch.equal(smooth, nn.CrossEntropyLoss(reduction="none", label_smoothing=0.1)(outputs, labels))
    plain = nn.CrossEntropyLoss(reduction="none")(outputs, labels)
    assert torch.equal(make_loss("classification", cast(Any, spec))(outputs, labels), plain)
    assert not torch.equal(plain, smooth)


def rows_of(rows: int, columns: int, num_proc: int) -> Any:
    share = [-(-rows // num_proc)] * num_proc
    split = SimpleNamespace(rows=rows, shard_rows=lambda ranks: share)
    return SimpleNamespace(splits={"train": split}, numeric=dict.fromkeys(range(columns)), vocabularies={})


AUTO = Training.model_validate({"batch_size": "auto", "epochs": "auto", "learning_rate": 0.01, "lr_scaling": "linear"})


@pytest.mark.parametrize(
    ("rows", "global_batch"),
    [(200, 64), (10_000, 128), (50_000, 512), (900_000, 512), (4_000_000, 2_048), (10**9, 8_192)],
)
@pytest.mark.parametrize("num_proc", [1, 2, 4])
def test_a_batch_by_the_rows_is_shared_by_the_ranks(rows: int, global_batch: int, num_proc: int) -> None:
    length = length_of(AUTO, rows_of(rows, 10, num_proc), num_proc)
    assert length.batch_size == global_batch // num_proc
    assert length.peak == pytest.approx(0.01 * max(1, global_batch / 512) ** 0.5)


def test_many_ranks_do_not_raise_the_rate_of_a_batch_by_the_rows() -> None:
    length = length_of(AUTO, rows_of(10_000, 10, 64), 64)
    assert length.batch_size == 16
    assert length.peak == pytest.approx(0.01 * (16 * 64 / 128) ** 0.5)


def test_the_epochs_follow_from_rows_and_columns() -> None:
    few, many, wide = (length_of(AUTO, rows_of(*shape, 2), 2) for shape in [(300, 5), (230_000, 5), (230_000, 200)])
    assert (few.epochs, many.epochs, wide.epochs) == (200, 33, 8)
    given = length_of(Training(epochs=3, batch_size=7, learning_rate=0.1), rows_of(300, 5, 4), 4)
    assert (given.epochs, given.batch_size) == (3, 7)
    assert given.peak == pytest.approx(0.4)
