"""From a training batch to what the network sees and what it must predict (METHOD §2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..diffusion.prior import Prediction, Recipe
from ..diffusion.schedule import Schedule, cosine_schedule
from ..errors import Any2allError
from .levels import LevelMixture, draw_levels

Weighting = Literal["plain", "min_snr"]
MIN_SNR_GAMMA = 5.0


def min_snr_weight(levels: Tensor, schedule: Schedule, prediction: Prediction) -> Tensor:
    """Weight of the squared error of a prediction at levels 1 … T, any shape (Hang et al., ICCV 2023, gamma = 5).

    min(SNR, gamma) on the error of x0_hat, with SNR = abar / (1 - abar). The error of eps is SNR times that of x0_hat,
    the error of v is SNR + 1 times it, hence the weights min(SNR, gamma) / SNR and min(SNR, gamma) / (SNR + 1). The
    latter vanishes at level T, where the one-pass posterior mean lives. Level 0 (nothing to learn) has weight 0.
    """
    abar = schedule.abar.to(levels.device)[levels]
    snr = abar / (1.0 - abar).clamp(min=torch.finfo(abar.dtype).tiny)
    weight = snr.clamp(max=MIN_SNR_GAMMA) / (snr if prediction == "eps" else snr + 1.0)
    return torch.where(levels > 0, weight, 0.0)


def check_recipe(noise_levels: str, prediction: str, loss_weighting: str) -> None:
    """Raise Any2allError for a word that is none of `Recipe`, `Prediction` and `Weighting`."""
    for key, word, words in (
        ("noise_levels", noise_levels, get_args(Recipe)),
        ("prediction", prediction, get_args(Prediction)),
        ("loss_weighting", loss_weighting, get_args(Weighting)),
    ):
        if word not in words:
            raise Any2allError("there is no such choice", key=key, value=word, allowed=words)


@dataclass
class PrepareNoisyStack:
    """The ``prepare_batch`` of MONAI's SupervisedTrainer.

    A batch holds ``image`` (B, M, H, W) in the prior range, ``present`` (B, M) bool, and ``acquired`` (B, M) bool (what
    is present and was not acquired is noised and has no weight; without the key, all that is present was acquired).
    Returned are x_k, the pair (target, weight) for `NoisedChannelLoss`, and the levels (B, M) as the network's second
    argument.

    Raises Any2allError as `check_recipe`.
    """

    noise_levels: Recipe = "per_modality"
    prediction: Prediction = "v"
    mixture: LevelMixture = field(default_factory=LevelMixture)
    schedule: Schedule = field(default_factory=cosine_schedule)
    weighting: Weighting = "plain"

    def __post_init__(self) -> None:
        check_recipe(self.noise_levels, self.prediction, self.weighting)

    def __call__(
        self, batch: Mapping[str, Tensor], device: Any = None, non_blocking: bool = False
    ) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, ...], dict[str, Any]]:
        x0 = torch.as_tensor(batch["image"]).to(device, non_blocking=non_blocking)
        present = torch.as_tensor(batch["present"]).to(device, non_blocking=non_blocking)
        acquired = torch.as_tensor(batch.get("acquired", present)).to(device, non_blocking=non_blocking) & present
        levels = draw_levels(present, self.noise_levels, self.schedule.steps, self.mixture, acquired=acquired)
        eps = torch.randn_like(x0)
        signal, noise = self.schedule.planes(levels, x0.dtype)
        x_k = torch.where(present[..., None, None], signal * x0 + noise * eps, eps)
        target = eps if self.prediction == "eps" else signal * eps - noise * x0
        weight = ((levels > 0) & acquired).to(x0.dtype)
        if self.weighting == "min_snr":
            weight = weight * min_snr_weight(levels, self.schedule, self.prediction).to(x0.dtype)
        return x_k, (target, weight), (levels,), {}


class NoisedChannelLoss(torch.nn.Module):
    """Weighted mean squared error of the prediction over the channels of positive weight: noised and present.

    ``forward(prediction (B, M, H, W), (target (B, M, H, W), weight (B, M)))`` → scalar.
    """

    def forward(self, prediction: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
        wanted, weight = target
        error = (prediction.float() - wanted).square().mean(dim=(2, 3))
        return (weight * error).sum() / (weight > 0).sum().clamp(min=1)
