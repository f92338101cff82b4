"""The change of range happens once, and right."""

from __future__ import annotations

import pytest
import torch
from any2all.physics.measurements import MIN_NOISE_STD, Channel, Measurements
from any2all.physics.operators import MulticoilFourier
from physics_builders import kspace_channel, line_mask, random_maps


def measurements(noise_std: float = 0.05) -> tuple[Measurements, torch.Tensor]:
    u = torch.rand(3, 6, 8, dtype=torch.float64)
    operator = MulticoilFourier(line_mask(8), random_maps(3, 2, 6, 8), (6, 8))
    return (
        Measurements(
            (
                Channel.available(u),
                Channel.missing(),
                Channel("undersampled", operator, operator.forward(u), noise_std),
            )
        ),
        u,
    )


def test_data_in_prior_range_explain_the_image_in_prior_range():
    given, u = measurements()
    moved = given.in_prior_range()
    x = 2 * u - 1
    torch.testing.assert_close(moved.channels[0].data, x)
    assert moved.channels[1].data is None
    torch.testing.assert_close(moved.channels[2].data, moved.channels[2].operator.forward(x))


def test_variance_is_per_real_component_in_both_ranges():
    given, _ = measurements(noise_std=0.05)
    assert given.channels[2].variance == pytest.approx(0.05**2 / 2)
    assert given.in_prior_range().channels[2].variance == pytest.approx(2 * 0.05**2)


def test_the_range_changes_only_once_and_noise_has_a_floor():
    moved = measurements(noise_std=0.0)[0].in_prior_range()
    assert moved.in_prior_range() is moved
    assert moved.channels[2].noise_std == 2 * MIN_NOISE_STD


def test_status_and_selection():
    given, u = measurements()
    assert (given.available, given.missing, given.undersampled, given.slices) == ((0,), (1,), (2,), 3)
    picked = given.in_prior_range().select(torch.tensor([2, 0]))
    assert picked.prior_range and picked.slices == 2
    torch.testing.assert_close(picked.channels[2].operator.forward(2 * u[[2, 0]] - 1), picked.channels[2].data)


def test_a_shared_operator_with_another_field_of_view():
    operator = MulticoilFourier(line_mask(8), random_maps(1, 2, 6, 8), (9, 9))
    channel = kspace_channel(operator, 2, noise_std=0.0)
    moved = Measurements((channel,)).in_prior_range().channels[0]
    image = torch.rand(2, 9, 9, dtype=torch.float64)
    expected = 2 * operator.forward(image) - operator.forward(torch.ones(1, 9, 9, dtype=torch.float64))
    torch.testing.assert_close(operator.forward(2 * image - 1), expected)
    torch.testing.assert_close(moved.data - 2 * channel.data, operator.forward(-torch.ones(2, 9, 9).double()))
