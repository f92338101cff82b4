"""Smooth random fields: cubic B-splines over a lattice of random numbers, anchored in the head's own millimetres.

f(z, h, w) = sum_abc N_abc B_a(z) B_b(h) B_c(w): evaluated on an axis-aligned grid it is three matrix products, and the
same head shows the same field on any grid.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

HALF_EXTENT_MM = 170.0
# Mean over positions of the sum of squared cubic B-spline weights along one axis (151/315): the variance of the field.
_VARIANCE_PER_AXIS = 151.0 / 315.0


def generator(seed: int, stream: int) -> torch.Generator:
    """CPU generator of one named stream of a head, so that one drawing never shifts another."""
    return torch.Generator().manual_seed((int(seed) * 1_000_003 + stream * 7919) % (2**63 - 1))


def lattice(rng: torch.Generator, knot_mm: float, channels: int = 1) -> Tensor:
    """Random numbers (channels, n, n, n) whose B-spline field has unit variance."""
    n = math.ceil(2 * HALF_EXTENT_MM / knot_mm) + 4
    return torch.randn(channels, n, n, n, generator=rng) / _VARIANCE_PER_AXIS**1.5


def basis(positions_mm: Tensor, knot_mm: float) -> tuple[Tensor, slice]:
    """Cubic B-spline weights (P, n) at positions in mm from the centre, clamped at the extent, and the lattice points
    that they belong to: those n that the positions reach."""
    u = (positions_mm.clamp(-HALF_EXTENT_MM, HALF_EXTENT_MM) + HALF_EXTENT_MM) / knot_mm
    first = u.floor()
    t = u - first
    weights = torch.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], dim=-1) / 6.0
    low, high = int(first.min()), int(first.max()) + 4
    index = first.long()[:, None] + torch.arange(-low, 4 - low, device=u.device)
    return torch.zeros(len(u), high - low, device=u.device).scatter_(1, index, weights), slice(low, high)


class SmoothField:
    """A lattice with one knot spacing, evaluated on axis-aligned grids: ``field(z, h, w)`` -> (channels, Z, H, W)."""

    def __init__(
        self, rng: torch.Generator, knot_mm: float, channels: int = 1, device: torch.device | str = "cpu"
    ) -> None:
        self.knot_mm = knot_mm
        self.values = lattice(rng, knot_mm, channels).to(device)

    def __call__(self, z: Tensor, h: Tensor, w: Tensor) -> Tensor:
        (by_z, a), (by_h, b), (by_w, c) = (basis(positions, self.knot_mm) for positions in (z, h, w))
        out = torch.einsum("za,mabc->mzbc", by_z, self.values[:, a, b, c])
        return torch.matmul(torch.matmul(by_h, out), by_w.T)
