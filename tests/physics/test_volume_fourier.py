"""k-space of slices that cross the prior's: adjointness, its limits, and what it says of a known volume."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from any2all.physics.image_operators import VolumeMap
from any2all.physics.measurements import Channel, Measurements
from any2all.physics.operators import MulticoilFourier
from any2all.physics.solve import DataConsistency
from any2all.physics.thick_slices import thick_slice_weights
from any2all.physics.volume_fourier import VolumeFourier
from scipy.spatial.transform import Rotation

SHAPE, SPACING = (9, 10, 8), (3.0, 2.5, 2.5)
TRANSVERSE, SAGITTAL = (0, 1, 2), (2, 1, 0)  # source axis of slice, H and W


def volume_fourier(target, spacing, order=TRANSVERSE, turn=(0, 0, 0), profile="point", two_d=False) -> VolumeFourier:
    """Slices of ``target`` about the volume's centre, in double precision, three coils, every other line sampled."""
    directions = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()[:, list(order)]
    change = np.eye(4)
    change[:3, :3] = directions * np.array(spacing) / np.array(SPACING)[:, None]
    change[:3, 3] = (np.array(SHAPE) - 1) / 2 - change[:3, :3] @ ((np.array(target) - 1) / 2)
    weights = thick_slice_weights(change, SHAPE, target, 0, SPACING, profile)
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(target[0], 3, *target[1:], dtype=torch.complex128, generator=generator) / 3**0.5
    mask = torch.zeros(target[1:], dtype=torch.float64)
    mask[:, ::2], mask[:, target[2] // 2 - 1 : target[2] // 2 + 2] = 1, 1
    if two_d:
        mask[::3] = 0
    return VolumeFourier(VolumeMap(weights, SHAPE, target, torch.float64), MulticoilFourier(mask, maps))


OPERATORS = {
    "sagittal": volume_fourier((8, 10, 9), (2.5, 2.5, 3.0), SAGITTAL),
    "thin sagittal slices, turned": volume_fourier((14, 11, 9), (1.2, 2.5, 3.0), SAGITTAL, (8, -5, 12)),
    "thick coronal slices": volume_fourier((4, 9, 8), (6.0, 3.0, 2.5), (1, 0, 2), (3, 2, 4), "box"),
    "tilted by 30 degrees, 2-D mask": volume_fourier((7, 10, 9), (3.0, 2.5, 2.5), turn=(0, 30, 0), two_d=True),
}


@pytest.mark.parametrize("case", OPERATORS)
def test_adjoint_and_normal_are_exact(case):
    operator, generator = OPERATORS[case], torch.Generator().manual_seed(2)
    x = torch.randn(2, *SHAPE, dtype=torch.float64, generator=generator)
    ax = operator.forward(x)
    y = torch.randn(ax.shape, dtype=ax.dtype, generator=generator)
    one, other = (ax.conj() * y).real.sum(), (x * operator.adjoint(y)).sum()
    assert abs(one - other) < 1e-6 * abs(one)
    expected = operator.adjoint(ax)
    for found in (operator.normal(x), operator.by_rows().normal(x)):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert (operator.by_rows().rows is None) == ("2-D mask" in case)


def test_on_the_same_grid_it_is_the_operator_of_the_slices():
    operator = volume_fourier(SHAPE, SPACING)
    x = torch.randn(1, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(operator.forward(x)[0], operator.fourier.forward(x[0]), rtol=1e-9, atol=1e-9)
    y = operator.forward(x)
    torch.testing.assert_close(operator.adjoint(y)[0], operator.fourier.adjoint(y[0]), rtol=1e-9, atol=1e-9)
    by_volume = DataConsistency(Channel("undersampled", operator, y, 0.1), iterations=200, tolerance=1e-10)
    by_slice = DataConsistency(Channel("undersampled", operator.fourier, y[0], 0.1))
    x0 = torch.zeros_like(x)
    found, expected = by_volume.proximal(x0, 20.0), by_slice.proximal(x0[0], 20.0)
    torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("case", "correlation"), [("sagittal", 0.0), ("thick coronal slices", 0.6)])
def test_solves_are_the_dense_ones_in_the_prior_range(case, correlation):
    """(R^-1 + gamma A^H A) x = gamma A^H y about x0 = 0, R the covariance of neighbouring slices."""
    operator, gamma = OPERATORS[case], 30.0
    u = torch.rand(1, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    channel = Measurements((Channel("undersampled", operator, operator.forward(u), 0.02),)).in_prior_range().channels[0]
    torch.testing.assert_close(channel.data, operator.forward(2 * u - 1), rtol=1e-9, atol=1e-9)
    solver = DataConsistency(channel, iterations=500, tolerance=1e-10, slice_correlation=correlation)
    found = solver.proximal(torch.zeros(1, *SHAPE, dtype=torch.float64), gamma)[0].flatten()
    size = u.numel()
    basis = torch.eye(size, dtype=torch.float64)
    normal = operator.normal(basis.reshape(size, *SHAPE)).reshape(size, size)
    index = torch.arange(SHAPE[0], dtype=torch.float64)
    along_z = correlation ** (index[:, None] - index).abs()
    precision = torch.kron(torch.linalg.inv(along_z).contiguous(), torch.eye(size // SHAPE[0], dtype=torch.float64))
    expected = torch.linalg.solve(precision + gamma * normal, gamma * operator.adjoint(channel.data).flatten())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_thin_slices_are_interpolated_where_a_box_repeats_the_nearest_voxel():
    ramp = (0.1 * torch.arange(SHAPE[2], dtype=torch.float64)).expand(1, *SHAPE)
    errors = {}
    for profile in ("point", "box"):
        operator = volume_fourier((14, 10, 9), (1.2, 2.5, 3.0), SAGITTAL, profile=profile)
        found = operator.change.forward(ramp)[0, 3:-3, 4, 4].numpy()
        errors[profile] = np.abs(np.diff(found) - 0.1 * 1.2 / 2.5).max()
    assert errors["point"] < 1e-12 and errors["box"] > 0.01


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="does not fit slices"):
        VolumeFourier(OPERATORS["thick coronal slices"].change, OPERATORS["sagittal"].fourier)
