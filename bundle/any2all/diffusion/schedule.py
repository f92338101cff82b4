r"""The noise schedule, by levels (METHOD §2).

Notation
    ==========  =========================================================
    k           noise level 0 … T; level 0 is clean, k = (DDPM index) + 1
    abar_k      product of (1 - beta_i) over the first k steps
    sigma_k²    (1 - abar_k) / abar_k, the noise-to-signal ratio
    ==========  =========================================================

A noised image is ``x_k = sqrt(abar_k) x_0 + sqrt(1 - abar_k) eps``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

T = 1000
MAX_BETA = 0.999


@dataclass(frozen=True)
class Schedule:
    """``abar``: float64 tensor of shape (T + 1,), ``abar[0] == 1``, strictly decreasing."""

    abar: Tensor

    @property
    def steps(self) -> int:
        return len(self.abar) - 1

    def at(self, level: int) -> float:
        """abar_k as a Python float (float64)."""
        return float(self.abar[level])

    def sigma2(self, level: int) -> float:
        """Noise-to-signal ratio (1 - abar_k) / abar_k of a level."""
        return (1.0 - self.at(level)) / self.at(level)

    def planes(self, levels: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """``(sqrt(abar_k), sqrt(1 - abar_k))`` of levels (B, M), each shaped (B, M, 1, 1)."""
        abar = self.abar.to(levels.device)[levels]
        signal, noise = abar.sqrt(), (1.0 - abar).sqrt()
        return signal[..., None, None].to(dtype), noise[..., None, None].to(dtype)

    def add_noise(self, x0: Tensor, eps: Tensor, levels: Tensor) -> Tensor:
        """q(x_k | x_0): x0, eps (B, M, H, W), levels (B, M) → x_k (B, M, H, W)."""
        signal, noise = self.planes(levels, x0.dtype)
        return signal * x0 + noise * eps


def cosine_schedule(steps: int = T) -> Schedule:
    """Cosine schedule in float64 (Nichol & Dhariwal, ICML 2021, eq. 17) with beta clipped at 0.999."""

    def squared_cosine(fraction: float) -> float:
        return math.cos((fraction + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1.0 - squared_cosine((i + 1) / steps) / squared_cosine(i / steps), MAX_BETA) for i in range(steps)]
    alphas = 1.0 - torch.tensor(betas, dtype=torch.float64)
    return Schedule(torch.cat([torch.ones(1, dtype=torch.float64), alphas.cumprod(0)]))


def uniform_pairs(n: int, top: int = T) -> list[tuple[int, int]]:
    """``n`` explicit pairs (k, k_next) on the grid ``1 + round(linspace(top - 1, 0, n))``, the last pair (1, 0).

    >>> uniform_pairs(3)
    [(1000, 500), (500, 1), (1, 0)]
    """
    if not 1 <= n <= top:
        raise ValueError(f"the number of steps must lie in 1 … {top}, got {n}")
    grid = [1 + round(float(k)) for k in torch.linspace(top - 1, 0, n, dtype=torch.float64)]
    return list(zip(grid, [*grid[1:], 0]))


def log_snr_levels(schedule: Schedule, n: int, top: int = 991, bottom: int = 1) -> list[int]:
    """At most ``n`` distinct levels, uniform in log-SNR from ``top`` down to ``bottom``."""
    log_snr = -torch.log((1 - schedule.abar[1:]) / schedule.abar[1:])
    wanted = torch.linspace(float(log_snr[top - 1]), float(log_snr[bottom - 1]), n, dtype=torch.float64)
    nearest = [1 + int((log_snr - w).abs().argmin()) for w in wanted]
    return sorted(set(nearest), reverse=True)
