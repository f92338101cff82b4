"""What can be wrong with an image, by kind and strength: the feature network is trained to tell, FID and KID to notice.

Images are (N, H, W) in u; a strength of 0 leaves an image as it is, 1 is the worst.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

NOISE_STD = 0.12  # u
BLUR_PX = 2.0
FOLD = 4  # every fourth line keeps its full weight


def add_noise(u: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Magnitude of the image with complex Gaussian noise: Rician, std 0.12 u at strength 1."""
    std = NOISE_STD * strength[:, None, None]
    real, imaginary = (std * torch.randn(u.shape, generator=generator) for _ in range(2))
    return torch.hypot(u + real, imaginary)


def blur(u: Tensor, strength: Tensor) -> Tensor:
    """Gaussian blur in the plane, std 2 pixels at strength 1."""
    h, w = (torch.fft.fftfreq(n) for n in u.shape[-2:])
    squared = h[:, None] ** 2 + w[None, :] ** 2
    gain = torch.exp(-2 * math.pi**2 * (BLUR_PX * strength[:, None, None]) ** 2 * squared)
    return torch.fft.ifft2(torch.fft.fft2(u) * gain).real


def alias(u: Tensor, strength: Tensor) -> Tensor:
    """Fold along W: three lines of k-space of every four lose weight; at strength 1 they are zero (R = 4)."""
    lines = torch.arange(u.shape[-1])
    lost = (lines % FOLD != 0).float()
    weight = 1 - strength[:, None, None] * lost[None, None, :]
    return torch.fft.ifft(torch.fft.fft(u, dim=-1) * weight, dim=-1).abs()


def degrade(u: Tensor, kinds: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Each image (N, H, W) by its own kind (N,), an index of `DEGRADATIONS`, and strength (N,); clipped to [0, 1]."""
    out = u.clone()
    changes = {1: lambda x, s: add_noise(x, s, generator), 2: blur, 3: alias}
    for number, change in changes.items():
        chosen = kinds == number
        if chosen.any():
            out[chosen] = change(u[chosen], strength[chosen])
    return out.clamp(0, 1)
