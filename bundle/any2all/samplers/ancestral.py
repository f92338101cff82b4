"""Unconditional DDPM sampling: x_1000 ~ N(0, I) → a whole stack (METHOD §3, `ancestral`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.prior import Prior
from ..diffusion.schedule import Schedule, uniform_pairs
from .base import Pair, Rows, Sampler, all_at
from .updates import ancestral_update


@dataclass
class Ancestral(Sampler):
    """DDPM with the posterior's own variance (fixed-small), re-spaced properly for n < 1000 (Ho et al., 2020, Alg. 2).

    It ignores all measurements. ``clamp``: hold x0_hat in the prior range.
    """

    steps: int = 1000
    clamp: bool = True
    name = "ancestral"

    def pairs(self, schedule: Schedule) -> list[Pair]:
        return uniform_pairs(self.steps, schedule.steps)

    @torch.no_grad()
    def step(self, prior: Prior, x: Tensor, k: int, k_next: int, rows: Rows) -> Tensor:
        x0_hat = prior.x0_hat(x, all_at(k, x))
        if self.clamp:
            x0_hat = x0_hat.clamp(-1, 1)
        if k_next == 0:
            return x0_hat
        return ancestral_update(x, x0_hat, rows.noise(), prior.schedule.at(k), prior.schedule.at(k_next))
