"""A category that no training row has gets a trained answer: some values are hidden, and only where that is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import UseCase
from datasets import write_dataset
from pipeline.training import hiding
from pipeline.training.hiding import Hiding


@pytest.mark.parametrize(
    ("feature", "found", "is_hidden"),
    [
        ({}, {}, True),
        ({}, {"other_in_training": {"k": 3}}, False),  # rare values train "other"
        ({}, {"missing_in_training": {"k": 3}}, True),
        ({"hash_buckets": 3}, {}, True),  # a missing value is "other", which no hash gives
        ({"hash_buckets": 3}, {"missing_in_training": {"k": 3}}, False),
        ({"hash_buckets": 3, "missing": "drop"}, {}, False),
        ({"unknown": "refuse"}, {}, True),
        ({"unknown": "refuse", "missing": "drop"}, {}, False),
    ],
)
def test_values_are_hidden_where_other_has_no_row_and_may_be_asked_for(
    use_case: UseCase, tmp_path: Path, feature: dict[str, Any], found: dict[str, Any], is_hidden: bool
) -> None:
    config = use_case(features={"numeric": ["a"], "categorical": [{"column": "k", **feature}]})
    data = write_dataset(tmp_path / "data", 20, 10, 1).model_copy(update=found)
    given = torch.stack([torch.arange(20_000.0), torch.arange(20_000.0) % 3], dim=1)
    torch.manual_seed(0)
    before, state = given.clone(), torch.get_rng_state()
    made = Hiding(config, data).hide(given)
    assert torch.equal(given, before)
    assert torch.equal(made[:, 0], given[:, 0])
    hidden = made[:, 1] != given[:, 1]
    assert set(made[hidden, 1].tolist()) == ({3.0} if is_hidden else set())
    assert hidden.float().mean().item() == pytest.approx(hiding.SHARE if is_hidden else 0, abs=0.003)
    if not is_hidden:  # other trainings draw the numbers that they drew before
        assert torch.equal(torch.get_rng_state(), state)
