"""Small random problems for the physics tests."""

from __future__ import annotations

import torch
from any2all.physics.measurements import Channel
from any2all.physics.operators import MulticoilFourier
from torch import Tensor


def random_maps(slices: int, coils: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Complex128 coil maps with sum |S|^2 = 1."""
    maps = torch.randn(slices, coils, height, width, dtype=torch.complex128, generator=_generator(seed))
    return maps / maps.abs().square().sum(dim=1, keepdim=True).sqrt()


def line_mask(width: int, fraction: float = 0.4, seed: int = 0) -> Tensor:
    """A random 1-D mask ``(W,)``."""
    mask = (torch.rand(width, generator=_generator(seed), dtype=torch.float64) < fraction).double()
    mask[width // 2] = 1
    return mask


def scattered_mask(height: int, width: int, seed: int = 0) -> Tensor:
    """A random 2-D mask ``(H, W)``."""
    return (torch.rand(height, width, generator=_generator(seed), dtype=torch.float64) < 0.4).double()


def kspace_channel(operator: MulticoilFourier, slices: int, noise_std: float = 0.05, seed: int = 0) -> Channel:
    """A channel with random images behind random noise."""
    image = torch.rand(slices, *operator.image_shape, dtype=torch.float64, generator=_generator(seed))
    clean = operator.forward(image)
    noise = torch.randn(clean.shape, dtype=clean.dtype, generator=_generator(seed + 1)) * noise_std
    return Channel("undersampled", operator, clean + operator.mask[:, None] * noise, noise_std)


def dense(operator: MulticoilFourier, slices: int = 1) -> Tensor:
    """A of one slice as a real matrix ``(2 C H W, h w)``: real parts above imaginary parts."""
    h, w = operator.image_shape
    columns = operator.forward(torch.eye(h * w, dtype=torch.float64).reshape(-1, h, w)).flatten(1)
    return torch.cat([columns.real, columns.imag], dim=1).T


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
