"""Spread against error where both are known: Gaussian samples exchangeable with the truth, and samples too sure."""

import numpy as np
import pytest
from any2all.errors import Any2allError
from any2all.scores.uncertainty import (
    Bin,
    coverage,
    error_by_std,
    exact_spread_ratio,
    held_by,
    is_monotone,
    rank_correlation,
    scale_for_coverage,
    spread_ratio,
)
from scipy import stats

SHAPE = (4, 80, 80)
EVERYWHERE = np.ones(SHAPE, bool)


def toy(count, sure=1.0, seed=0):
    """Samples (K, ...) and truth: N(m, σ²) each, σ from 0.01 to 0.1 across; the samples' σ is ``sure`` times that."""
    rng = np.random.default_rng(seed)
    centre, sigma = rng.uniform(size=SHAPE), np.broadcast_to(np.linspace(0.01, 0.1, SHAPE[2]), SHAPE)
    return centre + sure * sigma * rng.normal(size=(count, *SHAPE)), centre + sigma * rng.normal(size=SHAPE)


@pytest.mark.parametrize("count", [2, 4, 16])
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_exchangeable_samples_cover_as_they_say(count, level):
    found = coverage(*toy(count), EVERYWHERE, level)
    assert found.normal == pytest.approx(level, abs=0.01) and found.level == level
    assert found.ranked == pytest.approx(found.ranked_level, abs=0.01) and found.pixels == EVERYWHERE.sum()


