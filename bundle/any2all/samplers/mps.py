r"""MPS, multimodal posterior sampling (Any2all; from DPS, Chung et al., ICLR 2023, Alg. 1).

Notation
    =========  ====================================================================
    k          noise level, 1000 … 1; all channels share it
    x0_hat     E[x_0 | x_k], clamped to [-1, 1] inside the graph, as DPS does
    y'_m, A_m  measurement and operator of channel m in the prior range
    w_m        weight of channel m's block
    zeta       step size ζ
    =========  ====================================================================

Each step (inferred, after DPS with the gradient of the NORM; the squared form with ζ_k = ζ / (2 ||r||) is equal):

    1.  x0_hat = clamp(E[x_0 | x_k])
    2.  L = Σ_m w_m || y'_m - A_m x0_hat_m ||_2         per slice, never over a batch
    3.  x_{k'} = ancestral(x_k, x0_hat) - ζ ∇_{x_k} L
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..diffusion.prior import Prior
from ..diffusion.schedule import Schedule, uniform_pairs
from ..physics.measurements import Measurements
from .base import Pair, Rows, Sampler, all_at
from .updates import ancestral_update


@dataclass
class MPS(Sampler):
    """See the module. ``weights`` by channel index; default: 1 for measured data, 1 / (given images) for an image."""

    steps: int = 1000
    zeta: float = 1.0
    weights: Mapping[int, float] = field(default_factory=dict)
    clamp: bool = True
    name = "mps"

    def pairs(self, schedule: Schedule) -> list[Pair]:
        return uniform_pairs(self.steps, schedule.steps)

    def passes_of_step(self, k: int, k_next: int, schedule: Schedule, undersampled: bool) -> int:
        return 2

    @torch.enable_grad()
    def step(self, prior: Prior, x: Tensor, k: int, k_next: int, rows: Rows) -> Tensor:
        x = x.detach().requires_grad_(True)
        x0_hat = prior.x0_hat(x, all_at(k, x))
        if self.clamp:
            x0_hat = x0_hat.clamp(-1, 1)
        misfit = self.misfit(x0_hat, rows.measurements)
        gradient = torch.autograd.grad(misfit.sum(), x)[0] if misfit.requires_grad else torch.zeros_like(x)
        if k_next == 0:
            return x0_hat - self.zeta * gradient
        abar, abar_next = prior.schedule.at(k), prior.schedule.at(k_next)
        return ancestral_update(x, x0_hat, rows.noise(), abar, abar_next) - self.zeta * gradient

    def misfit(self, x0_hat: Tensor, measurements: Measurements) -> Tensor:
        """Σ_m w_m ||y'_m - A_m x0_hat_m|| for each slice → (B,)."""
        total = x0_hat.new_zeros(len(x0_hat))
        for m in (*measurements.available, *measurements.measured):
            channel = measurements.channels[m]
            residual = (channel.data - channel.operator.forward(x0_hat[:, m])).flatten(1)
            squared = torch.view_as_real(residual).square().flatten(1) if residual.is_complex() else residual.square()
            total = total + self._weight(m, measurements) * squared.sum(1).clamp(min=1e-20).sqrt()
        return total

    def _weight(self, channel: int, measurements: Measurements) -> float:
        default = 1.0 / len(measurements.available) if channel in measurements.available else 1.0
        return self.weights.get(channel, default)
