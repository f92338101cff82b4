"""The change of grid: adjoint, autodiff, and a band-limited image that lies where it should on both grids."""

from __future__ import annotations

import math

import pytest
import torch
from any2all.physics.measurements import Channel, Measurements
from any2all.physics.operators import MulticoilFourier
from any2all.physics.regrid import InPlaneChange, RegriddedFourier
from any2all.physics.solve import DataConsistency
from physics_builders import line_mask, random_maps, scattered_mask

SOURCE, TARGET = (14, 12), (10, 9)


def turned(angle: float, scale: tuple[float, float], shift: tuple[float, float]) -> torch.Tensor:
    """(2, 3) source indices of a target pixel, turned about the target's middle."""
    c, s = math.cos(angle), math.sin(angle)
    linear = torch.tensor([[c * scale[0], -s * scale[1]], [s * scale[0], c * scale[1]]], dtype=torch.float64)
    middle = torch.tensor([TARGET[0] / 2, TARGET[1] / 2], dtype=torch.float64)
    offset = torch.tensor([SOURCE[0] / 2 + shift[0], SOURCE[1] / 2 + shift[1]], dtype=torch.float64) - linear @ middle
    return torch.cat([linear, offset[:, None]], 1)


ONE = turned(0.2, (1.1, 0.9), (0.3, -0.7))[None]
MANY = torch.stack([turned(0.1, (1.0, 1.3), (0.2, 0.0)), turned(-0.3, (1.0, 1.3), (5.0, 2.5))])


def operator(maps: torch.Tensor, mask: torch.Tensor, map_slices: int) -> RegriddedFourier:
    return RegriddedFourier(
        InPlaneChange(maps, SOURCE, TARGET, torch.float64), MulticoilFourier(mask, random_maps(map_slices, 3, *TARGET))
    )


OPERATORS = {
    "one map": operator(ONE, line_mask(9), 1),
    "a map per slice": operator(MANY, line_mask(9), 2),
    "2-D mask": operator(MANY, scattered_mask(*TARGET), 1),
    "a slice without data": operator(ONE, torch.stack([torch.zeros(TARGET), torch.ones(TARGET)]), 1),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_adjoint_is_exact_and_the_gradient_of_autodiff(name):
    a = OPERATORS[name]
    x = torch.randn(2, *SOURCE, dtype=torch.float64, requires_grad=True)
    forward = a.forward(x)
    y = torch.randn_like(forward)
    product = (y.conj() * forward).sum().real
    product.backward()
    adjoint = a.adjoint(y)
    assert adjoint.shape == x.shape and not adjoint.is_complex()
    assert float(product.detach()) == pytest.approx(float((x.detach() * adjoint).sum()), rel=1e-10, abs=1e-10)
    torch.testing.assert_close(x.grad, adjoint, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", OPERATORS)
def test_rows_are_independent_and_can_be_selected(name):
    a = OPERATORS[name]
    x = torch.randn(2, *SOURCE, dtype=torch.float64)
    picked = torch.tensor([1, 0, 1])
    torch.testing.assert_close(a.select(picked).forward(x[picked]), a.forward(x)[picked])
    torch.testing.assert_close(a.forward(x[:1].expand(2, -1, -1)), a.forward(x[:1]).expand(2, -1, -1, -1))


@pytest.mark.parametrize("name", OPERATORS)
def test_rows_give_the_same_normal_operator(name):
    a = OPERATORS[name]
    by_rows = a.by_rows()
    assert (by_rows.rows is None) == (name == "2-D mask")
    x = torch.randn(2, *SOURCE, dtype=torch.float64)
    torch.testing.assert_close(by_rows.normal(x), a.adjoint(a.forward(x)), rtol=1e-10, atol=1e-12)
    picked = torch.tensor([1, 1, 0])
    torch.testing.assert_close(by_rows.select(picked).normal(x[picked]), a.normal(x)[picked], rtol=1e-10, atol=1e-12)


def test_a_smooth_image_lies_where_it_should():
    """A Gaussian blob and a wave of 4 pixels a period, sampled on both grids; and the same grid changes nothing."""
    source, target = (64, 56), (48, 50)
    maps = torch.tensor([[[1.05, -0.12, 8.3], [0.11, 0.95, 2.6]]], dtype=torch.float64)

    def image(places: torch.Tensor) -> torch.Tensor:
        h, w = places[..., 0] - 32, places[..., 1] - 28
        return torch.exp(-(h**2 + w**2) / 180) * (1 + 0.5 * torch.cos(2 * math.pi * (0.2 * h + 0.15 * w)))

    def lattice(shape: tuple[int, int]) -> torch.Tensor:
        return torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij"), -1)

    there = lattice(target) @ maps[0, :, :2].mT + maps[0, :, 2]
    found = InPlaneChange(maps, source, target, torch.float64).forward(image(lattice(source))[None])[0]
    error = float((found - image(there)).norm() / image(there).norm())
    print(f"interpolation error {error:.4f}")
    assert error < 0.01
    same = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])
    x = torch.randn(2, *source, dtype=torch.float64)
    torch.testing.assert_close(InPlaneChange(same, source, source, torch.float64).forward(x), x)


def test_the_solve_is_by_cg_and_right_in_prior_range():
    """x = 2u - 1 where the acquisition sees beyond the prior's field of view: u = 0 there, not 1/2."""
    maps = turned(0.1, (1.6, 1.6), (0.4, 0.2))[None]
    a = operator(maps, line_mask(9, 0.6), 1)
    u = torch.rand(2, *SOURCE, dtype=torch.float64)
    channel = Channel("undersampled", a, a.forward(u), 1e-3)
    inside = Measurements((channel,)).in_prior_range().channels[0]
    torch.testing.assert_close(inside.data, a.forward(2 * u - 1))
    consistency = DataConsistency(inside, iterations=500, tolerance=1e-10)
    assert not consistency.exact
    x0 = torch.zeros(2, *SOURCE, dtype=torch.float64)
    solved = consistency.proximal(x0, 30.0)
    torch.testing.assert_close(solved + 30.0 * a.normal(solved), 30.0 * a.adjoint(inside.data), rtol=1e-7, atol=1e-7)
