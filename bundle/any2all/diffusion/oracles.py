r"""Analytic priors: a Gaussian, and a mixture of Gaussians, have an exact denoiser and an exact posterior (METHOD §6).

They fulfil the `Prior` protocol without a network, so a sampler can be held against the truth it should sample.

Notation, all over the flattened stack of N = M H W pixels
    ===========  ==============================================================================
    w_j, μ_j, C_j  weight, mean and covariance of component j
    k_m          level of channel m; 0 is clean, 1000 is noise
    s, n         sqrt(abar_{k_m}), sqrt(1 - abar_{k_m}) at every pixel; S = diag(s)
    V_j          covariance of x_k under component j, V_j = S C_j S + diag(n²)
    ===========  ==============================================================================

Noising keeps a Gaussian Gaussian, x_k | j ~ N(S μ_j, V_j), hence

    E[x_0 | x_k, j] = μ_j + C_j S V_j⁻¹ (x_k - S μ_j)                                                    (1)
    Cov[x_0 | x_k, j] = C_j - C_j S V_j⁻¹ S C_j                                                          (2)
    E[x_0 | x_k] = Σ_j p_j E[x_0 | x_k, j],   p_j ∝ w_j N(x_k; S μ_j, V_j)                               (3)

A clean channel has s = 1 and n = 0: (1) then conditions on it exactly, which needs C_j to be positive definite there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..physics.measurements import Measurements
from .prior import Recipe
from .schedule import Schedule, cosine_schedule

CACHED_LEVELS = 64
ERROR_DRAWS = 2000


@dataclass(frozen=True)
class Posterior:
    """p(x | y) of Z slices, Σ_j weights[z, j] N(means[z, j], covariances[j]).

    Attributes:
        weights: (Z, J).
        means: (Z, J, M, H, W).
        covariances: (J, N, N); they do not depend on the data.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor

    @property
    def mean(self) -> Tensor:
        """E[x | y], (Z, M, H, W)."""
        return torch.einsum("zj,zj...->z...", self.weights, self.means)

    @property
    def variance(self) -> Tensor:
        """Variance of every pixel, (Z, M, H, W): within the components plus between them."""
        within = self.covariances.diagonal(dim1=-2, dim2=-1).reshape(-1, *self.means.shape[2:])
        between = (self.means - self.mean[:, None]).square()
        return torch.einsum("zj,zj...->z...", self.weights, within + between)


@dataclass(frozen=True)
class _Noised:
    """What one tuple of levels makes of the components: S μ (J, N); C S V⁻¹ and V's Cholesky factor (J, N, N)."""

    mean: Tensor
    gain: Tensor
    factor: Tensor


