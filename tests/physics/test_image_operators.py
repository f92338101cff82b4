"""Operators of degraded images: adjointness, solves against dense ones, and what slices of a known volume show."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from any2all.physics.image_operators import FWHM_PER_STD, SeparableBlur, VolumeMap
from any2all.physics.measurements import Channel, Measurements
from any2all.physics.solve import DataConsistency
from any2all.physics.thick_slices import thick_slice_weights
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

SHAPE, SPACING = (12, 9, 8), (2.0, 2.5, 2.5)


def index_change(target, spacing, slice_turn=(0, 0, 0), order=(0, 1, 2)) -> np.ndarray:
    """Source index of a target index, the two grids about one centre; ``order``: source axis of each target axis."""
    directions = Rotation.from_euler("xyz", slice_turn, degrees=True).as_matrix()[:, list(order)]
    change = np.eye(4)
    change[:3, :3] = directions * np.array(spacing) / np.array(SPACING)[:, None]
    change[:3, 3] = (np.array(SHAPE) - 1) / 2 - change[:3, :3] @ ((np.array(target) - 1) / 2)
    return change


def thick(target, spacing, slice_axis=0, profile="box", turn=(0, 0, 0), order=(0, 1, 2)) -> VolumeMap:
    change = index_change(target, spacing, turn, order)
    weights = thick_slice_weights(change, SHAPE, target, slice_axis, SPACING, profile)
    return VolumeMap(weights, SHAPE, target, torch.float64)


OPERATORS = {
    "blur": SeparableBlur(SHAPE, (1.5, 2.0, 3.0), torch.float64),
    "thick transverse slices": thick((4, 9, 8), (6.0, 2.5, 2.5)),
    "with a gaussian profile": thick((4, 9, 8), (6.0, 2.5, 2.5), profile="gaussian"),
    "tilted, with larger pixels": thick((4, 6, 5), (6.0, 4.0, 4.0), turn=(12, 5, 8)),
    "sagittal": thick((3, 9, 12), (6.0, 2.5, 2.0), turn=(3, 0, 2), order=(2, 1, 0)),
    "thick along the last axis": thick((12, 9, 3), (2.0, 2.5, 6.0), slice_axis=2),
}
each = pytest.mark.parametrize("name", OPERATORS)


def measured(operator, noise_std=0.05) -> tuple[Channel, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    u = torch.rand(1, *SHAPE, dtype=torch.float64, generator=generator)
    y = operator.forward(u)
    return Channel.degraded(operator, y + noise_std * torch.randn(y.shape, generator=generator), noise_std), u


@each
def test_adjoint_is_exact(name):
    x = torch.randn(3, *SHAPE, dtype=torch.float64)
    forward = OPERATORS[name].forward(x)
    y = torch.randn_like(forward)
    adjoint = OPERATORS[name].adjoint(y)
    assert adjoint.shape == x.shape
    assert float((forward * y).sum()) == pytest.approx(float((x * adjoint).sum()), rel=1e-10)


@each
def test_the_proximal_step_is_the_dense_solve(name):
    operator = OPERATORS[name]
    channel = Measurements((measured(operator)[0],)).in_prior_range().channels[0]
    size, gamma = math.prod(SHAPE), 40.0
    a = operator.forward(torch.eye(size, dtype=torch.float64).reshape(-1, *SHAPE)).flatten(1).T
    x0 = torch.randn(2, *SHAPE, dtype=torch.float64)
    rhs = x0.flatten(1) + gamma * (a.T @ channel.data.flatten())
    expected = torch.linalg.solve(torch.eye(size, dtype=torch.float64) + gamma * a.T @ a, rhs.T).T
    found = DataConsistency(channel, iterations=200, tolerance=1e-10).proximal(x0, gamma, torch.zeros(2).long())
    torch.testing.assert_close(found.flatten(1), expected, rtol=1e-6, atol=1e-7)


def test_errors_that_are_alike_along_z_are_the_dense_solve_in_their_metric():
    """(R^-1 + gamma A^T A) x = R^-1 x0 + gamma A^T y, R_ij = 0.6^|i - j| over the slices."""
    operator, gamma = OPERATORS["thick transverse slices"], 40.0
    channel = measured(operator)[0]
    index = torch.arange(SHAPE[0], dtype=torch.float64)
    along_z = torch.linalg.inv(0.6 ** (index[:, None] - index).abs()).contiguous()
    metric = torch.kron(along_z, torch.eye(SHAPE[1] * SHAPE[2], dtype=torch.float64))
    a = operator.forward(torch.eye(len(metric), dtype=torch.float64).reshape(-1, *SHAPE)).flatten(1).T
    x0 = torch.randn(1, *SHAPE, dtype=torch.float64)
    expected = torch.linalg.solve(
        metric + gamma * a.T @ a, metric @ x0.flatten() + gamma * a.T @ channel.data.flatten()
    )
    solver = DataConsistency(channel, iterations=200, tolerance=1e-10, slice_correlation=0.6)
    found = solver.proximal(x0, gamma, torch.zeros(1).long())
    torch.testing.assert_close(found.flatten(), expected, rtol=1e-6, atol=1e-7)


@each
def test_the_change_of_range_is_consistent(name):
    """y' = 2 y - A1 belongs to x = 2 u - 1, wherever the image ends."""
    channel, u = measured(OPERATORS[name], noise_std=1e-12)
    inside = Measurements((channel,)).in_prior_range().channels[0]
    torch.testing.assert_close(inside.operator.forward(2 * u - 1), inside.data, rtol=0, atol=1e-9)
    assert inside.variance == pytest.approx(2 * 1e-3**2), "noise is held at the least std"


