"""What a scanner adds to tissue signals: point spread, coil shading, noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .fields import SmoothField

if TYPE_CHECKING:
    from .render import RenderGrid


def gaussian_rows(at: Tensor, source: Tensor, sigma: float) -> Tensor:
    """Matrix (len(at), len(source)) whose rows are Gaussian weights that sum to one (units of ``at``)."""
    weights = torch.exp(-0.5 * ((at[:, None] - source[None]) / max(sigma, 1e-3)) ** 2)
    return weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-12)


def _blur(image: Tensor, sigmas_px: Sequence[float]) -> Tensor:
    """Separable Gaussian over the last two axes, sigma in pixels."""
    h, w = (torch.arange(n, dtype=torch.float32, device=image.device) for n in image.shape[-2:])
    return gaussian_rows(h, h, sigmas_px[0]) @ image @ gaussian_rows(w, w, sigmas_px[1]).T


def blur_in_plane(image: Tensor, sigma_px: float) -> Tensor:
    """In-plane point spread of a reconstruction (Z, H, W)."""
    return _blur(image, (sigma_px, sigma_px))


def band_limited_noise(
    shape: Sequence[int], rng: torch.Generator, sigmas_px: Sequence[float], device: torch.device
) -> Tensor:
    """Gaussian noise of unit variance, correlated in the plane as a reconstruction kernel of that width leaves it."""
    noise = _blur(torch.randn(tuple(shape), generator=rng).to(device), sigmas_px)
    return noise / noise.std().clamp(min=1e-6)


def bias_field(rng: torch.Generator, strength: float, grid: RenderGrid, device: torch.device) -> Tensor:
    """Smooth multiplicative shading exp(strength f) of a receive coil, (Z, H, W)."""
    field = SmoothField(rng, 85.0, 1, device)
    axes = (grid.slice_positions_mm, grid.positions(0), grid.positions(1))
    return torch.exp(strength * field(*(torch.as_tensor(a, dtype=torch.float32, device=device) for a in axes))[0])


def add_rician_noise(image: Tensor, sigma: float, rng: torch.Generator) -> Tensor:
    """Magnitude of a complex image with Gaussian noise of standard deviation ``sigma`` per component."""
    real, imaginary = torch.randn((2, *image.shape), generator=rng).to(image.device) * (sigma / math.sqrt(2))
    return torch.hypot(image + real, imaginary)