class MixturePrior:
    """x_0 ~ Σ_j w_j N(μ_j, C_j), in float64.

    Args:
        weights: w (J,), normalised here.
        means: μ (J, M, H, W).
        covariances: C (J, N, N) over the flattened (M, H, W), positive definite.
        schedule: noise levels; cosine by default.
    """

    noise_levels: Recipe = "per_modality"
    contrast: None = None  # the denoiser is exact

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor, schedule: Schedule | None = None) -> None:
        self.schedule = cosine_schedule() if schedule is None else schedule
        self.shape = tuple(means.shape[1:])
        self.log_weights = torch.as_tensor(weights, dtype=torch.float64).log().log_softmax(0)
        self.means = means.double().flatten(1)
        self.covariances = covariances.double()
        self._factors = torch.linalg.cholesky(self.covariances)
        self._noised_at: dict[tuple[int, ...], _Noised] = {}
        self._error_at: dict[tuple[int, frozenset[int], int], float] = {}

    @property
    def channels(self) -> int:
        """M."""
        return self.shape[0]

    def draw(self, count: int, seed: int = 0) -> Tensor:
        """``count`` stacks from the prior, (count, M, H, W)."""
        generator = torch.Generator().manual_seed(seed)
        component = torch.multinomial(self.log_weights.exp(), count, replacement=True, generator=generator)
        white = torch.randn(count, self.means.shape[1], generator=generator, dtype=torch.float64)
        x0 = self.means[component] + torch.einsum("bij,bj->bi", self._factors[component], white)
        return x0.reshape(count, *self.shape)

    def x0_hat(self, x: Tensor, levels: Tensor) -> Tensor:
        """E[x_0 | x_k], eq. 3: x (B, M, H, W) and levels (B, M) → (B, M, H, W), differentiable in x."""
        distinct, which = levels.cpu().unique(dim=0, return_inverse=True)
        flat, x0_hat = x.flatten(1).double(), torch.empty_like(x.flatten(1), dtype=torch.float64)
        for i, row in enumerate(distinct.tolist()):
            weights, means = self._components(flat[which == i], self._noised(tuple(row)))
            x0_hat[which == i] = torch.einsum("jb,jbn->bn", weights, means)
        return x0_hat.reshape(x.shape).to(x.dtype)

    def error_variance(self, channel: int, companions: frozenset[int], level: int) -> float:
        """r_k², the mean over pixels of E (x0_hat - x_0)²: the trace of eq. 2, averaged over x_k for a mixture."""
        key = (channel, companions, level)
        if key not in self._error_at:
            levels = tuple(0 if m in companions else level for m in range(self.channels))
            self._error_at[key] = self._mean_square_error(levels)[channel]
        return self._error_at[key]

    def posterior(self, measurements: Measurements) -> Posterior:
        """The exact p(x | y) of every slice; operators must be the same for all slices.

        First the available images, then what was measured: with P, m the covariance and mean that the images leave,
        Q = (P⁻¹ + A^H A / v)⁻¹ and x | y, j ~ N(m + Q A^H (y - A m) / v, Q). Each step also weighs component j by the
        likelihood that it gives to what was measured.
        """
        measurements = measurements.in_prior_range()
        slices = measurements.slices or 1
        means = self.means.expand(slices, *self.means.shape).clone()
        log_weights, covariances = self.log_weights.expand(slices, -1), self.covariances
        if measurements.available:
            log_weights, means, covariances = self._given_images(measurements, log_weights, means)
        for m in measurements.measured:
            log_weights, means, covariances = self._given_measured(measurements, m, log_weights, means, covariances)
        return Posterior(log_weights.softmax(1), means.reshape(slices, -1, *self.shape), covariances)

    def _noised(self, levels: tuple[int, ...]) -> _Noised:
        if levels not in self._noised_at:
            abar = self.schedule.abar[list(levels)].repeat_interleave(self.means.shape[1] // self.channels)
            signal = abar.sqrt()
            covariances = signal[:, None] * self.covariances * signal + torch.diag(1 - abar)
            factor = torch.linalg.cholesky(covariances)
            gain = torch.cholesky_solve(signal[:, None] * self.covariances, factor).mT
            if len(self._noised_at) >= CACHED_LEVELS:
                self._noised_at.pop(next(iter(self._noised_at)))
            self._noised_at[levels] = _Noised(signal * self.means, gain, factor)
        return self._noised_at[levels]

    def _components(self, flat: Tensor, noised: _Noised) -> tuple[Tensor, Tensor]:
        """p_j (J, B) and E[x_0 | x_k, j] (J, B, N) for x_k (B, N): eqs. 3 and 1."""
        residual = flat - noised.mean[:, None]
        means = self.means[:, None] + residual @ noised.gain.mT
        if len(self.means) == 1:
            return torch.ones_like(residual[..., 0]), means
        return (self.log_weights[:, None] + _log_density(residual, noised.factor)).softmax(0), means

    def _mean_square_error(self, levels: tuple[int, ...]) -> list[float]:
        """E (x0_hat - x_0)² of each channel; over x_k it is a mean of seeded draws, each with its exact variance."""
        noised = self._noised(levels)
        signal = self.schedule.abar[list(levels)].sqrt().repeat_interleave(self.means.shape[1] // self.channels)
        left = self.covariances - noised.gain @ (signal[:, None] * self.covariances)
        within = left.diagonal(dim1=-2, dim2=-1)
        if len(self.means) == 1:
            return within[0].reshape(self.channels, -1).mean(1).tolist()
        x0, k = self.draw(ERROR_DRAWS), torch.tensor([levels]).expand(ERROR_DRAWS, -1)
        eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        weights, means = self._components(self.schedule.add_noise(x0, eps, k).flatten(1), noised)
        between = means.square() - torch.einsum("jb,jbn->bn", weights, means).square()
        variance = torch.einsum("jb,jbn->n", weights, within[:, None] + between) / ERROR_DRAWS
        return variance.reshape(self.channels, -1).mean(1).tolist()

    def _given_images(
        self, measurements: Measurements, log_weights: Tensor, means: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        pixels = torch.arange(self.means.shape[1]).reshape(self.channels, -1)
        given = pixels[list(measurements.available)].flatten()
        data = [measurements.channels[m].data.double().flatten(1) for m in measurements.available]
        factor = torch.linalg.cholesky(self.covariances[:, given][:, :, given])
        gain = torch.cholesky_solve(self.covariances[:, given], factor).mT
        residual = torch.cat(data, dim=1)[:, None] - means[..., given]
        log_weights = log_weights + _log_density(residual.transpose(0, 1), factor).mT
        means = means + torch.einsum("jng,zjg->zjn", gain, residual)
        return log_weights, means, self.covariances - gain @ self.covariances[:, given]

    def _given_measured(
        self, measurements: Measurements, m: int, log_weights: Tensor, means: Tensor, covariances: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        channel, size = measurements.channels[m], self.means.shape[1]
        here = slice(m * size // self.channels, (m + 1) * size // self.channels)
        operator, v, image = channel.operator, channel.variance, self.shape[1:]
        basis = torch.eye(here.stop - here.start, dtype=torch.float64).reshape(-1, *image)
        precision = torch.zeros(size, size, dtype=torch.float64)
        precision[here, here] = operator.normal(basis).flatten(1) / v
        system = torch.eye(size, dtype=torch.float64) + covariances @ precision
        left = torch.linalg.solve(system, covariances)

        slices, components = means.shape[:2]
        forward = operator.forward(means[..., here].reshape(-1, *image))
        residual = channel.data.repeat_interleave(components, dim=0) - forward
        pull = torch.zeros_like(means)
        pull[..., here] = operator.adjoint(residual).reshape(slices, components, -1) / v
        shift = torch.einsum("jnp,zjp->zjn", left, pull)
        # Woodbury: r^H (A P A^H + v I)^-1 r = |r|² / v - g^T Q g with g = A^H r / v
        misfit = residual.abs().square().flatten(1).sum(1).reshape(slices, components) / v - (pull * shift).sum(-1)
        log_weights = log_weights - 0.5 * (misfit + torch.linalg.slogdet(system).logabsdet)
        return log_weights, means + shift, left


class GaussianPrior(MixturePrior):
    """x_0 ~ N(μ, C), a mixture of one: ``mean`` (M, H, W), ``covariance`` (N, N) over the flattened stack."""

    def __init__(self, mean: Tensor, covariance: Tensor, schedule: Schedule | None = None) -> None:
        super().__init__(torch.ones(1), mean[None], covariance[None], schedule)


def _log_density(residual: Tensor, factor: Tensor) -> Tensor:
    """log N(residual; 0, L L^T) up to a constant: residual (J, B, n), L (J, n, n) → (J, B)."""
    white = torch.linalg.solve_triangular(factor, residual.mT, upper=False)
    return -0.5 * white.square().sum(1) - factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)[:, None]
