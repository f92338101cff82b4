"""Differences between slices and correlations against closed forms and scipy."""

import numpy as np
import pytest
from any2all.scores.flicker import correlation, flicker_scores, z_correlation, z_flicker
from scipy import stats

SHAPE = (12, 40, 40)
MASK = np.ones(SHAPE, bool)


def walk(seed=0, step=0.1):
    """A volume whose slices differ by independent N(0, step²)."""
    return np.cumsum(step * np.random.default_rng(seed).normal(size=SHAPE), axis=0)


def test_independent_noise_adds_two_variances():
    truth, noise = walk(), np.random.default_rng(1).normal(size=SHAPE)
    assert z_flicker(truth, truth, MASK) == 1.0
    assert z_flicker(2 * truth + 3, truth, MASK) == pytest.approx(2.0)
    # differences: 0.1² of the truth and twice 0.05² of the noise
    assert z_flicker(truth + 0.05 * noise, truth, MASK) == pytest.approx(np.sqrt(1 + 2 * 0.25), rel=0.01)
    # the same error in every slice does not flicker
    assert z_flicker(truth + noise[:1], truth, MASK) == pytest.approx(1.0)


def test_only_pixels_with_a_neighbour_inside_count():
    truth, volume = walk(), walk(1)
    mask = MASK.copy()
    mask[:, 20:] = mask[5] = False
    outside = np.where(mask, volume, 100.0)
    assert z_flicker(outside, truth, mask) == z_flicker(volume, truth, mask)
    pairs = [(z, z + 1) for z in range(11) if 5 not in (z, z + 1)]
    std = [np.std([image[b, :20] - image[a, :20] for a, b in pairs]) for image in (volume, truth)]
    assert z_flicker(volume, truth, mask) == pytest.approx(std[0] / std[1])


def test_correlations_agree_with_scipy():
    truth, volume = walk(), walk() + walk(1)
    mask = MASK.copy()
    mask[3:5, :7] = False
    assert correlation(volume, truth, mask) == pytest.approx(stats.pearsonr(volume[mask], truth[mask]).statistic)
    assert correlation(-truth, truth, mask) == pytest.approx(-1.0)
    # differences of the truth and as many of another walk
    assert z_correlation(volume, truth, MASK) == pytest.approx(np.sqrt(0.5), abs=0.01)


def test_the_mean_of_samples_is_calmer_than_they_are():
    truth = walk()
    samples = np.stack([truth + 0.1 * np.random.default_rng(k).normal(size=SHAPE) for k in range(1, 5)])
    found = flicker_scores(samples, truth, MASK)
    assert found.single == pytest.approx([np.sqrt(3)] * 4, rel=0.01)
    assert found.mean == pytest.approx(np.sqrt(1 + 2 / 4), rel=0.01)
    assert found.z_correlation == pytest.approx(1 / np.sqrt(1.5), abs=0.01) and found.correlation > found.z_correlation


def test_what_cannot_be_measured():
    truth, flat = walk(), np.full(SHAPE, 0.5)
    assert z_flicker(flat, truth, MASK) == 0.0 and z_flicker(truth, flat, MASK) is None
    assert correlation(flat, truth, MASK) is None and z_correlation(truth, flat, MASK) is None
    alternating = MASK.copy()
    alternating[::2] = False
    assert z_flicker(truth, truth, alternating) is None and z_correlation(truth, truth, alternating) is None
    assert correlation(truth, truth, ~MASK) is None and z_flicker(truth[:1], truth[:1], MASK[:1]) is None
