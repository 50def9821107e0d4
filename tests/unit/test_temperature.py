"""Temperature scaling: the number that is fitted is the one that a general minimizer finds."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from datasets import write_dataset
from pipeline.training.loader import MemoryShard
from pipeline.training.temperature import fit_temperature


class Outputs(nn.Module):
    """A network whose outputs are the logits of two classes that its inputs hold."""

    def __init__(self) -> None:
        super().__init__()
        self.none = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        return torch.stack([features[:, 0], torch.zeros(len(features))], dim=1)


class OneRank:
    """A rank that is alone."""

    def add_up(self, vector: Tensor, name: str) -> Tensor:
        return vector


def fitted(folder: Path, logits: Tensor, labels: Tensor, refused: Tensor | None = None) -> float:
    data = write_dataset(folder / "data", 2, 2, 1)
    codes = torch.zeros(len(labels)) if refused is None else refused.float() * 3  # 3 is an unseen value
    features = SimpleNamespace(categorical=[SimpleNamespace(unknown="refuse")])
    config = SimpleNamespace(evaluation=SimpleNamespace(temperature=True), features=features)
    task = SimpleNamespace(data=data, config=config)
    shard = MemoryShard(torch.stack([logits.float(), codes], dim=1), labels)
    return fit_temperature(cast(Any, Outputs()), shard, cast(Any, task), cast(Any, OneRank()))


def sure(rows: int, sharpness: float) -> tuple[Tensor, Tensor]:
    """Return logits that are too sure by this factor, and labels."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(rows) * 2
    labels = (rng.random(rows) > 1 / (1 + np.exp(-x))).astype(np.int64)
    return torch.from_numpy(x * sharpness), torch.from_numpy(labels)


@pytest.mark.parametrize("sharpness", [0.25, 1.0, 4.0, 12.0])
def test_it_is_the_minimum_of_log_loss_and_prior(tmp_path: Path, sharpness: float) -> None:
    logits, labels = sure(5000, sharpness)
    z, is_second = logits.float().double().numpy(), labels.numpy()

    def objective(t: float) -> float:
        scaled = math.exp(-t) * z
        return float(np.logaddexp(0, np.where(is_second, scaled, -scaled)).sum() + t**2 / (2 * 0.5**2))

    best = minimize_scalar(objective, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}).x
    temperature = fitted(tmp_path, logits, labels)
    assert temperature == pytest.approx(math.exp(best), rel=1e-4)
    assert temperature == pytest.approx(sharpness, rel=0.15)


def test_few_rows_that_are_all_right_do_not_make_it_sure_of_everything(tmp_path: Path) -> None:
    logits = torch.full((60,), 4.0)
    assert 0.5 < fitted(tmp_path, logits, torch.zeros(60, dtype=torch.int64)) < 1


def test_rows_that_the_model_refuses_do_not_count(tmp_path: Path) -> None:
    logits, labels = sure(2000, 3.0)
    refused = torch.arange(2000) < 500
    wrong = torch.where(refused, 1 - labels, labels)
    assert fitted(tmp_path / "all", logits, wrong, refused) == fitted(tmp_path / "some", logits[500:], labels[500:])


def test_without_rows_it_is_1(tmp_path: Path) -> None:
    assert fitted(tmp_path, torch.zeros(0), torch.zeros(0, dtype=torch.int64)) == 1.0
