"""The std that is written: exact where it can be, calm where samples are few, and on any grid one slice's own."""

import numpy as np
import pytest
from any2all.geometry import Grid
from any2all.spread import WORTH, one_pixel, pooled_std


def drawn(count, sigma, seed=0):
    return sigma * np.random.default_rng(seed).normal(size=(count, *np.shape(sigma)))


def test_one_variance_everywhere_stays_what_it_is():
    np.testing.assert_allclose(pooled_std(np.full((3, 9, 9), 4.0), 2, (0, 1, 1)), 2.0, rtol=1e-6)


@pytest.mark.parametrize("count", [2, 4])
def test_few_samples_tell_the_std_better_with_their_neighbours(count):
    """The variance expected stays; its error falls to what some samples more would leave."""
    sigma = np.broadcast_to(np.linspace(0.5, 1.5, 60), (6, 60, 60))
    variance = drawn(count, sigma).var(axis=0, ddof=1)
    pooled = pooled_std(variance, count, (0, 1, 1)) ** 2
    assert pooled.mean() == pytest.approx((sigma**2).mean(), rel=0.03)
    alone, together = (np.square(found / sigma**2 - 1).mean() for found in (variance, pooled))
    assert alone == pytest.approx(2 / (count - 1), rel=0.15) and together < 0.35 * alone


def test_of_many_samples_each_pixel_is_taken_at_its_word():
    sigma = np.ones((1, 24, 24))
    sigma[:, :, 12:] = 3.0
    variance = np.square(sigma)
    many = pooled_std(variance, 100 * WORTH, (0, 1, 1))
    np.testing.assert_allclose(many, sigma, rtol=0.04)
    assert pooled_std(variance, 2, (0, 1, 1))[0, 0, 11] > 1.5


def test_slices_do_not_mix():
    variance = np.zeros((3, 8, 8))
    variance[1] = 1.0
    pooled = pooled_std(variance, 4, (0, 1, 1))
    assert not pooled[[0, 2]].any() and np.allclose(pooled[1], 1.0)


def grid(shape, columns):
    affine = np.eye(4)
    affine[:3, :3] = np.array(columns, float).T
    return Grid(shape, affine)


def test_the_gaussian_is_a_pixel_of_the_prior_wide_on_any_grid():
    """Axes of the frame: slices along z, H along y, W along x; a reference may order and space its own otherwise."""
    frame = grid((20, 80, 64), [(0, 0, 3.0), (0, 2.8, 0), (2.8, 0, 0)])
    assert one_pixel(frame, frame) == pytest.approx((0, 1, 1))
    isotropic = grid((160, 200, 180), [(0, 1.0, 0), (0, 0, -1.0), (-1.4, 0, 0)])
    assert one_pixel(isotropic, frame) == pytest.approx((2.8, 0, 2.0))
    tilt = np.deg2rad(2.0)
    tilted = grid((20, 80, 64), [(0, -3 * np.sin(tilt), 3 * np.cos(tilt)), (0, np.cos(tilt), np.sin(tilt)), (1, 0, 0)])
    across, *within = one_pixel(tilted, frame)
    assert across == 0 and within == pytest.approx([2.8, 2.8], rel=0.01)
