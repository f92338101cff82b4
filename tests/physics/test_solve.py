"""The exact solve against dense algebra and against conjugate gradients."""

from __future__ import annotations

import pytest
import torch
from any2all.kspace.simulate import birdcage_maps
from any2all.physics.measurements import Channel
from any2all.physics.operators import Identity, Missing, MulticoilFourier
from any2all.physics.solve import DataConsistency, RowEigenbasis, conjugate_gradient, final_solve
from hypothesis import given, settings
from hypothesis import strategies as st
from physics_builders import dense, kspace_channel, line_mask, random_maps, scattered_mask


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from([1, 3]), st.floats(-1, 3), st.sampled_from([0, 3]))
def test_exact_solve_agrees_with_cg_run_to_1e_8(seed, coils, map_slices, log_gamma, extra):
    maps = random_maps(map_slices, coils, 8, 14, seed)
    operator = MulticoilFourier(line_mask(14, seed=seed), maps, (8 + extra, 14 - extra))
    channel = kspace_channel(operator, 3, seed=seed)
    x0 = torch.randn(3, *operator.image_shape, dtype=torch.float64)
    gamma = 10**log_gamma * torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    exact = DataConsistency(channel)
    by_cg = DataConsistency(channel, exact=False, iterations=2000, tolerance=1e-9)
    assert exact.exact and not by_cg.exact
    assert relative(exact.proximal(x0, gamma), by_cg.proximal(x0, gamma)) < 1e-7


def test_exact_solve_agrees_with_200_iterations_and_five_do_not():
    operator = MulticoilFourier((torch.arange(32) % 4 == 0).double(), random_maps(1, 8, 32, 32))
    channel = kspace_channel(operator, 2)
    x0 = torch.randn(2, 32, 32, dtype=torch.float64)
    exact = DataConsistency(channel).proximal(x0, 50.0)
    assert relative(DataConsistency(channel, False, 200, 0.0).proximal(x0, 50.0), exact) < 1e-6
    assert relative(DataConsistency(channel, False, 5, 0.0).proximal(x0, 50.0), exact) > 1e-3


def test_float32_is_close_to_double_at_large_gamma():
    mask = (torch.arange(48) % 4 == 0).double()
    maps = torch.from_numpy(birdcage_maps((16, 48))).to(torch.complex128)
    channel = kspace_channel(MulticoilFourier(mask, maps), 1)
    single = Channel("undersampled", MulticoilFourier(mask, maps.to(torch.complex64)), channel.data.to(torch.complex64))
    x0 = torch.randn(1, 16, 48, dtype=torch.float64)
    error = DataConsistency(single).proximal(x0.float(), 1e4).double() - DataConsistency(channel).proximal(x0, 1e4)
    print(f"largest float32 error at gamma 1e4: {error.abs().max():.1e}")
    assert error.abs().max() < 2e-3


def test_two_dimensional_mask_goes_by_cg_and_meets_the_normal_equations():
    operator = MulticoilFourier(scattered_mask(10, 12), random_maps(1, 3, 10, 12))
    channel = kspace_channel(operator, 2)
    consistency = DataConsistency(channel)
    assert not consistency.exact
    x0 = torch.randn(2, 10, 12, dtype=torch.float64)
    x = consistency.proximal(x0, 5.0)
    rhs = x0 + 5 * operator.adjoint(channel.data)
    assert relative(x + 5 * operator.normal(x), rhs) < 1.1e-4
    with pytest.raises(ValueError, match="1-D along W"):
        DataConsistency(channel, exact=True)
    with pytest.raises(ValueError, match="1-D along W"):
        RowEigenbasis.of(operator)


def test_proximal_is_the_minimum_by_dense_algebra():
    operator = MulticoilFourier(line_mask(6), random_maps(1, 2, 5, 6))
    channel = kspace_channel(operator, 1)
    a = dense(operator)
    y = torch.cat([channel.data.real.flatten(), channel.data.imag.flatten()])
    x0 = torch.randn(1, 5, 6, dtype=torch.float64)
    expected = torch.linalg.solve(torch.eye(30).double() + 7 * a.T @ a, x0.flatten() + 7 * a.T @ y)
    torch.testing.assert_close(DataConsistency(channel).proximal(x0, 7.0).flatten(), expected)


@pytest.mark.parametrize("two_dimensional", [False, True])
@pytest.mark.parametrize("prior_variance", [0.0, 1e-3, 0.3])
def test_inverse_of_moment_matching_against_a_dense_matrix(two_dimensional, prior_variance):
    mask = scattered_mask(4, 6) if two_dimensional else line_mask(6)
    operator = MulticoilFourier(mask, random_maps(1, 2, 4, 6))
    channel = kspace_channel(operator, 1, noise_std=0.1)
    a = dense(operator)
    m = prior_variance * a @ a.T + channel.variance * torch.eye(len(a)).double()
    q = torch.randn(1, 2, 4, 6, dtype=torch.complex128)
    expected = torch.linalg.solve(m, torch.cat([q.real.flatten(), q.imag.flatten()]))
    z, back = DataConsistency(channel).preconditioned(operator.adjoint(q), prior_variance)
    result = (q - operator.forward(z)) / channel.variance
    got = torch.cat([result.real.flatten(), result.imag.flatten()])
    assert relative(got, expected) < (1e-5 if two_dimensional else 1e-9)
    torch.testing.assert_close(back, operator.adjoint(result))


