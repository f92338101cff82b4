"""Small problems whose exact posterior is known, and how far a sampler is from it."""

from __future__ import annotations

import torch
from any2all.diffusion.oracles import GaussianPrior, MixturePrior
from any2all.diffusion.schedule import cosine_schedule
from any2all.physics.measurements import Channel, Measurements
from any2all.physics.operators import Identity, MulticoilFourier
from torch import Tensor

IMAGE = (4, 16)
NOISE_STD = 0.01


class WhitePrior:
    """x_0 ~ N(0, std²) in every pixel: the Gaussian oracle with a number in place of its matrices."""

    noise_levels = "per_modality"
    channels = 1
    contrast = None

    def __init__(self, std: float) -> None:
        self.schedule, self.variance = cosine_schedule(), std**2

    def x0_hat(self, x: Tensor, levels: Tensor) -> Tensor:
        signal, noise = self.schedule.planes(levels, x.dtype)
        return signal * self.variance / (signal**2 * self.variance + noise**2) * x

    def error_variance(self, channel: int, companions: frozenset[int], level: int) -> float:
        sigma2 = self.schedule.sigma2(level)
        return self.variance * sigma2 / (self.variance + sigma2)


def field_covariance(length: float, image: tuple[int, int] = IMAGE, rough: float = 0.1) -> Tensor:
    """Unit-variance covariance (HW, HW) of a smooth image: a squared exponential and a ``rough`` share of white."""
    h, w = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in image), indexing="ij")
    squared = (h.flatten()[:, None] - h.flatten()).square() + (w.flatten()[:, None] - w.flatten()).square()
    return (1 - rough) * torch.exp(-squared / (2 * length**2)) + rough * torch.eye(len(squared), dtype=torch.float64)


def joint_covariance(stds: list[float], correlation: Tensor, field: Tensor) -> Tensor:
    """Images that share a spatial covariance (N, N) and are correlated pixel by pixel (M, M)."""
    scale = torch.tensor(stds, dtype=torch.float64)
    return torch.kron(scale[:, None] * correlation.double() * scale, field)


def smooth_coil_maps(coils: int, image: tuple[int, int] = IMAGE) -> Tensor:
    """Coils around the field of view, each with its own phase, sum |S|² = 1: (1, C, H, W) complex128."""
    h, w = torch.meshgrid(*(torch.linspace(-1, 1, n, dtype=torch.float64) for n in image), indexing="ij")
    angle = 2 * torch.pi * torch.arange(coils, dtype=torch.float64)[:, None, None] / coils
    distance = (h - 1.2 * torch.sin(angle)).square() + (w - 1.2 * torch.cos(angle)).square()
    maps = torch.exp(-distance / 2) * torch.exp(1j * (angle + 0.8 * h * torch.cos(angle) + 0.8 * w * torch.sin(angle)))
    return (maps / maps.abs().square().sum(0).sqrt())[None]


def undersampled(image: Tensor, acceleration: int = 4, coils: int = 4, seed: int = 0) -> Channel:
    """Equispaced multi-coil k-space of images (Z, H, W) in u, R-fold along W, with complex noise."""
    mask = torch.zeros(image.shape[-1], dtype=torch.float64)
    mask[::acceleration] = 1
    operator = MulticoilFourier(mask, smooth_coil_maps(coils, tuple(image.shape[-2:])))
    clean = operator.forward(image)
    noise = torch.randn(clean.shape, dtype=clean.dtype, generator=torch.Generator().manual_seed(seed)) * NOISE_STD
    return Channel("undersampled", operator, clean + operator.mask[:, None] * noise, NOISE_STD)


def flair_task(slices: int = 2) -> tuple[GaussianPrior, Measurements]:
    """T2FLAIR-like image from R = 4 k-space, with a clean T1-like image beside it."""
    correlation = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    covariance = joint_covariance([0.5, 0.5], correlation, field_covariance(1.2, rough=0.05))
    prior = GaussianPrior(torch.zeros(2, *IMAGE), covariance)
    truth = (prior.draw(slices, seed=3) + 1) / 2
    return prior, Measurements((Channel.available(truth[:, 0]), undersampled(truth[:, 1])))


def noisy_task(slices: int = 2) -> tuple[GaussianPrior, Measurements]:
    """PET-like noisy image, with a clean T1-like image beside it."""
    correlation = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    covariance = joint_covariance([0.5, 0.5], correlation, field_covariance(1.2, rough=0.05))
    prior = GaussianPrior(torch.zeros(2, *IMAGE), covariance)
    truth = (prior.draw(slices, seed=3) + 1) / 2
    noise = torch.randn(truth[:, 1].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    noisy = Channel.degraded(Identity(), truth[:, 1] + 0.1 * noise, 0.1)
    return prior, Measurements((Channel.available(truth[:, 0]), noisy))


def synthesis_task(slices: int = 4) -> tuple[MixturePrior, Measurements]:
    """CT-like image from a clean T1-like one; the pair has two modes, which T1 suggests but does not always decide."""
    image = (4, 8)
    field = field_covariance(1.5, image)
    modes = torch.tensor([[0.1, -0.5], [-0.1, 0.5]])
    correlations = (torch.tensor([[1.0, c], [c, 1.0]]) for c in (0.6, -0.6))
    covariances = torch.stack([joint_covariance([0.3, 0.15], c, field) for c in correlations])
    prior = MixturePrior(torch.tensor([0.5, 0.5]), modes[..., None, None].expand(2, 2, *image), covariances)
    truth = (prior.draw(slices, seed=5) + 1) / 2
    return prior, Measurements((Channel.available(truth[:, 0]), Channel.missing()))