@pytest.mark.parametrize("count", [4, 8, 16])
def test_antithetic_pairs_cover_nearly_as_exchangeable_samples_do(count):
    samples, truth = toy(count // 2)
    mean = toy(1, sure=0.0)[0][0]
    pairs = np.concatenate([samples, 2 * mean - samples])
    assert coverage(pairs, truth, EVERYWHERE).normal == pytest.approx(0.9, abs=0.015)


def test_the_ranked_interval_needs_no_normal_distribution():
    rng = np.random.default_rng(1)
    values = rng.exponential(size=(17, *SHAPE))
    found = coverage(values[1:], values[0], EVERYWHERE)
    assert found.ranked_level == pytest.approx(15 / 17)  # from the lowest to the highest of 16
    assert found.ranked == pytest.approx(15 / 17, abs=0.01)
    assert coverage(values[1:], values[0], EVERYWHERE, 0.5).ranked_level == pytest.approx(1 - 2 * 4 / 17)


def test_halved_spread_covers_as_students_t_says():
    samples, truth = toy(16)
    mean = samples.mean(axis=0)
    halved = mean + 0.5 * (samples - mean)
    t = stats.t.ppf(0.95, 15)
    expected = 1 - 2 * stats.t.sf(t / 2, 15)
    assert coverage(halved, truth, EVERYWHERE).normal == pytest.approx(expected, abs=0.01)


def test_a_std_that_is_known_covers_as_a_normal_distribution_says():
    samples, truth = toy(400)
    exact = np.broadcast_to(np.linspace(0.01, 0.1, SHAPE[2]), SHAPE)
    for level in (0.5, 0.9):
        assert held_by(samples, truth, EVERYWHERE, exact, level) == pytest.approx(level, abs=0.01)
    assert held_by(samples, truth, EVERYWHERE, exact / 2) == pytest.approx(1 - 2 * stats.norm.sf(1.645 / 2), abs=0.01)
    assert scale_for_coverage(samples, truth, EVERYWHERE, exact / 2) == pytest.approx(2.0, abs=0.04)


def test_the_scale_agrees_with_bisection():
    samples, truth = toy(6, sure=0.7)
    std = samples.std(axis=0, ddof=1)
    low, high = 0.1, 10.0
    for _ in range(30):
        middle = 0.5 * (low + high)
        enough = held_by(samples, truth, EVERYWHERE, middle * std, 0.8) >= 0.8
        low, high = (low, middle) if enough else (middle, high)
    assert scale_for_coverage(samples, truth, EVERYWHERE, std, 0.8) == pytest.approx(high, abs=1e-6)


@pytest.mark.parametrize("count", [2, 4, 16])
def test_the_spread_ratio_of_exact_samples(count):
    samples, truth = toy(count)
    assert spread_ratio(samples, truth, EVERYWHERE) == pytest.approx(exact_spread_ratio(count), rel=0.03)
    assert spread_ratio(*toy(count, sure=0.5), EVERYWHERE) < 0.65 * exact_spread_ratio(count)


def test_bins_agree_with_scipy():
    samples, truth = toy(8)
    mask = EVERYWHERE.copy()
    mask[:, :10] = False
    bins = error_by_std(samples, truth, mask)
    std, squared = samples.std(axis=0, ddof=1)[mask], ((samples.mean(axis=0) - truth) ** 2)[mask]
    edges = np.quantile(std, np.linspace(0, 1, 11))
    expected = stats.binned_statistic(std, squared, "mean", edges).statistic
    assert [b.error for b in bins] == pytest.approx(np.sqrt(expected), rel=1e-2)
    assert len(bins) == 10 and sum(b.pixels for b in bins) == mask.sum()
    assert max(b.pixels for b in bins) - min(b.pixels for b in bins) <= 1
    assert bins[0].std < 0.015 < 0.09 < bins[-1].std
    assert is_monotone(bins) and rank_correlation(bins) == pytest.approx(1.0)


def test_samples_that_know_nothing_of_their_error_are_not_monotone():
    rng = np.random.default_rng(2)
    samples, _ = toy(8)
    truth = samples.mean(axis=0) + 0.05 * rng.normal(size=SHAPE)
    assert not is_monotone(error_by_std(samples, truth, EVERYWHERE))


def test_the_tolerance_of_monotony():
    swapped = [Bin(i, e, 1) for i, e in enumerate([1, 2, 3, 4, 6, 5, 7, 8, 9, 10])]
    assert rank_correlation(swapped) == pytest.approx(1 - 6 * 2 / (10 * 99))
    assert not is_monotone(swapped) and is_monotone(swapped, 0.02) and not is_monotone(swapped, 0.01)
    assert is_monotone([Bin(1, 1, 1), Bin(2, 2, 1)]) and not is_monotone([Bin(1, 2, 1), Bin(2, 1, 1)], 0.5)
    assert rank_correlation([Bin(1, 1, 1)]) is None and not is_monotone([Bin(1, 1, 1), Bin(2, 1, 1)])


def test_one_std_everywhere_is_one_bin():
    samples = np.stack([np.zeros(SHAPE), np.ones(SHAPE)])
    (only,) = error_by_std(samples, np.full(SHAPE, 0.75), EVERYWHERE)
    assert only == Bin(pytest.approx(np.sqrt(0.5)), pytest.approx(0.25), EVERYWHERE.sum())


def test_samples_that_agree():
    constant, truth, none = np.full((3, *SHAPE), 0.5), np.full(SHAPE, 0.5), np.zeros(SHAPE)
    right = coverage(constant, truth, EVERYWHERE)
    assert right.normal == right.ranked == 1.0 and scale_for_coverage(constant, truth, EVERYWHERE, none) == 0.0
    assert spread_ratio(constant, truth, EVERYWHERE) is None
    wrong = coverage(constant, truth + 0.25, EVERYWHERE)
    assert wrong.normal == wrong.ranked == 0.0 and scale_for_coverage(constant, truth + 0.25, EVERYWHERE, none) is None
    assert spread_ratio(constant, truth + 0.25, EVERYWHERE) == 0.0


def test_an_empty_mask_and_too_few_samples():
    samples, truth = toy(2)
    nowhere = ~EVERYWHERE
    assert error_by_std(samples, truth, nowhere) == [] and coverage(samples, truth, nowhere) is None
    std = samples.std(axis=0)
    assert spread_ratio(samples, truth, nowhere) is None and scale_for_coverage(samples, truth, nowhere, std) is None
    assert held_by(samples, truth, nowhere, std) is None
    with pytest.raises(Any2allError, match="two samples"):
        coverage(samples[:1], truth, EVERYWHERE)
    with pytest.raises(Any2allError, match="differ in shape"):
        error_by_std(samples, truth[:1], EVERYWHERE)
