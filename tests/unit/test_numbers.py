"""Scaling and embedding of numbers: the values that the formulas give, and nothing that one column does to another."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from pipeline.config.features import NumericFeature
from pipeline.data.manifest import NumericStats
from pipeline.data.specs import _numeric_input
from pipeline.model.network import TabularNet
from pipeline.model.numbers import Numbers, PeriodicEmbedding
from pipeline.model.spec import NetSpec, NumericInput, Periodic


def stats(values: npt.NDArray[np.float64], offset: float = 0.0) -> NumericStats:
    """Return the statistics that the preparation would find."""
    return NumericStats(
        mean=values.mean(),
        std=values.std(),
        min=values.min(),
        max=values.max(),
        offset=offset,
        quantiles=np.quantile(values, np.linspace(0, 1, 513)).tolist(),
    )


def scaled(values: npt.NDArray[np.float64], asked: list[float], scaling: str, offset: float = 0.0) -> list[float]:
    """Return what the network takes of ``asked``, beside a plain column."""
    feature = NumericFeature.model_validate({"column": "a", "scaling": scaling})
    number = _numeric_input(feature, stats(values, offset))
    plain = NumericInput("b", 1.0, 2.0)
    spec = NetSpec((number, plain), (), (), 0.0, 1, 0.0, 1.0)
    net = TabularNet(spec)
    rows = torch.tensor([[np.float32(value - offset), 5.0] for value in asked])
    inputs = net._inputs(rows)
    assert inputs[:, 1].tolist() == [8.0] * len(asked)
    return [float(value) for value in inputs[:, 0]]


def test_robust_is_the_median_the_quartiles_and_a_smooth_clip() -> None:
    values = np.random.default_rng(0).exponential(3, 20_000)
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    asked = [0.0, middle, 5.0, 1e9]
    z = [(value - middle) / (high - low) for value in asked]
    expected = [x / math.sqrt(1 + (x / 3) ** 2) for x in z]
    assert scaled(values, asked, "robust") == pytest.approx(expected, rel=1e-5, abs=1e-6)
    # half of the values are equal: the quartiles are, too
    many = np.r_[np.zeros(900), np.arange(100)]
    assert scaled(many, [99.0], "robust") == pytest.approx([2 / math.sqrt(1 + 4 / 9)], rel=1e-6)


def test_quantile_makes_a_normal_distribution_of_any_values() -> None:
    values = np.exp(np.random.default_rng(0).normal(0, 2, 50_000))
    made = np.array(scaled(values, values[:5_000].tolist(), "quantile"))
    assert made.mean() == pytest.approx(0, abs=0.05)
    assert made.std() == pytest.approx(1, abs=0.05)
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        (level,) = scaled(values, [float(np.quantile(values, share))], "quantile")
        assert level == pytest.approx(NormalDist().inv_cdf(share), abs=0.02)
    ends = scaled(values, [-1e30, float(values.min()), float(values.max()), 1e30], "quantile")
    assert ends[0] == ends[1] == pytest.approx(-ends[2]) == pytest.approx(-ends[3])


def test_quantile_gives_equal_values_the_middle_of_their_ranks() -> None:
    values = np.r_[np.zeros(500), np.ones(250), np.full(250, 7.0)]
    levels = scaled(values, [0.0, 1.0, 7.0, 4.0], "quantile")
    expected = [NormalDist().inv_cdf(share) for share in (0.25, 0.625, 0.875)]
    assert levels[:3] == pytest.approx(expected, abs=0.02)
    assert levels[1] < levels[3] < levels[2]
    assert scaled(np.full(10, 3.0), [3.0, 9.0], "quantile") == [0.0, 0.0]


def test_quantile_of_a_wide_column_is_counted_from_its_offset() -> None:
    values = 1.7e9 + np.random.default_rng(0).normal(0, 1e4, 20_000)
    asked = np.quantile(values, [0.1, 0.5, 0.9]).tolist()
    expected = [NormalDist().inv_cdf(share) for share in (0.1, 0.5, 0.9)]
    assert scaled(values, asked, "quantile", offset=1.7e9) == pytest.approx(expected, abs=0.02)


def test_columns_with_few_and_many_knots_stand_side_by_side() -> None:
    few = NumericInput("a", 0.0, 1.0, knots=(0.0, 1.0), levels=(-1.0, 1.0))
    many = NumericInput("b", 0.0, 1.0, knots=(0.0, 1.0, 2.0, 10.0), levels=(-2.0, 0.0, 1.0, 3.0))
    one = NumericInput("c", 0.0, 1.0, knots=(5.0,), levels=(0.0,))
    rows = torch.tensor([[0.5, 1.5, 5.0], [2.0, 6.0, 9.0], [-1.0, -1.0, 1.0]])
    numbers = Numbers((few, many, one))
    assert numbers.bent(rows, rows).tolist() == [[0.0, 0.5, 0.0], [1.0, 2.0, 0.0], [-1.0, -2.0, 0.0]]


def test_the_periodic_embedding_is_the_formula_of_the_paper() -> None:
    torch.manual_seed(0)
    embed = PeriodicEmbedding(3, Periodic(frequencies=4, scale=0.5, width=2))
    x = torch.randn(6, 3)
    got = embed(x).reshape(6, 3, 2)
    for column in range(3):
        angles = 2 * math.pi * x[:, column : column + 1] * embed.frequencies[column]
        layer = nn.Linear(8, 2)
        layer.weight.data, layer.bias.data = embed.weight[column].T, embed.bias[column]
        expected = torch.relu(layer(torch.cat([angles.cos(), angles.sin()], dim=1)))
        assert torch.allclose(got[:, column], expected, atol=1e-6)
    assert embed(torch.empty(0, 3)).shape == (0, 6)


def test_a_periodic_network_learns_what_a_plain_one_cannot() -> None:
    x = torch.linspace(-2, 2, 400).unsqueeze(1)
    y = torch.sin(12 * x).squeeze(1)

    def error(periodic: Periodic | None) -> float:
        torch.manual_seed(0)
        net = TabularNet(NetSpec((NumericInput("a", 0.0, 1.0),), (), (16,), 0.0, 1, 0.0, 1.0, periodic=periodic))
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        for _ in range(300):
            optimizer.zero_grad()
            loss = (net(x).squeeze(1) - y).square().mean()
            loss.backward()
            optimizer.step()
        return float(loss.item())

    assert error(Periodic(24, 1.0, 12)) < 0.1 * error(None)
