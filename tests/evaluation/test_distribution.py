"""FID and KID against closed forms, MONAI, a naive loop and their own expectation."""

import numpy as np
import pytest
import torch
from any2all.errors import Any2allError
from any2all.evaluation.distribution import FID, KID, fid, frechet_distance, kid
from monai.metrics.fid import get_fid_score
from scipy import linalg


def gaussian(n, d=6, seed=0, mean=0.0, std=1.0):
    return mean + std * np.random.default_rng(seed).normal(size=(n, d))


def with_moments(x, mean, covariance):
    """Features whose sample mean and covariance are exactly these."""
    centred = x - x.mean(axis=0)
    white = centred @ np.linalg.inv(linalg.sqrtm(np.cov(centred, rowvar=False)).real)
    return white @ linalg.sqrtm(covariance).real + mean


def test_fid_of_gaussians_with_known_moments():
    """Commuting covariances: Σ (sqrt(a) - sqrt(b))² of the eigenvalues, beside the means."""
    a, b = np.array([4.0, 1.0, 0.25]), np.array([1.0, 1.0, 1.0])
    turn, _ = np.linalg.qr(gaussian(3, 3, 5))
    x = with_moments(gaussian(50, 3, 1), np.zeros(3), turn @ np.diag(a) @ turn.T)
    y = with_moments(gaussian(50, 3, 2), np.array([1.0, 2.0, 0.0]), turn @ np.diag(b) @ turn.T)
    found = fid(x, y)
    assert found.value == pytest.approx(5 + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()) and found.n == 50
    assert fid(x, x).value == pytest.approx(0, abs=1e-9)


def test_fid_agrees_with_monai_and_scipy():
    mix = gaussian(6, 6, 3)
    x, y = gaussian(300, seed=1) @ mix, gaussian(300, seed=2, mean=0.3) @ mix.T
    expected = float(get_fid_score(torch.from_numpy(x), torch.from_numpy(y)))
    assert fid(x, y).value == pytest.approx(expected, rel=1e-4)
    covariances = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    means = x.mean(axis=0), y.mean(axis=0)
    by_scipy = ((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(means[0], covariances[0], means[1], covariances[1]) == pytest.approx(by_scipy)


def test_fid_with_fewer_images_than_features_is_finite_and_needs_equal_numbers():
    few = fid(gaussian(5, 40), gaussian(5, 40, 1))
    assert np.isfinite(few.value) and few.value > 0 and str(FID(1.234, 5)) == "1.23 (N = 5)"
    with pytest.raises(Any2allError, match="as many images"):
        fid(gaussian(5), gaussian(6))


def naive(x, y, groups_x, groups_y):
    def mean(a, b, names_a, names_b):
        pairs = [(u, v) for u, p in zip(a, names_a) for v, q in zip(b, names_b) if p != q]
        return np.mean([(u @ v / len(u) + 1) ** 3 for u, v in pairs])

    within = mean(x, x, groups_x, groups_x) + mean(y, y, groups_y, groups_y)
    return within - 2 * mean(x, y, groups_x, groups_y)


def test_kid_agrees_with_a_naive_loop():
    x, y = gaussian(12), gaussian(9, seed=1, mean=0.4)
    found = kid(x, y)
    assert found.value == pytest.approx(naive(x, y, range(12), range(100, 109)))
    assert (found.n, found.n_reference) == (12, 9)
    names_x, names_y = [i % 4 for i in range(12)], [i % 3 for i in range(9)]
    assert kid(x, y, names_x, names_y).value == pytest.approx(naive(x, y, names_x, names_y))


def test_kid_of_a_shifted_gaussian_in_one_dimension():
    """k = (xy + 1)³ of N(0, 1) and N(m, 1): the squared distances of the first three moments, weighted 3, 3, 1."""
    m, n = 0.5, 1000
    found = kid(gaussian(n, 1), gaussian(n, 1, 1, mean=m), subsets=20)
    moments = np.array([m, (1 + m**2) - 1, (m**3 + 3 * m) - 0])
    expected = (np.array([3, 3, 1]) * moments**2).sum()
    assert abs(found.value - expected) < 4 * found.error and found.error < 0.3 * expected


def test_kid_of_equal_distributions_is_zero_on_average_and_its_error_is_honest():
    draws = [kid(gaussian(40, 8, 2 * i), gaussian(40, 8, 2 * i + 1), subsets=30, seed=i) for i in range(120)]
    values = np.array([d.value for d in draws])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(len(values))
    assert (values < 0).any() and (values > 0).any()
    # degenerate at equality, where halves scatter more than the theory of their root: never less
    assert np.mean([d.error for d in draws]) > 0.9 * values.std()


def test_groups_of_like_images_do_not_make_equal_sets_look_apart():
    """Five near copies of each of 16 images: pairs within a group would make either set look apart from the other."""
    apart, blind = [], []
    names = np.arange(16).repeat(5)
    for i in range(150):
        x, y = (gaussian(16, 6, 2 * i + j).repeat(5, axis=0) + 0.1 * gaussian(80, 6, 7000 + 2 * i + j) for j in (0, 1))
        apart.append(kid(x, y, [f"x{k}" for k in names], [f"y{k}" for k in names], subsets=2).value)
        blind.append(kid(x, y, subsets=2).value)
    error = np.std(apart) / np.sqrt(len(apart))
    assert abs(np.mean(apart)) < 3 * error and np.mean(blind) > 5 * error


def test_what_kid_cannot_do():
    assert str(KID(0.0123, 0.002, 200, 200)) == "12 ± 2"
    with pytest.raises(Any2allError, match="two groups"):
        kid(gaussian(4), gaussian(4), [1, 1, 1, 1], [1, 2, 3, 4])
    with pytest.raises(Any2allError, match="as many groups"):
        kid(gaussian(4), gaussian(4), [1, 2], None)
    assert np.isnan(kid(gaussian(4), gaussian(4), [1, 1, 2, 2], [3, 3, 4, 4]).error)
