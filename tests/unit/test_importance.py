"""Permutation importance: scikit-learn's numbers, for classes and for a number, whoever holds the rows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.inspection import permutation_importance
from sklearn.metrics import log_loss
from torch import Tensor, nn

from datasets import write_dataset
from pipeline.evaluation.bucket_sums import row_hash
from pipeline.evaluation.metrics import Importance
from pipeline.training import importance
from pipeline.training.importance import measure_importance
from pipeline.training.loader import MemoryShard

ROWS, REPEATS = 3000, 20


class OneRank:
    """A rank that is alone."""

    rank, size = 0, 1

    def add_up(self, vector: Tensor, name: str) -> Tensor:
        return vector


class Fixed(nn.Module):
    """A network whose answer is 2 a + b, or the logits of two classes; k counts for nothing."""

    def __init__(self, classes: bool) -> None:
        super().__init__()
        self.classes, self.none = classes, nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        answer = 2 * features[:, 0] + features[:, 1]
        return torch.stack([-answer, answer], dim=1) if self.classes else answer.unsqueeze(1)


class Estimator(BaseEstimator):  # type: ignore[misc]
    """The same for scikit-learn."""

    def __init__(self, classes: bool = False) -> None:
        self.classes, self.classes_ = classes, np.array([0, 1])

    def fit(self, features: Any, labels: Any) -> Estimator:
        return self

    def answers(self, features: Any) -> Any:
        outputs = Fixed(self.classes)(torch.from_numpy(features)).double()
        return (torch.softmax(outputs, dim=1) if self.classes else outputs.squeeze(1)).detach().numpy()


def table(classes: bool) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = np.c_[rng.standard_normal((ROWS, 2)), rng.integers(0, 3, ROWS)].astype(np.float32)
    answer = 2 * x[:, 0] + x[:, 1]
    if classes:
        return x, (rng.random(ROWS) < 1 / (1 + np.exp(-2 * answer))).astype(np.int64)
    return x, (answer + rng.standard_normal(ROWS)).astype(np.float32)


def measured(folder: Path, x: Any, y: Any, classes: bool, repeats: int = REPEATS) -> list[Importance]:
    data = write_dataset(folder, 2, 2, 1)
    if not classes:
        data = data.model_copy(update={"label": data.label.model_copy(update={"classes": [], "task": "regression"})})
    split = data.measured_split
    splits = {**data.splits, split: data.splits[split].model_copy(update={"rows": len(y)})}
    numeric = {"a": data.numeric["a"], "b": data.numeric["a"]}
    data = data.model_copy(update={"numeric": numeric, "splits": splits})
    config = SimpleNamespace(
        evaluation=SimpleNamespace(importance_repeats=repeats),
        training=SimpleNamespace(seed=0),
        features=SimpleNamespace(categorical=[SimpleNamespace(unknown="refuse")]),
        feature_columns=["a", "b", "k"],
    )
    shard = MemoryShard(torch.from_numpy(x.copy()), torch.from_numpy(y))
    task = SimpleNamespace(data=data, config=config)
    return measure_importance(cast(Any, Fixed(classes)), shard, cast(Any, task), cast(Any, OneRank()), 1.0)


@pytest.mark.parametrize("classes", [True, False], ids=["classes", "number"])
def test_the_numbers_are_scikit_learn_s(tmp_path: Path, classes: bool) -> None:
    x, y = table(classes)

    def score(model: Estimator, features: Any, labels: Any) -> float:
        answers = model.answers(features)
        return -(log_loss(labels, answers) if classes else float(np.sqrt(np.square(answers - labels).mean())))

    theirs = permutation_importance(Estimator(classes), x, y, scoring=score, n_repeats=REPEATS, random_state=1)
    ours = measured(tmp_path / "data", x, y, classes)
    assert [importance.feature for importance in ours] == ["a", "b", "k"]
    for position, found in enumerate(ours):
        # both are means of 20 random shuffles
        spread = float(theirs.importances_std[position]) / np.sqrt(REPEATS)
        assert found.growth == pytest.approx(theirs.importances_mean[position], abs=5 * spread + 1e-6)
        assert found.spread == pytest.approx(theirs.importances_std[position], rel=0.7, abs=1e-6)
    assert ours[2].growth == pytest.approx(0, abs=1e-6)
    assert measured(tmp_path / "again", x, y, classes) == ours


@pytest.mark.parametrize("bound", ["rows", "answers"])
def test_a_hash_chooses_the_rows_of_a_large_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    x, y = table(classes=False)
    monkeypatch.setattr(importance, "_FEWEST_ROWS", 100)
    if bound == "rows":
        monkeypatch.setattr(importance, "MOST_ROWS", 500)
    else:  # three features
        monkeypatch.setattr(importance, "MOST_ANSWERS", 500 * 3 * REPEATS)
    some = measured(tmp_path / "some", x, y, classes=False)
    chosen = (row_hash(torch.from_numpy(x), torch.from_numpy(y)) % 1_000_000 < 1_000_000 * 500 / ROWS).numpy()
    assert 400 < chosen.sum() < 600
    assert some == measured(tmp_path / "chosen", x[chosen], y[chosen], classes=False)


def test_without_repeats_or_rows_there_is_none(tmp_path: Path) -> None:
    x, y = table(classes=False)
    assert measured(tmp_path / "off", x, y, classes=False, repeats=0) == []
    assert measured(tmp_path / "none", x[:0], y[:0], classes=False) == []
