"""The operator of radial and spiral samples: against the sum itself, the Cartesian FFT, SigPy, its Toeplitz form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sigpy.mri.linop
import torch
from any2all.kspace.trajectory import radial_trajectory
from any2all.physics.cg import conjugate_gradient
from any2all.physics.fourier import fft2c
from any2all.physics.grids import centre_resize
from any2all.physics.measurements import Channel
from any2all.physics.noncartesian import NonCartesianFourier
from any2all.physics.regrid import InPlaneChange, RegriddedFourier
from any2all.physics.solve import DataConsistency
from physics_builders import random_maps

MATRIX = (12, 10)
SPOKES = torch.from_numpy(radial_trajectory(MATRIX, 3).reshape(-1, 2))
# SigPy's NUFFT with a kernel of 6 on a grid of twice the size; its defaults are wrong by 7e-3.
NUFFT_ERROR = 3e-5


def operator_of(slices: int = 1, image_shape: tuple[int, int] | None = None) -> NonCartesianFourier:
    return NonCartesianFourier(SPOKES, random_maps(slices, 3, *MATRIX), image_shape)


OPERATORS = {
    "shared maps": operator_of(),
    "maps per slice": operator_of(2),
    "image larger than field of view": operator_of(1, (15, 12)),
    "image smaller than field of view": operator_of(1, (8, 9)),
    "another grid": RegriddedFourier(
        InPlaneChange(torch.tensor([[[1.1, 0.1, -0.5], [-0.1, 0.9, 0.3]]]), (14, 11), MATRIX, torch.float64),
        operator_of(2),
    ),
}


def images(operator, slices: int = 2) -> torch.Tensor:
    return torch.randn(slices, *operator.image_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def exact(x: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """1/sqrt(H W) sum_n x[n] exp(-2 pi i k . (n - N // 2) / N) of ``(..., H, W)``, written out."""
    waves = [
        torch.exp(-2j * math.pi * points[:, axis, None] * (torch.arange(n) - n // 2) / n)
        for axis, n in enumerate(x.shape[-2:])
    ]
    return torch.einsum("nh,...hw,nw->...n", waves[0], x, waves[1]) / math.sqrt(x.shape[-1] * x.shape[-2])


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("name", OPERATORS)
def test_adjoint_is_exact_and_the_gradient_of_autodiff(name):
    operator = OPERATORS[name]
    x = images(operator).requires_grad_(True)
    forward = operator.forward(x)
    y = torch.randn_like(forward)
    adjoint = operator.adjoint(y)
    product = (forward.conj() * y).sum().real
    assert float(product) == pytest.approx(float((x * adjoint).sum()), rel=1e-10)
    product.backward()
    torch.testing.assert_close(x.grad, adjoint, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_toeplitz_form_is_adjoint_after_forward(name):
    operator = OPERATORS[name]
    x = images(operator)
    difference = relative(operator.normal(x), operator.adjoint(operator.forward(x)))
    print(f"{name}: Toeplitz against NUFFT {difference:.1e}")
    assert difference < NUFFT_ERROR


def test_samples_are_the_fourier_sum():
    operator = operator_of(2)
    x = images(operator)
    difference = relative(operator.forward(x), exact(operator.coil_maps * x[:, None], SPOKES))
    print(f"NUFFT against the sum {difference:.1e}")
    assert difference < NUFFT_ERROR


@pytest.mark.parametrize("matrix", [(12, 10), (9, 11)])
def test_on_a_cartesian_trajectory_it_is_the_centred_fft(matrix):
    axes = torch.meshgrid(*(torch.arange(n) - n // 2 for n in matrix), indexing="ij")
    points = torch.stack(axes, dim=-1).reshape(-1, 2).double()
    maps = random_maps(1, 3, *matrix)
    x = torch.randn(2, *matrix, dtype=torch.float64)
    operator = NonCartesianFourier(points, maps)
    difference = relative(operator.forward(x), fft2c(maps * x[:, None]).flatten(2))
    print(f"NUFFT against the FFT on {matrix}: {difference:.1e}")
    assert difference < NUFFT_ERROR
    torch.testing.assert_close(operator.normal(x), x, rtol=1e-4, atol=1e-4)  # full k-space, sum |S|^2 = 1


def test_sigpy_agrees_to_the_error_of_its_own_defaults():
    operator = operator_of()
    x = images(operator, 1)
    theirs = sigpy.mri.linop.Sense(operator.coil_maps[0].numpy(), coord=SPOKES.numpy())
    y = operator.forward(x)
    forward = relative(torch.from_numpy(theirs(x[0].numpy() + 0j)), y[0])
    adjoint = relative(torch.from_numpy(theirs.H(y[0].numpy()).real), operator.adjoint(y)[0])
    assert max(forward, adjoint) < 1e-2


def test_select_and_other_maps_keep_trajectory_and_point_spread():
    operator = operator_of(2, (15, 12))
    x = images(operator)
    picked = operator.select(torch.tensor([1, 0, 1])).forward(x[[1, 0, 1]])
    torch.testing.assert_close(picked, operator.forward(x)[[1, 0, 1]])
    half = operator.with_maps(operator.coil_maps / 2)
    torch.testing.assert_close(half.normal(x), operator.normal(x) / 4)
    for mine in (operator.to("cpu").normal(x), operator.select(torch.arange(2)).normal(x)):
        torch.testing.assert_close(mine, operator.normal(x))


def test_the_preconditioner_is_the_mean_of_every_diagonal():
    """T. Chan's circulant of the dense A^H A, built pixel by pixel."""
    operator = operator_of(1, (8, 9))
    count = 8 * 9
    dense = operator.normal(torch.eye(count, dtype=torch.float64).reshape(-1, 8, 9)).reshape(8, 9, 8, 9)
    mean = torch.zeros(8, 9, dtype=torch.float64)
    for h in range(8):
        for w in range(9):
            mean += dense[h, w].roll((-h, -w), (0, 1)) / count
    x, gamma = images(operator, 1), torch.tensor([7.0], dtype=torch.float64)
    eigenvalues = torch.fft.fft2(mean).real
    expected = torch.fft.ifft2(torch.fft.fft2(x) / (1 + 7 * eigenvalues)).real
    torch.testing.assert_close(operator.preconditioner(gamma)(x), expected, rtol=1e-3, atol=1e-4)


def channel_of(operator: NonCartesianFourier, noise_std: float = 0.05) -> Channel:
    clean = operator.forward(images(operator).abs())
    return Channel("undersampled", operator, clean + noise_std * torch.randn_like(clean), noise_std)


def test_the_proximal_solve_meets_its_equation_with_fewer_iterations_than_without_the_preconditioner():
    maps = torch.ones(1, 1, 24, 20, dtype=torch.complex128)
    operator = NonCartesianFourier(torch.from_numpy(radial_trajectory((24, 20), 1).reshape(-1, 2)), maps)
    channel = channel_of(operator)
    consistency = DataConsistency(channel, iterations=300, tolerance=1e-8)
    x0, gamma = torch.zeros(2, 24, 20, dtype=torch.float64), torch.tensor([3.0, 300.0], dtype=torch.float64)
    x = consistency.proximal(x0, gamma)
    left = x + gamma[:, None, None] * operator.adjoint(operator.forward(x))
    right = x0 + gamma[:, None, None] * operator.adjoint(channel.data)
    assert relative(left, right) < 1e-4

    def iterations(preconditioner) -> int:
        calls = []
        conjugate_gradient(
            lambda z: calls.append(1) or z + gamma[:, None, None] * operator.normal(z),
            right,
            iterations=300,
            tolerance=1e-6,
            preconditioner=preconditioner,
        )
        return len(calls)

    plain, ours = iterations(None), iterations(operator.preconditioner(gamma))
    print(f"conjugate gradients: {plain} iterations, preconditioned {ours}")
    assert ours < 0.6 * plain


def test_the_inverse_of_moment_matching():
    operator = operator_of(2)
    channel = channel_of(operator)
    inverse = DataConsistency(channel)
    q = torch.randn_like(channel.data)
    z, _ = inverse.preconditioned(operator.adjoint(q), 0.04)
    w = (q - operator.forward(z)) / channel.variance
    back = 0.04 * operator.forward(operator.adjoint(w)) + channel.variance * w
    assert relative(back, q) < 1e-3


def test_a_coarser_grid_explains_the_samples_that_it_can_hold():
    """A smooth image on 24 x 20 and its crop in k-space to 12 x 10 give the same samples within the crop."""
    fine, coarse = (24, 20), (12, 10)
    y, x = (torch.arange(n, dtype=torch.float64) - n // 2 for n in fine)
    image = torch.exp(-(y[:, None] ** 2) / 30 - (x[None] - 1) ** 2 / 20)[None]
    small = torch.fft.fftshift(
        torch.fft.ifft2(torch.fft.ifftshift(centre_resize(fft2c(image), coarse)), norm="ortho").real
    )
    points = torch.from_numpy(radial_trajectory(coarse, 1).reshape(-1, 2))
    maps = [torch.ones(1, 1, *shape, dtype=torch.complex128) for shape in (fine, coarse)]
    expected = NonCartesianFourier(points, maps[0]).forward(image)
    found = NonCartesianFourier(points, maps[1]).forward(small[None] if small.ndim == 2 else small)
    assert relative(found, expected) < 5e-3


def test_maps_and_trajectories_of_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="coil_maps must be complex"):
        NonCartesianFourier(SPOKES, torch.ones(1, 2, 4, 4))
    with pytest.raises(ValueError, match="trajectory must be"):
        NonCartesianFourier(torch.zeros(5, 3), random_maps(1, 2, 4, 4))
    assert np.isfinite(OPERATORS["shared maps"].normal(torch.ones(1, *MATRIX, dtype=torch.float64))).all()
