"""Single steps against what they claim to be: gamma, moment matching, MDS's solve, eta, MPS's weights."""

from __future__ import annotations

import dataclasses
import math

import any2all.samplers.consistency as consistency
import pytest
import torch
from any2all.diffusion.oracles import GaussianPrior
from any2all.diffusion.schedule import cosine_schedule
from any2all.physics.measurements import Channel, Measurements
from any2all.physics.operators import MulticoilFourier
from any2all.samplers.base import Problem, Rows
from any2all.samplers.mcs import MCS, _extrapolated
from any2all.samplers.mds import FAITHFUL_CG_ITERATIONS, MDS
from any2all.samplers.mps import MPS
from any2all.samplers.updates import beta_tilde, ddim_update, half_log_snr
from oracle_tasks import (
    IMAGE,
    NOISE_STD,
    WhitePrior,
    field_covariance,
    flair_task,
    joint_covariance,
    undersampled,
)

SCHEDULE = cosine_schedule()


def rows_of(problem: Problem) -> Rows:
    every = torch.arange(problem.shape[0])
    return Rows(every, problem.measurements.select(every), problem.consistency, lambda: torch.zeros(problem.shape), [])


class WrongPrior(WhitePrior):
    """Right about x_0, wrong about its own error by a factor."""

    def __init__(self, std: float, factor: float) -> None:
        super().__init__(std)
        self.factor = factor

    def error_variance(self, channel, companions, level):
        return self.factor * super().error_variance(channel, companions, level)


def one_step_error(factor: float, level: int, noise_std: float) -> float:
    """Mean squared error of `calibrated`'s x0' on a scalar problem: x_0 white, fully sampled k-space of one coil."""
    prior, shape, generator = WrongPrior(0.5, factor), (4, 1, 64, 64), torch.Generator().manual_seed(0)
    x0 = 0.5 * torch.randn(shape, dtype=torch.float64, generator=generator)
    eps = torch.randn(shape, dtype=torch.float64, generator=generator)
    operator = MulticoilFourier(torch.ones(64), torch.ones(1, 1, 64, 64, dtype=torch.complex128))
    clean = operator.forward((x0[:, 0] + 1) / 2)
    data = clean + noise_std * torch.randn(clean.shape, dtype=clean.dtype, generator=generator)
    problem = Problem.of(Measurements((Channel("undersampled", operator, data, noise_std),)), shape)
    levels = torch.full((4, 1), level)
    x_k = SCHEDULE.add_noise(x0, eps, levels)
    return float((consistency.calibrated_step(prior, x_k, levels, level, rows_of(problem)) - x0).square().mean())


@pytest.mark.parametrize("level", [300, 600, 900])
def test_gamma_gives_the_minimum_mean_square_error(level):
    """With r² the error of x0_hat and v the noise per real component, the best x0' errs by r² v / (r² + v)."""
    r2 = WhitePrior(0.5).error_variance(0, frozenset(), level)
    noise_std = math.sqrt(r2 / 2)  # v = 2 noise_std² = r²: where gamma matters most
    best = r2 / 2
    right = one_step_error(1.0, level, noise_std)
    wrong = [one_step_error(factor, level, noise_std) / best for factor in (0.25, 4.0)]
    print(f"\nlevel {level}: {right / best:.3f} of the MMSE, bound 1 ± .04; gamma off by 4: {wrong}, bound 1.3")
    assert right / best == pytest.approx(1.0, abs=0.04)
    assert min(wrong) > 1.3


def moment_task():
    """Channel 0 given, 1 as k-space, 2 missing but correlated with both."""
    correlation = torch.tensor([[1.0, 0.5, 0.3], [0.5, 1.0, 0.7], [0.3, 0.7, 1.0]])
    covariance = joint_covariance([0.5, 0.5, 0.4], correlation, field_covariance(1.2))
    prior = GaussianPrior(0.1 * torch.ones(3, *IMAGE), covariance)
    x0 = prior.draw(2, seed=1)
    u = (x0 + 1) / 2
    measurements = Measurements((Channel.available(u[:, 0]), undersampled(u[:, 1]), Channel.missing()))
    return prior, x0, measurements


