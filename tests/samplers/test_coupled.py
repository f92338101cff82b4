"""Data that couples slices: solved by volume between the halves of a step, whatever the batches."""

from __future__ import annotations

import pytest
import torch
from any2all.diffusion.oracles import GaussianPrior
from any2all.physics.image_operators import SeparableBlur, VolumeMap
from any2all.physics.measurements import Channel, Measurements
from any2all.physics.operators import Identity
from any2all.samplers.base import Problem
from any2all.samplers.mcs import MCS
from any2all.samplers.mds import MDS
from any2all.samplers.mps import MPS
from any2all.samplers.noise import VolumeNoise
from oracle_tasks import IMAGE, field_covariance, joint_covariance, undersampled
from scipy import sparse

SLICES, SIZE = 6, IMAGE[0] * IMAGE[1]
VOLUME = (SLICES, *IMAGE)
NOISE_STD = 0.02
SAMPLERS = {
    "mcs-calibrated": MCS(10, consistency="calibrated", clamp=False),
    "mcs-moment": MCS(10, clamp=False),
    "mcs-dpm": MCS(10, solver="dpm", clamp=False),
    "mds": MDS(40, clamp=False),
}
each_sampler = pytest.mark.parametrize("name", SAMPLERS)


def gaussian(channels: int = 2) -> GaussianPrior:
    correlation = torch.full((channels, channels), 0.6) + 0.4 * torch.eye(channels)
    return GaussianPrior(
        torch.zeros(channels, *IMAGE), joint_covariance([0.5] * channels, correlation, field_covariance(1.2, rough=0.1))
    )


