"""The gate's statistics: against known values, against simulation, and against a retrain every night."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binomtest, norm

from pipeline.config.tracking import Gate
from pipeline.evaluation.comparison import Bound, Paired, bound, level_of_try, mcnemar

Right = npt.NDArray[np.bool_]
"""(rows,) which answers are right."""


def of_accuracy(candidate: Right, champion: Right) -> Paired:
    better, worse = int((candidate & ~champion).sum()), int((champion & ~candidate).sum())
    return Paired(len(candidate), candidate.mean(), champion.mean(), better, worse, [])


def judged(candidate: Right, champion: Right, *, level: float = 0.05, limit: float = 0.0) -> Bound:
    return bound(of_accuracy(candidate, champion), limit, level, lower_is_better=False, is_count=True)


def drawn(rng: np.random.Generator, rows: int, accuracies: list[float], correlation: float) -> list[Right]:
    """Return models of these accuracies that err on the same hard rows, more or less."""
    hard = rng.standard_normal(rows)
    own = (rng.standard_normal(rows) for _ in accuracies)
    mixed = (math.sqrt(correlation) * hard + math.sqrt(1 - correlation) * noise for noise in own)
    return [value < norm.ppf(accuracy) for value, accuracy in zip(mixed, accuracies, strict=True)]


def test_mcnemar_is_scipy_s_binomial_test() -> None:
    for better, worse in ((0, 0), (1, 0), (5, 0), (12, 3), (30, 31)):
        expected = binomtest(better, better + worse, alternative="greater").pvalue if better + worse else 1.0
        assert mcnemar(better, worse) == pytest.approx(expected)


@pytest.mark.parametrize("rows", [100, 1000])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_an_equal_model_is_promoted_in_at_most_5_percent(rows: int, correlation: float) -> None:
    rng, draws = np.random.default_rng(1), 2000
    promoted = sum(judged(*drawn(rng, rows, [0.9, 0.9], correlation)).is_above for _ in range(draws))
    assert promoted / draws <= 0.05
    worse = sum(judged(*drawn(rng, rows, [0.88, 0.9], correlation)).is_above for _ in range(draws))
    assert worse / draws <= 0.025


def test_a_model_that_is_two_points_better_is_promoted_as_often_as_the_page_says() -> None:
    """On 1,000 rows, at the level of a first try: see `pipeline/tracking/README.md`."""
    rng, draws = np.random.default_rng(2), 1000
    shares = []
    for correlation in (0.0, 0.5, 0.8, 0.95):
        pairs = (drawn(rng, 1000, [0.92, 0.9], correlation) for _ in range(draws))
        shares.append(sum(judged(*pair, level=level_of_try(0.95, 1)).is_above for pair in pairs) / draws)
    assert shares == pytest.approx([0.34, 0.43, 0.61, 0.89], abs=0.05)


@pytest.mark.parametrize(("rows", "correlation"), [(200, 0.0), (1000, 0.0), (1000, 0.5), (1000, 0.8)])
def test_thirty_nights_of_equal_models_leave_an_honest_champion(rows: int, correlation: float) -> None:
    rng, months, biases = np.random.default_rng(3), 400, []
    for _ in range(months):
        first, *nights = drawn(rng, rows, [0.9] * 31, correlation)
        champion = first
        for attempt, candidate in enumerate(nights, 1):
            if judged(candidate, champion, level=level_of_try(0.95, attempt)).is_above:
                champion = candidate
        biases.append(champion.mean() - 0.9)
    standard_error = math.sqrt(0.9 * 0.1 / rows)
    assert np.mean(biases) <= 0.5 * standard_error


def test_the_levels_of_all_tries_together_are_the_promise() -> None:
    assert sum(level_of_try(0.95, n) for n in range(1, 100_000)) == pytest.approx(0.05, rel=1e-4)


Metric = Callable[[npt.NDArray[np.float64]], float]


def jackknifed(metric: Metric, candidate: npt.NDArray[np.float64], champion: npt.NDArray[np.float64]) -> Paired:
    """Return two models from the sums (rows, cells) of each row, in 100 buckets."""
    buckets = np.arange(len(candidate)) % 100
    sums = [np.array([model[buckets == b].sum(axis=0) for b in range(100)]) for model in (candidate, champion)]
    whole = [of_model.sum(axis=0) for of_model in sums]
    without = [metric(whole[0] - sums[0][b]) - metric(whole[1] - sums[1][b]) for b in range(100)]
    return Paired(len(candidate), metric(whole[0]), metric(whole[1]), 0, 0, without)


@pytest.mark.parametrize("rows", [300, 2000])
def test_the_jackknife_of_log_loss_and_rmse_promotes_equal_models_in_about_5_percent(rows: int) -> None:
    rng, draws = np.random.default_rng(4), 1000
    promoted = {"log_loss": 0, "rmse": 0}
    for _ in range(draws):
        x = rng.standard_normal(rows)
        y = rng.random(rows) < 1 / (1 + np.exp(-x))
        guesses = [1 / (1 + np.exp(-(x + 0.5 * rng.standard_normal(rows)))) for _ in range(2)]
        losses = [np.c_[-np.where(y, np.log(p), np.log(1 - p)), np.ones(rows)] for p in guesses]
        errors = [np.c_[(x + rng.standard_t(5, rows)) ** 2, np.ones(rows)] for _ in range(2)]
        for name, sums, metric in (
            ("log_loss", losses, lambda s: float(s[0] / s[1])),
            ("rmse", errors, lambda s: math.sqrt(s[0] / s[1])),
        ):
            result = bound(jackknifed(metric, *sums), 0.0, 0.05, lower_is_better=True, is_count=False)
            promoted[name] += result.is_above
    # 0.05 and three standard errors of a share of 1,000
    assert all(n / draws <= 0.071 for n in promoted.values()), promoted


def test_the_jackknife_of_a_mean_is_the_paired_t_test() -> None:
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(5)
    losses = [rng.random(100) + shift for shift in (0.0, 0.1)]
    sums = [np.c_[values, np.ones(100)] for values in losses]
    paired = jackknifed(lambda s: float(s[0] / s[1]), *sums)
    p = ttest_rel(losses[0], losses[1], alternative="less").pvalue
    for level, expected in ((p * 0.99, False), (p * 1.01, True)):
        assert bound(paired, 0.0, level, lower_is_better=True, is_count=False).is_above == expected


def test_not_worse_and_better_by_enough_are_bounds_of_the_difference() -> None:
    rng = np.random.default_rng(6)
    candidate, champion = drawn(rng, 5000, [0.9, 0.9], 0.5)
    assert judged(candidate, champion, limit=-0.05).is_above
    assert not judged(candidate, champion, limit=-0.001).is_above
    better, _ = drawn(rng, 5000, [0.99, 0.9], 0.5)
    assert judged(better, champion, limit=0.02).is_above
    assert not judged(better, champion, limit=0.092).is_above
    # few rows without a difference prove little
    same = np.full(30, True)
    assert not judged(same, same, limit=-0.01).is_above
    assert judged(np.full(3000, True), np.full(3000, True), limit=-0.01).is_above


def test_agresti_and_min_cover_the_difference() -> None:
    """Their interval holds the real difference of 0 in about 95 % of samples."""
    rng, draws = np.random.default_rng(7), 2000
    lowest = [judged(*drawn(rng, 200, [0.9, 0.9], 0.5), limit=-1.0).lowest for _ in range(draws)]
    assert np.mean(np.array(lowest) <= 0) == pytest.approx(0.95, abs=0.02)


def test_a_rule_needs_its_number() -> None:
    with pytest.raises(ValueError, match="rule not_worse needs a margin"):
        Gate(rule="not_worse")
    with pytest.raises(ValueError, match="rule better takes no margin"):
        Gate(margin=0.1)
    assert Gate(rule="not_worse", margin=0.01).margin == 0.01
