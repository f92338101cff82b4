"""Adjointness of every operator, against autodiff and against SigPy."""

from __future__ import annotations

import numpy as np
import pytest
import sigpy.mri
import torch
from any2all.physics.fourier import fft2c, ifft2c
from any2all.physics.grids import Interpolate, centre_resize
from any2all.physics.operators import Identity, Missing, MulticoilFourier
from physics_builders import line_mask, random_maps, scattered_mask

OPERATORS = {
    "identity": (Identity(), (10, 9)),
    "missing": (Missing(), (10, 9)),
    "lines, shared maps": (MulticoilFourier(line_mask(9), random_maps(1, 3, 10, 9)), (10, 9)),
    "lines, maps per slice": (MulticoilFourier(line_mask(9), random_maps(2, 3, 10, 9)), (10, 9)),
    "2-D mask": (MulticoilFourier(scattered_mask(10, 9), random_maps(1, 3, 10, 9)), (10, 9)),
    "mask per slice": (
        MulticoilFourier(torch.stack([scattered_mask(10, 9, s) for s in (1, 2)]), random_maps(1, 3, 10, 9)),
        (10, 9),
    ),
    "image larger than field of view": (MulticoilFourier(line_mask(9), random_maps(1, 2, 10, 9), (13, 12)), (13, 12)),
    "image smaller than field of view": (MulticoilFourier(line_mask(9), random_maps(1, 2, 10, 9), (7, 10)), (7, 10)),
}


def inner(a: torch.Tensor, b: torch.Tensor) -> float:
    product = (a.conj() * b).sum()
    return float(product.real)


@pytest.mark.parametrize("name", OPERATORS)
def test_adjoint_is_exact(name):
    operator, shape = OPERATORS[name]
    x = torch.randn(2, *shape, dtype=torch.float64)
    forward = operator.forward(x)
    y = torch.randn_like(forward)
    adjoint = operator.adjoint(y)
    assert adjoint.shape == x.shape and not adjoint.is_complex()
    assert inner(forward, y) == pytest.approx(inner(x, adjoint), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("name", OPERATORS)
def test_adjoint_is_the_gradient_of_autodiff(name):
    operator, shape = OPERATORS[name]
    x = torch.randn(2, *shape, dtype=torch.float64, requires_grad=True)
    y = torch.randn_like(operator.forward(x.detach()))
    loss = (y.conj() * operator.forward(x)).sum()
    # The last term keeps the graph of A = 0, which does not depend on x.
    ((loss.real if loss.is_complex() else loss) + 0 * x.sum()).backward()
    torch.testing.assert_close(x.grad, operator.adjoint(y), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", OPERATORS)
def test_select_takes_the_slices(name):
    operator, shape = OPERATORS[name]
    x = torch.randn(2, *shape, dtype=torch.float64)
    picked = operator.select(torch.tensor([1, 0, 1])).forward(x[[1, 0, 1]])
    torch.testing.assert_close(picked, operator.forward(x)[[1, 0, 1]])


def test_the_fourier_transform_is_centred_and_orthonormal():
    for h, w in ((8, 9), (7, 6)):
        x = torch.randn(2, h, w, dtype=torch.complex128)
        torch.testing.assert_close(ifft2c(fft2c(x)), x)
        assert fft2c(x).norm() == pytest.approx(x.norm().item())
        flat = fft2c(torch.ones(h, w, dtype=torch.float64))
        assert flat[h // 2, w // 2].real == pytest.approx((h * w) ** 0.5)


def test_sense_operator_of_sigpy_agrees():
    mask, maps = scattered_mask(12, 10), random_maps(1, 4, 12, 10)
    theirs = sigpy.mri.linop.Sense(maps[0].numpy(), weights=mask.numpy())
    ours = MulticoilFourier(mask, maps)
    x = torch.randn(1, 12, 10, dtype=torch.float64)
    np.testing.assert_allclose(theirs(x[0].numpy() + 0j), ours.forward(x)[0].numpy(), atol=1e-10)
    y = torch.randn(1, 4, 12, 10, dtype=torch.complex128)
    np.testing.assert_allclose(theirs.H(y[0].numpy()).real, ours.adjoint(y)[0].numpy(), atol=1e-10)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("encoded", [None, (14, 11)])
def test_interpolation_has_its_exact_adjoint(order, encoded):
    u = Interpolate((12, 12), (23, 18), encoded, order)
    a, b = torch.randn(2, 12, 12, dtype=torch.float64), torch.randn(2, 23, 18, dtype=torch.float64)
    assert inner(u.forward(a), b) == pytest.approx(inner(a, u.adjoint(b)), rel=1e-12)


@pytest.mark.parametrize(("old", "new"), [((8, 9), (5, 12)), ((7, 6), (10, 3))])
def test_centre_resize_keeps_the_centre_and_is_its_own_adjoint(old, new):
    point = torch.zeros(old)
    point[old[0] // 2, old[1] // 2] = 1
    moved = centre_resize(point, new)
    assert moved.shape == new and moved[new[0] // 2, new[1] // 2] == 1
    a, b = torch.randn(old, dtype=torch.float64), torch.randn(new, dtype=torch.float64)
    assert inner(centre_resize(a, new), b) == pytest.approx(inner(a, centre_resize(b, old)))


def test_wrong_shapes_are_refused():
    maps = random_maps(1, 2, 6, 6)
    with pytest.raises(ValueError, match="mask must be"):
        MulticoilFourier(torch.ones(5), maps)
    with pytest.raises(ValueError, match="coil_maps must be complex"):
        MulticoilFourier(torch.ones(6), maps.real)
