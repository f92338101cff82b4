r"""MDS, multimodal decomposition sampling (Any2all; from DDS, Chung, Lee, Ye, ICLR 2024).

Notation
    =========  ====================================================================
    k, k'      noise level and the next one; all channels share it
    x0_hat     E[x_0 | x_k]
    x0'        x0_hat after data consistency
    γ          weight of the data against x0_hat
    η, β̃       how much of the noise is fresh (``eta_convention``, METHOD §3)
    =========  ====================================================================

Each step (inferred, after DDS):

    1.  x0_hat = clamp(E[x_0 | x_k]),  eps_hat = (x_k - sqrt(abar_k) x0_hat) / sqrt(1 - abar_k)
    2.  available:     x0' = 2 y - 1
        measured:      x0' = argmin_x γ/2 ||y' - A x||² + 1/2 ||x - x0_hat||²
        missing:       x0' = x0_hat
    3.  x_{k'} = sqrt(abar_{k'}) x0' + sqrt(1 - abar_{k'} - η² β̃²) eps_hat + η β̃ z

Step 2 of a channel that couples slices is solved between the halves of a step (`VolumeSampler`).

``faithful`` neither clamps nor re-derives eps_hat and solves step 2 by five conjugate-gradient iterations, as DDS does;
where slices are coupled, which DDS does not know, by as many as convergence takes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.prior import Prior
from ..diffusion.schedule import Schedule, uniform_pairs
from ..physics.cg import conjugate_gradient
from ..physics.measurements import Channel, Measurements
from .base import Pair, Rows, VolumeSampler, all_at
from .updates import EtaConvention, beta_tilde, ddim_update, noise_estimate

FAITHFUL_CG_ITERATIONS = 5


@dataclass
class MDS(VolumeSampler):
    """See the module. ``clamp`` is off for analytic priors whose images are not confined to [-1, 1]."""

    steps: int = 150
    eta: float = 0.85
    eta_convention: EtaConvention = "dds"
    gamma: float = 20.0
    faithful: bool = False
    clamp: bool = True
    name = "mds"

    def pairs(self, schedule: Schedule) -> list[Pair]:
        return uniform_pairs(self.steps, schedule.steps)

    @torch.no_grad()
    def estimate(self, prior: Prior, x: Tensor, k: int, k_next: int, rows: Rows) -> Tensor:
        x0_hat = prior.x0_hat(x, all_at(k, x))
        return x0_hat.clamp(-1, 1) if self.clamp and not self.faithful else x0_hat

    def data_weight(self, prior: Prior, m: int, k: int, measurements: Measurements) -> float:
        return self.gamma

    @torch.no_grad()
    def update(self, schedule: Schedule, x: Tensor, x0_hat: Tensor, k: int, k_next: int, rows: Rows) -> Tensor:
        abar, abar_next = schedule.at(k), schedule.at(k_next)
        eps_hat = noise_estimate(x, x0_hat, abar)
        x0 = self.data_consistency(x0_hat, rows)
        if k_next == 0:
            return x0
        spread = self.eta * beta_tilde(abar, abar_next, self.eta_convention)
        return ddim_update(x0, eps_hat, rows.noise(), abar_next, spread)

    def data_consistency(self, x0_hat: Tensor, rows: Rows) -> Tensor:
        """Step 2 for all channels (B, M, H, W)."""
        x0 = rows.joined(rows.clean(x0_hat))
        for m, solver in rows.consistency.items():
            if self.faithful:
                x0[:, m] = self._few_iterations(x0_hat[:, m], rows.measurements.channels[m])
            else:
                x0[:, m] = solver.proximal(x0_hat[:, m], self.gamma, rows.slices)
        return x0

    def _few_iterations(self, x0_hat: Tensor, channel: Channel) -> Tensor:
        """(I + γ A^H A) x0' = x0_hat + γ A^H y' by five conjugate-gradient iterations from x0_hat (DDS, Alg. 1)."""
        operator = channel.operator
        return conjugate_gradient(
            lambda z: z + self.gamma * operator.normal(z),
            x0_hat + self.gamma * operator.adjoint(channel.data),
            x0=x0_hat,
            iterations=FAITHFUL_CG_ITERATIONS,
            tolerance=0.0,
        )
