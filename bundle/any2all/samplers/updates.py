r"""One step from level k to k' given x0_hat, without any measurement.

Notation
    ========  ===================================================
    abar      abar_k, ``abar_next`` = abar_{k'}
    x0        the estimate of the clean stack, after data consistency
    eps       the noise that goes with it
    eta       0: deterministic; 1: as much fresh noise as DDPM
    z         fresh noise ~ N(0, I)
    ========  ===================================================
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

EtaConvention = Literal["dds", "ddim"]


def noise_estimate(x: Tensor, x0: Tensor, abar: float) -> Tensor:
    """eps_hat = (x_k - sqrt(abar_k) x0) / sqrt(1 - abar_k)."""
    return (x - math.sqrt(abar) * x0) / math.sqrt(1 - abar)


def beta_tilde(abar: float, abar_next: float, convention: EtaConvention) -> float:
    """``dds``: sqrt(1 - abar_{k'}); ``ddim``: sqrt((1-abar_{k'})/(1-abar_k) (1 - abar_k/abar_{k'})) (DDIM eq. 16)."""
    if convention == "dds":
        return math.sqrt(1 - abar_next)
    return math.sqrt((1 - abar_next) / (1 - abar)) * math.sqrt(1 - abar / abar_next)


def ddim_update(x0: Tensor, eps: Tensor, z: Tensor, abar_next: float, spread: float) -> Tensor:
    """x_{k'} = sqrt(abar') x0 + sqrt(1 - abar' - spread²) eps + spread z, spread = η β̃ (DDIM eq. 12)."""
    direction = math.sqrt(max(1 - abar_next - spread**2, 0.0))
    return math.sqrt(abar_next) * x0 + direction * eps + spread * z


def ancestral_update(x: Tensor, x0: Tensor, z: Tensor, abar: float, abar_next: float) -> Tensor:
    """Mean and fixed-small variance of q(x_{k'} | x_k, x_0) (DDPM eqs. 6–7), for any k' < k.

    With alpha = abar_k / abar_{k'} and beta = 1 - alpha this is properly re-spaced: no step of 1 is assumed.
    """
    alpha = abar / abar_next
    beta = 1 - alpha
    mean = math.sqrt(abar_next) * beta / (1 - abar) * x0 + math.sqrt(alpha) * (1 - abar_next) / (1 - abar) * x
    return mean + math.sqrt(beta * (1 - abar_next) / (1 - abar)) * z


def dpm_solver_update(x: Tensor, x0: Tensor, abar: float, abar_next: float) -> Tensor:
    """First-order step of DPM-Solver++ for data prediction; give an extrapolated x0 for the second order (2M).

    x_{k'} = (σ'/σ) x_k + (α' - α σ'/σ) x0 with α = sqrt(abar), σ = sqrt(1 - abar)  (Lu et al., eq. 12, rewritten).
    """
    ratio = math.sqrt((1 - abar_next) / (1 - abar))
    return ratio * x + (math.sqrt(abar_next) - math.sqrt(abar) * ratio) * x0


def half_log_snr(abar: float) -> float:
    """λ = log(α / σ)."""
    return 0.5 * math.log(abar / (1 - abar))