@pytest.mark.parametrize("level", [100, 500, 800])
def test_moment_step_converges_to_the_exact_conditional_mean(level):
    """E[x_0 | x_k, y] of a Gaussian: x_k leaves N(x0_hat, P), which the k-space then conditions (METHOD §3)."""
    prior, x0, measurements = moment_task()
    problem = Problem.of(measurements, (2, *prior.shape))
    levels = torch.tensor([[0, level, level]] * 2)
    eps = torch.randn(x0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    x_k = SCHEDULE.add_noise(x0, eps, levels)
    abar = SCHEDULE.abar[[level, level]].repeat_interleave(64)
    pixels = slice(64, 192)
    c, clean = prior.covariances[0], slice(0, 64)
    given = c[pixels, pixels] - c[pixels, clean] @ torch.linalg.solve(c[clean, clean], c[clean, pixels])
    left = torch.linalg.inv(torch.linalg.inv(given) + torch.diag(abar / (1 - abar)))
    x0_hat = prior.x0_hat(x_k, levels)
    raw = Measurements(measurements.in_prior_range().channels[1:], prior_range=True)
    expected = torch.cat([
        GaussianPrior(x0_hat[z, 1:], left).posterior(raw.select(torch.tensor([z]))).mean for z in range(2)
    ])  # fmt: skip

    errors = {}
    for iterations in (1, 2, 3, 100):
        x0_prime = consistency.moment_step(prior, x_k, levels, level, (1, 2), rows_of(problem), iterations)
        errors[iterations] = float((x0_prime[:, 1:] - expected).norm() / (x0_hat[:, 1:] - expected).norm())
        torch.testing.assert_close(x0_prime[:, 0], x_k[:, 0])
    print(f"\nlevel {level}: share of the correction left after n iterations: {errors}; bounds .6 at 2, 1e-4 at 100")
    assert errors[100] < 1e-4 and errors[2] < 0.6 and errors[3] < errors[2] < errors[1]


def coil_by_coil(prior, x_k, level, variances, rows, iterations):
    """What `moment_step` computes with images, computed with every coil's data as it is written (METHOD §3)."""
    x_k = x_k.detach().requires_grad_(True)
    x0_hat = prior.x0_hat(x_k, torch.tensor([[0, level, level]] * len(x_k)))
    abar = prior.schedule.at(level)
    channels = rows.measurements.channels

    def covariance(z):
        (product,) = torch.autograd.grad(x0_hat, x_k, z, retain_graph=True)
        product[:, 0] = 0
        return (1 - abar) / math.sqrt(abar) * product

    def inverse(m, q):
        operator, v = channels[m].operator, channels[m].variance
        z, _ = rows.consistency[m].preconditioned(operator.adjoint(q), variances[m], rows.slices)
        return (q - operator.forward(z)) / v

    def inner(a, b):
        return sum((a[m].conj() * b[m]).real.flatten(1).sum(1) for m in a).reshape(-1, 1, 1, 1)

    found = x0_hat.detach()
    residual = {m: channels[m].data - channels[m].operator.forward(found[:, m]) for m in variances}
    correction, direction, previous = torch.zeros_like(found), None, None
    for _ in range(iterations):
        solved = {m: inverse(m, residual[m]) for m in residual}
        energy = inner(residual, solved)
        direction = solved if direction is None else {m: solved[m] + energy / previous * direction[m] for m in solved}
        previous = energy
        spread = torch.zeros_like(found)
        for m in direction:
            spread[:, m] = channels[m].operator.adjoint(direction[m])
        spread = covariance(spread)
        seen = {m: channels[m].operator.forward(spread[:, m]) + channels[m].variance * direction[m] for m in direction}
        alpha = energy / inner(direction, seen)
        correction += alpha * spread
        residual = {m: residual[m] - alpha * seen[m] for m in residual}
    return found + correction


@pytest.mark.parametrize("level", [100, 500, 800])
@pytest.mark.parametrize("raw", [(1,), (1, 2)])
def test_moment_step_with_images_is_that_with_every_coils_data(level, raw):
    prior, x0, measurements = moment_task()
    channels = list(measurements.channels)
    for m in raw:
        channels[m] = undersampled((x0[:, m] + 1) / 2, acceleration=2 * m, seed=m)
    problem = Problem.of(Measurements(tuple(channels)), (2, *prior.shape))
    levels = torch.tensor([[0, level, level]] * 2)
    eps = torch.randn(x0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    x_k, rows = SCHEDULE.add_noise(x0, eps, levels), rows_of(problem)
    variances = consistency.prior_variances(prior, level, rows)
    for iterations in (1, 2, 3):
        result = consistency.moment_step(prior, x_k, levels, level, (1, 2), rows, iterations)
        expected = coil_by_coil(prior, x_k, level, variances, rows, iterations)
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-9)


def test_moment_step_stays_finite_where_data_and_prior_agree():
    prior, x0, measurements = moment_task()
    problem = Problem.of(measurements, (2, *prior.shape))
    levels = torch.tensor([[0, 400, 400]] * 2)
    x0_hat = prior.x0_hat(x0, levels)
    agreed = undersampled((x0_hat[:, 1] + 1) / 2)
    agreed = Channel("undersampled", agreed.operator, agreed.operator.forward((x0_hat[:, 1] + 1) / 2), NOISE_STD)
    problem = Problem.of(Measurements((measurements.channels[0], agreed, measurements.channels[2])), (2, *prior.shape))
    problem.measurements.channels[1].data[0] = agreed.operator.forward(x0_hat[:1, 1])[0]  # slice 0: residual exactly 0
    result = consistency.moment_step(prior, x0, levels, 400, (1, 2), rows_of(problem), 2)
    torch.testing.assert_close(result, x0_hat, rtol=0, atol=1e-9)


@pytest.mark.parametrize("gamma", [5.0, 100.0])
def test_mds_data_consistency(gamma):
    """Exact by default; `faithful` takes exactly five textbook conjugate-gradient iterations from x0_hat."""
    prior, measurements = flair_task()
    problem = Problem.of(measurements, (2, *prior.shape))
    channel = problem.measurements.channels[1]
    x0_hat = prior.draw(2, seed=9)
    basis = torch.eye(64, dtype=torch.float64).reshape(-1, *IMAGE)
    system = torch.eye(64, dtype=torch.float64) + gamma * channel.operator.normal(basis).flatten(1)
    rhs = (x0_hat[:, 1] + gamma * channel.operator.adjoint(channel.data)).flatten(1)
    exact = torch.linalg.solve(system, rhs.T).T

    x = x0_hat[:, 1].flatten(1).clone()
    for z in range(2):
        r = rhs[z] - system @ x[z]
        p = r.clone()
        for _ in range(FAITHFUL_CG_ITERATIONS):
            alpha = (r @ r) / (p @ system @ p)
            x[z] += alpha * p
            r_next = r - alpha * system @ p
            p, r = r_next + (r_next @ r_next) / (r @ r) * p, r_next

    rows = rows_of(problem)
    default = MDS(gamma=gamma).data_consistency(x0_hat, rows)
    faithful = MDS(gamma=gamma, faithful=True).data_consistency(x0_hat, rows)
    torch.testing.assert_close(default[:, 1].flatten(1), exact, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(faithful[:, 1].flatten(1), x, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(default[:, 0], 2 * measurements.channels[0].data - 1)
    assert float((faithful - default).abs().max()) > 1e-6


@pytest.mark.parametrize("faithful", [False, True])
def test_mds_step_takes_its_noise_from_before_data_consistency(faithful):
    """Equation by equation; x0_hat is clamped, and eps_hat follows from it, unless `faithful`."""
    prior, measurements = flair_task()
    problem = Problem.of(measurements, (2, *prior.shape))
    z, x = 2 * prior.draw(2, seed=1), 3 * prior.draw(2, seed=2)
    rows = dataclasses.replace(rows_of(problem), noise=lambda: z)
    sampler = MDS(faithful=faithful, eta=0.5)
    abar, abar_next = SCHEDULE.at(200), SCHEDULE.at(190)
    x0_hat = prior.x0_hat(x, torch.full((2, 2), 200))
    assert float(x0_hat.abs().max()) > 1
    x0_hat = x0_hat if faithful else x0_hat.clamp(-1, 1)
    eps_hat = (x - abar**0.5 * x0_hat) / (1 - abar) ** 0.5
    x0 = sampler.data_consistency(x0_hat, rows)
    spread = 0.5 * math.sqrt(1 - abar_next)
    expected = abar_next**0.5 * x0 + math.sqrt(1 - abar_next - spread**2) * eps_hat + spread * z
    torch.testing.assert_close(sampler.step(prior, x, 200, 190, rows), expected)


def test_dpm_solver_extrapolates_to_the_middle_of_the_next_step():
    """2M is exact to second order for unequal steps: where x0' is linear in λ, it takes its value half a step ahead."""
    last, here, following = (half_log_snr(SCHEDULE.at(k)) for k in (700, 640, 300))
    estimates = [(700, torch.tensor([1.0 + 2.0 * last])), (640, torch.tensor([1.0 + 2.0 * here]))]
    assert float(_extrapolated(estimates, 300, SCHEDULE)) == pytest.approx(1.0 + (here + following), rel=1e-6)
    assert torch.equal(_extrapolated(estimates[1:], 300, SCHEDULE), estimates[1][1]), "the first step is of first order"


def test_eta_conventions():
    abar, abar_next = SCHEDULE.at(600), SCHEDULE.at(593)
    assert beta_tilde(abar, abar_next, "dds") == pytest.approx(math.sqrt(1 - abar_next))
    posterior = (1 - abar / abar_next) * (1 - abar_next) / (1 - abar)
    assert beta_tilde(abar, abar_next, "ddim") == pytest.approx(math.sqrt(posterior))
    # `dds` at eta = 1 replaces all noise; every eta keeps x_{k'}'s noise variance at 1 - abar_{k'}
    x0, eps, z = torch.zeros(1), torch.tensor([1.0]), torch.tensor([0.0])
    assert float(ddim_update(x0, eps, z, abar_next, beta_tilde(abar, abar_next, "dds"))) == pytest.approx(0, abs=1e-6)
    for convention in ("dds", "ddim"):
        spread = 0.85 * beta_tilde(abar, abar_next, convention)
        kept = float(ddim_update(x0, eps, z, abar_next, spread))
        assert kept**2 + spread**2 == pytest.approx(1 - abar_next)


def test_mps_misfit_is_a_norm_per_slice_and_weighs_blocks():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, *IMAGE, dtype=torch.float64, generator=generator)
    raw = undersampled(images[:, 2])
    measurements = Measurements((Channel.available(images[:, 0]), Channel.available(images[:, 1]), raw))
    inside = measurements.in_prior_range()
    x0_hat = torch.randn(2, 3, *IMAGE, dtype=torch.float64, generator=generator)
    norms = [(inside.channels[m].data - x0_hat[:, m]).flatten(1).norm(dim=1) for m in (0, 1)]
    kspace = (inside.channels[2].data - raw.operator.forward(x0_hat[:, 2])).flatten(1).norm(dim=1)
    torch.testing.assert_close(MPS().misfit(x0_hat, inside), 0.5 * (norms[0] + norms[1]) + kspace)
    weighted = MPS(weights={0: 0.1, 2: 3.0}).misfit(x0_hat, inside)
    torch.testing.assert_close(weighted, 0.1 * norms[0] + 0.5 * norms[1] + 3.0 * kspace)


def test_moment_takes_a_third_iteration_on_long_steps_only():
    # 10 steps: two calibrated ones, three above sigma² = 1 (2 products each), four below (3 each), the last calibrated
    assert MCS(steps=10).passes(SCHEDULE, True, False) == 10 + 3 * 2 + 4 * 3
    assert MCS(steps=20).passes(SCHEDULE, True, False) == 20 + 15 * 2
    assert MCS(steps=10, consistency="calibrated").passes(SCHEDULE, True, False) == 10
