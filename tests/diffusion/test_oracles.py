"""The analytic priors against second derivations: Tweedie's formula, one joint Gaussian, Monte Carlo."""

from __future__ import annotations

import pytest
import torch
from any2all.diffusion.oracles import GaussianPrior, MixturePrior
from any2all.physics.measurements import Channel, Measurements
from any2all.physics.operators import MulticoilFourier
from torch.distributions import MultivariateNormal

SHAPE = (3, 2, 4)
N = 24


def covariance(seed: int, scale: float = 0.3) -> torch.Tensor:
    root = torch.randn(N, N, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return scale**2 * (root @ root.T / N + 0.05 * torch.eye(N, dtype=torch.float64))


def gaussian() -> GaussianPrior:
    mean = 0.3 * torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    return GaussianPrior(mean, covariance(0))


def mixture() -> MixturePrior:
    means = 0.3 * torch.randn(2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    return MixturePrior(torch.tensor([0.3, 0.7]), means, torch.stack([covariance(1), covariance(2, 0.4)]))


def log_density(prior: MixturePrior, x: torch.Tensor, signal: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """log p(x_k) for per-pixel signal and noise factors (N,), through torch.distributions."""
    parts = [
        w + MultivariateNormal(signal * m, signal[:, None] * c * signal + torch.diag(noise**2)).log_prob(x.flatten(1))
        for w, m, c in zip(prior.log_weights, prior.means, prior.covariances)
    ]
    return torch.stack(parts).logsumexp(0)


@pytest.mark.parametrize("prior", [gaussian(), mixture()], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("levels", [(500, 500, 500), (3, 400, 1000), (990, 40, 700)])
def test_x0_hat_is_tweedies_formula(prior, levels):
    """x0_hat = (x_k + (1 - abar) ∇ log p(x_k)) / sqrt(abar), channel by channel."""
    abar = prior.schedule.abar[list(levels)].repeat_interleave(N // 3)
    x = torch.randn(5, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    (score,) = torch.autograd.grad(log_density(prior, x, abar.sqrt(), (1 - abar).sqrt()).sum(), x)
    expected = (x.flatten(1) + (1 - abar) * score.flatten(1)) / abar.sqrt()
    x0_hat = prior.x0_hat(x, torch.tensor([levels] * 5)).flatten(1)
    torch.testing.assert_close(x0_hat, expected, rtol=1e-6, atol=1e-6 / float(abar.min()) ** 0.5)


def test_a_clean_channel_is_conditioned_on_exactly():
    prior, x = gaussian(), torch.randn(4, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    levels = torch.tensor([[0, 1000, 1000]] * 4)
    clean, rest = slice(0, N // 3), slice(N // 3, N)
    c, mean = prior.covariances[0], prior.means[0]
    gain = torch.linalg.solve(c[clean, clean], c[clean, rest])
    conditional = mean[rest] + (x.flatten(1)[:, clean] - mean[clean]) @ gain
    x0_hat = prior.x0_hat(x, levels).flatten(1)
    torch.testing.assert_close(x0_hat[:, clean], x.flatten(1)[:, clean])
    # level 1000 still holds 5e-5 of the signal
    torch.testing.assert_close(x0_hat[:, rest], conditional, atol=2e-3, rtol=0)


@pytest.mark.parametrize("prior", [gaussian(), mixture()], ids=["gaussian", "mixture"])
def test_rows_with_other_levels_do_not_meet(prior):
    x = torch.randn(4, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    levels = torch.tensor([[0, 5, 900], [300, 300, 300], [0, 5, 900], [1000, 1000, 1000]])
    together = prior.x0_hat(x, levels)
    for row in range(4):
        torch.testing.assert_close(together[row], prior.x0_hat(x[row : row + 1], levels[row : row + 1])[0])


@pytest.mark.parametrize("prior", [gaussian(), mixture()], ids=["gaussian", "mixture"])
def test_error_variance_is_the_error_of_x0_hat(prior):
    x0 = prior.draw(20_000, seed=4)
    eps = torch.randn(x0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    for companions, level in ((frozenset(), 400), (frozenset({0}), 700), (frozenset({0, 2}), 60)):
        k = torch.tensor([[0 if m in companions else level for m in range(3)]] * len(x0))
        error = (prior.x0_hat(prior.schedule.add_noise(x0, eps, k), k) - x0).square().mean((0, 2, 3))
        for channel in {0, 1, 2} - companions:
            exact = prior.error_variance(channel, companions, level)
            assert exact == pytest.approx(float(error[channel]), rel=0.03)
            assert exact == prior.error_variance(channel, companions, level)


@pytest.mark.parametrize("prior", [gaussian(), mixture()], ids=["gaussian", "mixture"])
def test_posterior_is_that_of_the_joint_gaussian(prior):
    """Channel 0 given, 1 missing, 2 as complex data of two coils: condition the joint of (x, y) with a dense A."""
    slices, pixels = 3, N // 3
    generator = torch.Generator().manual_seed(6)
    maps = torch.randn(1, 2, *SHAPE[1:], dtype=torch.complex128, generator=generator)
    operator = MulticoilFourier(torch.tensor([1.0, 0, 1, 0], dtype=torch.float64), maps)
    truth = (prior.draw(slices, seed=7) + 1) / 2
    data = operator.forward(truth[:, 2]) + 0.05 * torch.randn(3, 2, 2, 4, dtype=torch.complex128, generator=generator)
    kspace = Channel("undersampled", operator, operator.mask[:, None] * data, 0.05)
    measurements = Measurements((Channel.available(truth[:, 0]), Channel.missing(), kspace))
    posterior = prior.posterior(measurements)

    columns = operator.forward(torch.eye(pixels, dtype=torch.float64).reshape(-1, *SHAPE[1:])).flatten(1)
    a = torch.zeros(pixels + 2 * columns.shape[1], N, dtype=torch.float64)
    a[:pixels, :pixels] = torch.eye(pixels)
    a[pixels:, -pixels:] = torch.cat([columns.real, columns.imag], dim=1).T
    inside = measurements.in_prior_range().channels
    y = torch.cat([inside[0].data.flatten(1), torch.view_as_real(inside[2].data.flatten(1)).mT.flatten(1)], dim=1)
    v = torch.cat([torch.full((pixels,), 1e-14), torch.full((len(a) - pixels,), inside[2].variance)]).double()
    log_weights, means = [], []
    for w, mean, c, left in zip(prior.log_weights, prior.means, prior.covariances, posterior.covariances):
        evidence = a @ c @ a.T + torch.diag(v)
        gain = torch.linalg.solve(evidence, a @ c).T
        log_weights.append(w + MultivariateNormal(a @ mean, evidence).log_prob(y))
        means.append(mean + (y - a @ mean) @ gain.T)
        torch.testing.assert_close(left, c - gain @ a @ c, atol=1e-9, rtol=1e-6)
    torch.testing.assert_close(posterior.means.flatten(2), torch.stack(means, 1), atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(posterior.weights, torch.stack(log_weights, 1).softmax(1), atol=1e-6, rtol=1e-6)


def test_posterior_without_measurements_is_the_prior():
    prior = mixture()
    posterior = prior.posterior(Measurements((Channel.missing(),) * 3))
    draws = prior.draw(50_000)
    torch.testing.assert_close(posterior.mean[0], draws.mean(0), atol=0.01, rtol=0)
    torch.testing.assert_close(posterior.variance[0], draws.var(0), atol=0.01, rtol=0.05)
