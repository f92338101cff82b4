"""The same field of view at two resolutions: intensity, position, noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from any2all.kspace.simulate import birdcage_maps
from any2all.physics.fourier import fft2c, ifft2c
from any2all.physics.grids import (
    Interpolate,
    centre_resize,
    fourier_crop,
    index_map,
    interpolation_matrix,
    matching_matrix,
    resize_coil_maps,
)
from any2all.physics.operators import MulticoilFourier


def head(shape: tuple[int, int]) -> torch.Tensor:
    """A smooth, lopsided head at physical positions: (index - n // 2) / n in both directions."""
    h, w = shape
    y = (torch.arange(h, dtype=torch.float64) - h // 2)[:, None] / h
    x = (torch.arange(w, dtype=torch.float64) - w // 2)[None] / w
    body = torch.sigmoid((0.32 - ((y / 1.1) ** 2 + x**2).sqrt()) * 60)
    blob = torch.exp(-(((y + 0.1) / 0.05) ** 2) - ((x - 0.12) / 0.06) ** 2)
    return 0.5 * body + 0.4 * blob


@pytest.mark.parametrize("shape", [(96, 80), (95, 81)])
@pytest.mark.parametrize("small", [(48, 40), (47, 41), (60, 50)])
def test_crop_preserves_intensity_and_position(shape, small):
    image = ifft2c(fourier_crop(fft2c(head(shape)), small)).real
    error = (image - head(small)).norm() / head(small).norm()
    assert error < 5e-3
    shifted = (image - head(small).roll(1, 1)).norm() / head(small).norm()
    assert error < 0.1 * shifted


@pytest.mark.parametrize(("shape", "small"), [((192, 192), (96, 96)), ((230, 180), (128, 100)), ((161, 150), (97, 80))])
def test_forward_on_the_small_grid_models_the_cropped_data(shape, small):
    maps = torch.from_numpy(birdcage_maps(shape, 8)).to(torch.complex128)
    data = fourier_crop(MulticoilFourier(torch.ones(shape), maps).forward(head(shape)[None]), small)
    model = MulticoilFourier(torch.ones(small), resize_coil_maps(maps, small)).forward(head(small)[None])
    error = (data - model).norm() / data.norm()
    print(f"{shape} -> {small}: relative error of the cropped model {error:.4f}")
    assert error < 0.01


def test_a_one_dimensional_mask_stays_so():
    mask = (torch.arange(64) % 4 == 0).double().expand(60, 64)
    cropped = centre_resize(mask, (40, 44))
    assert (cropped == cropped[:1]).all() and cropped[0].sum() == 11
    assert cropped[0, 22] == mask[0, 32]


def test_noise_keeps_its_scale_relative_to_the_crop():
    noise = torch.randn(4, 128, 128, dtype=torch.complex128)
    cropped = fourier_crop(noise, (64, 96))
    expected = (64 * 96 / (128 * 128)) ** 0.5
    assert cropped.abs().square().mean().sqrt() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize(("old", "new"), [(48, 96), (47, 96), (50, 81)])
def test_interpolation_puts_physical_points_where_they_belong(order, old, new):
    up = Interpolate((old, old), (new, new), order=order).forward(head((old, old)))
    error = (up - head((new, new))).norm() / head((new, new)).norm()
    assert error < (0.01 if order == 3 else 0.03)


def test_interpolation_reaches_through_another_field_of_view():
    # Prior grid 60 x 60 pixels; the acquisition spans 50 of them with 100 pixels.
    prior = centre_resize(head((50, 50)), (60, 60))
    up = Interpolate((60, 60), (100, 100), encoded=(50, 50)).forward(prior)
    assert (up - head((100, 100))).norm() / head((100, 100)).norm() < 0.01


def test_matrix_is_the_identity_on_equal_grids_and_exact_on_quadratics():
    torch.testing.assert_close(interpolation_matrix(9, 9), torch.eye(9, dtype=torch.float64))
    scale, offset = index_map(40, 64)
    old, new = torch.arange(40.0, dtype=torch.float64), scale * torch.arange(64.0, dtype=torch.float64) + offset
    inside = (new > 3) & (new < 36)
    result = interpolation_matrix(40, 64) @ (old**2 - 3 * old)
    np.testing.assert_allclose(result[inside], (new**2 - 3 * new)[inside], atol=1e-9)


def test_matrix_that_matches_a_spacing():
    assert matching_matrix((230.0, 180.0), (1.8, 1.8)) == (128, 100)