@pytest.mark.parametrize("kind", ["lines", "lines, maps per slice", "scattered"])
def test_normal_and_misfit_are_those_of_the_operator(kind):
    mask = scattered_mask(9, 12) if kind == "scattered" else line_mask(12)
    operator = MulticoilFourier(mask, random_maps(3 if "per slice" in kind else 1, 3, 9, 12))
    channel = kspace_channel(operator, 3)
    consistency, order = DataConsistency(channel), torch.tensor([2, 0, 2])
    x = torch.randn(3, 9, 12, dtype=torch.float64)
    chosen = operator.select(order)
    residual = channel.data[order] - chosen.forward(x)
    energy, back = consistency.misfit(x, order)
    torch.testing.assert_close(energy, residual.abs().square().sum(dim=(1, 2, 3)))
    torch.testing.assert_close(back, chosen.adjoint(residual))
    torch.testing.assert_close(consistency.normal(x, order), chosen.normal(x))


def test_batch_order_and_repeats_do_not_change_a_slice():
    channel = kspace_channel(MulticoilFourier(line_mask(12), random_maps(4, 3, 9, 12)), 4)
    consistency = DataConsistency(channel)
    x0, gamma = torch.randn(4, 9, 12, dtype=torch.float64), torch.tensor([1.0, 10, 100, 1000]).double()
    whole = consistency.proximal(x0, gamma)
    order = torch.tensor([3, 0, 0, 2])
    torch.testing.assert_close(consistency.proximal(x0[order], gamma[order], order), whole[order])
    whole = consistency.preconditioned(x0, gamma)
    some = consistency.preconditioned(x0[order], gamma[order], order)
    for part, every in zip(some, whole):
        torch.testing.assert_close(part, every[order])


def test_short_memory_keeps_one_basis_and_the_answer():
    channel = kspace_channel(MulticoilFourier(line_mask(12), random_maps(3, 2, 8, 12)), 3)
    frugal = DataConsistency(channel, cache_bytes=1)
    x0 = torch.randn(3, 8, 12, dtype=torch.float64)
    torch.testing.assert_close(frugal.proximal(x0, 9.0), DataConsistency(channel).proximal(x0, 9.0))
    assert len(frugal._bases) == 1


def test_available_and_missing_channels():
    x0, y = torch.randn(2, 4, 5), torch.randn(2, 4, 5)
    torch.testing.assert_close(DataConsistency(Channel("available", Identity(), y)).proximal(x0, 3.0), (x0 + 3 * y) / 4)
    assert DataConsistency(Channel("missing", Missing())).proximal(x0, 3.0) is x0


def test_gamma_is_the_mmse_of_a_scalar_gaussian():
    # x ~ N(0, r2) per pixel seen through y = x + e: the posterior mean is y r2 / (r2 + v).
    channel = Channel("available", Identity(), torch.full((1, 1, 1), 2.0), noise_std=0.4)
    mean = DataConsistency(channel).proximal(torch.zeros(1, 1, 1), 0.3 / channel.variance)
    assert mean.item() == pytest.approx(2 * 0.3 / (0.3 + 0.08))


def test_final_solve_for_several_samples():
    operator = MulticoilFourier(line_mask(12), random_maps(2, 3, 8, 12))
    channel = kspace_channel(operator, 2, noise_std=0.1)
    u0 = torch.rand(3, 2, 8, 12, dtype=torch.float64)
    result = final_solve(channel.data, operator, u0, channel.variance, 0.02)
    for k in range(3):
        gradient = (operator.normal(result[k]) - operator.adjoint(channel.data)) / channel.variance
        gradient += (result[k] - u0[k]) / 0.02
        assert gradient.abs().max() < 1e-8
    torch.testing.assert_close(final_solve(channel.data, operator, u0[1], channel.variance, 0.02), result[1])


def test_cg_is_complex_safe_and_each_sample_is_alone():
    matrix = torch.randn(3, 9, 9, dtype=torch.complex128)
    matrix = matrix @ matrix.mH + torch.tensor([1.0, 10, 0.1])[:, None, None] * torch.eye(9)
    rhs = torch.randn(3, 9, dtype=torch.complex128)
    apply = lambda m: lambda x: torch.einsum("bij,bj->bi", m, x)  # noqa: E731
    x = conjugate_gradient(apply(matrix), rhs, iterations=60, tolerance=1e-10)
    torch.testing.assert_close(x, torch.linalg.solve(matrix, rhs), rtol=1e-7, atol=1e-8)
    alone = conjugate_gradient(apply(matrix[1:2]), rhs[1:2], iterations=60, tolerance=1e-10)
    torch.testing.assert_close(alone, x[1:2], rtol=1e-12, atol=1e-12)


def test_cg_stops_a_sample_at_non_positive_curvature():
    diagonal = torch.tensor([[1.0, 2.0], [1.0, -3.0]])
    x = conjugate_gradient(lambda x: diagonal * x, torch.ones(2, 2), iterations=10)
    torch.testing.assert_close(x, torch.tensor([[1.0, 0.5], [0.0, 0.0]]))


def test_preconditioned_cg_with_the_inverse_needs_one_iteration():
    diagonal = torch.logspace(0, 4, 20)
    rhs = torch.randn(2, 20)
    x = conjugate_gradient(lambda x: diagonal * x, rhs, iterations=1, preconditioner=lambda r: r / diagonal)
    torch.testing.assert_close(x, rhs / diagonal)