def pairs_of_slices() -> VolumeMap:
    """Thick slices: means of two neighbours each."""
    means = sparse.kron(sparse.eye(SLICES // 2), sparse.csr_matrix([[0.5, 0.5]]))
    return VolumeMap(sparse.kron(means, sparse.eye(SIZE)), VOLUME, (SLICES // 2, *IMAGE), torch.float64)


def seen(operator, image: torch.Tensor, noise_std: float = NOISE_STD) -> Channel:
    y = operator.forward(image)
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    return Channel.degraded(operator, y + noise_std * noise, noise_std)


def coupled_problem(operator, noise_std: float = NOISE_STD) -> tuple[GaussianPrior, Problem, torch.Tensor]:
    """A clean image beside one whose slices are coupled; the truth is (Z, M, H, W) in the prior range."""
    prior = gaussian()
    truth = prior.draw(SLICES, seed=3)
    u = (truth + 1) / 2
    measurements = Measurements((Channel.available(u[:, 0]), seen(operator, u[None, :, 1], noise_std)))
    return prior, Problem.of(measurements, (SLICES, *prior.shape)), truth


def drawn(sampler, prior, problem, samples=2, batch_size=16):
    noise = VolumeNoise(prior.shape, dtype=torch.float64)
    return sampler.sample(prior, problem, noise, samples, batch_size)


@each_sampler
def test_batches_change_nothing(name):
    prior, problem, _ = coupled_problem(pairs_of_slices())
    whole = drawn(SAMPLERS[name], prior, problem, batch_size=100)
    for batch_size in (1, 4):
        torch.testing.assert_close(drawn(SAMPLERS[name], prior, problem, batch_size=batch_size), whole)
    torch.testing.assert_close(drawn(SAMPLERS[name], prior, problem, samples=1)[0], whole[0])


@pytest.mark.parametrize("name", ["mcs-calibrated", "mcs-dpm", "mds"])
def test_an_operator_that_couples_nothing_gives_what_slices_by_themselves_give(name):
    sampler = SAMPLERS[name]
    if isinstance(sampler, MCS):
        sampler = MCS(10, solver=sampler.solver, consistency="calibrated", clamp=False)
    prior = gaussian()
    u = (prior.draw(SLICES, seed=3) + 1) / 2
    by_slice = seen(Identity(), u[:, 1])
    nothing = VolumeMap(sparse.eye(SLICES * SIZE), VOLUME, VOLUME, torch.float64)
    coupled = Channel("degraded", nothing, by_slice.data[None], by_slice.noise_std)
    found = [
        drawn(sampler, prior, Problem.of(Measurements((Channel.available(u[:, 0]), c)), (SLICES, *prior.shape)))
        for c in (by_slice, coupled)
    ]
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("operator", [pairs_of_slices(), SeparableBlur(VOLUME, (2.0, 1.5, 1.5), torch.float64)])
@each_sampler
def test_samples_explain_the_data(name, operator):
    """A x' is y, through the slices, as far as the noise allows; without the data it is far from it."""
    prior, problem, truth = coupled_problem(operator, noise_std=0.01)
    channel = problem.measurements.channels[1]
    x = drawn(SAMPLERS[name], prior, problem)[:, :, 1]
    misfit = (operator.forward(x) - channel.data).square().mean().sqrt()
    free = Problem.of(Measurements((problem.measurements.channels[0], Channel.missing()), True), problem.shape)
    unaware = operator.forward(drawn(SAMPLERS[name], prior, free)[:, :, 1]) - channel.data
    print(
        f"{name}: misfit {misfit:.3f}, noise {channel.variance**0.5:.3f}, unaware {unaware.square().mean().sqrt():.3f}"
    )
    assert float(misfit) < 3 * channel.variance**0.5
    assert float(unaware.square().mean().sqrt()) > 5 * float(misfit)


def exact_mean(prior, problem) -> torch.Tensor:
    """E[x | y] of the whole volume, by brute force; slices of the prior are independent."""
    clean, channel = problem.measurements.channels
    c = prior.covariances[0]
    gain = c[SIZE:, :SIZE] @ torch.linalg.inv(c[:SIZE, :SIZE])
    mean = (clean.data.flatten(1) @ gain.T).flatten()
    left = torch.kron(torch.eye(SLICES, dtype=torch.float64), c[SIZE:, SIZE:] - gain @ c[:SIZE, SIZE:])
    a = channel.operator.forward(torch.eye(SLICES * SIZE, dtype=torch.float64).reshape(-1, *VOLUME)).flatten(1).T
    system = a @ left @ a.T + channel.variance * torch.eye(len(a), dtype=torch.float64)
    return (mean + left @ a.T @ torch.linalg.solve(system, channel.data.flatten() - a @ mean)).reshape(VOLUME)


def test_the_mean_of_samples_is_near_the_exact_one():
    """`calibrated` knows no covariance, so a bias is left, but far less than what the data says."""
    prior, problem, _ = coupled_problem(pairs_of_slices())
    exact = exact_mean(prior, problem)
    free = Problem.of(Measurements((problem.measurements.channels[0], Channel.missing()), True), problem.shape)
    sampler = MCS(20, consistency="calibrated", solver="dpm", clamp=False)
    errors = [(drawn(sampler, prior, p, 48)[:, :, 1].mean(0) - exact).square().mean().sqrt() for p in (problem, free)]
    print(f"bias {errors[0]:.3f} with the data, {errors[1]:.3f} without")
    assert float(errors[0]) < 0.3 * float(errors[1])


def test_moments_move_the_other_channels_beside_a_coupled_one():
    """Raw data keeps moment matching in the same step; its products are counted, and missing images are refilled."""
    prior = gaussian(3)
    u = (prior.draw(SLICES, seed=3) + 1) / 2
    given = (undersampled(u[:, 0]), seen(pairs_of_slices(), u[None, :, 1]), Channel.missing())
    problem = Problem.of(Measurements(given), (SLICES, *prior.shape))
    assert set(problem.by_slice) == {0} and set(problem.coupled) == {1}
    told = []
    noise = VolumeNoise(prior.shape, dtype=torch.float64)
    sampler = MCS(10, clamp=False)
    x = sampler.sample(prior, problem, noise, 1, 4, progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told) and told[-1][0] == told[-1][1] == SLICES * sampler.passes(prior.schedule, True, True)
    calibrated = MCS(10, consistency="calibrated", clamp=False).sample(prior, problem, noise, 1, 4)
    errors = [((result[0, :, 0] + 1) / 2 - u[:, 0]).square().mean().sqrt() for result in (x, calibrated)]
    assert errors[0] < errors[1]


def test_mps_says_that_it_cannot():
    prior, problem, _ = coupled_problem(pairs_of_slices())
    with pytest.raises(ValueError, match="couples slices"):
        drawn(MPS(8), prior, problem)