def test_noise_of_a_real_image_is_not_split_over_two_parts():
    channel, _ = measured(OPERATORS["blur"], noise_std=0.05)
    assert channel.variance == pytest.approx(0.05**2)
    assert Measurements((channel,)).in_prior_range().channels[0].variance == pytest.approx(0.1**2)


@pytest.mark.parametrize("fwhm", [(1.5, 2.0, 3.0), (0.0, 4.0, 4.0), (9.0, 0.1, 1.0)])
def test_blur_is_the_gaussian_of_scipy(fwhm):
    volume = np.random.default_rng(0).random(SHAPE)
    expected = gaussian_filter(volume, np.array(fwhm) / FWHM_PER_STD, mode="reflect", truncate=4.0)
    blurred = SeparableBlur(SHAPE, fwhm, torch.float64).forward(torch.from_numpy(volume)[None])[0]
    torch.testing.assert_close(blurred, torch.from_numpy(expected), rtol=1e-4, atol=1e-4)


def test_thick_slices_that_nest_are_means_of_slices():
    x = torch.rand(1, *SHAPE, dtype=torch.float64)
    found = OPERATORS["thick transverse slices"].forward(x)
    torch.testing.assert_close(found, x.reshape(1, 4, 3, 9, 8).mean(2))


def test_slices_in_part_count_in_part():
    """Slices of 5 mm on voxels of 2 mm: the first of four reaches from 1/2 to 3 of them."""
    x = torch.rand(1, *SHAPE, dtype=torch.float64)
    found = thick((4, 9, 8), (5.0, 2.5, 2.5)).forward(x)[0]
    # the volume is 12 voxels long, the slices 10: they start one voxel from its end
    torch.testing.assert_close(found[0], (x[0, 1] + x[0, 2] + x[0, 3] / 2) / 2.5)
    torch.testing.assert_close(found[1], (x[0, 3] / 2 + x[0, 4] + x[0, 5]) / 2.5)


@pytest.mark.parametrize("name", ["tilted, with larger pixels", "sagittal", "thick along the last axis"])
def test_a_slope_is_seen_where_the_slices_lie(name):
    """A volume that rises along one axis, by one per voxel, is in every voxel's middle what its place says."""
    operator = OPERATORS[name]
    for axis in range(3):
        slope = torch.arange(SHAPE[axis], dtype=torch.float64).reshape([-1 if a == axis else 1 for a in range(3)])
        seen = operator.forward(slope.expand(1, *SHAPE))[0]
        places = {
            "tilted, with larger pixels": index_change((4, 6, 5), (6.0, 4.0, 4.0), (12, 5, 8)),
            "sagittal": index_change((3, 9, 12), (6.0, 2.5, 2.0), (3, 0, 2), (2, 1, 0)),
            "thick along the last axis": index_change((12, 9, 3), (2.0, 2.5, 6.0)),
        }[name]
        middle = np.array(seen.shape) // 2
        expected = float((places[:3, :3] @ middle + places[:3, 3])[axis])
        assert float(seen[tuple(middle)]) == pytest.approx(expected, abs=0.15)


def test_what_lies_beyond_the_outermost_slices_is_not_told():
    """Slices of the image above and below the prior's have no weights; constants are kept everywhere else."""
    operator = thick((8, 9, 8), (6.0, 2.5, 2.5))
    seen = operator.forward(torch.ones(1, *SHAPE, dtype=torch.float64))[0]
    assert torch.equal(seen[[0, 1, 6, 7]], torch.zeros(4, 9, 8, dtype=torch.float64))
    torch.testing.assert_close(seen[2:6], torch.ones(4, 9, 8, dtype=torch.float64))
