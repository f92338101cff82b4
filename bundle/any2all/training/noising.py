"""From a training batch to what the network sees and what it must predict (METHOD §2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..diffusion.prior import Prediction, Recipe
from ..diffusion.schedule import Schedule, cosine_schedule
from .levels import LevelMixture, draw_levels


@dataclass
class PrepareNoisyStack:
    """The ``prepare_batch`` of MONAI's SupervisedTrainer.

    A batch holds ``image`` (B, M, H, W) in the prior range and ``present`` (B, M) bool. Returned are x_k, the pair
    (target, weight) for `NoisedChannelLoss`, and the levels (B, M) as the network's second argument.
    """

    noise_levels: Recipe = "per_modality"
    prediction: Prediction = "v"
    mixture: LevelMixture = field(default_factory=LevelMixture)
    schedule: Schedule = field(default_factory=cosine_schedule)

    def __call__(
        self, batch: Mapping[str, Tensor], device: Any = None, non_blocking: bool = False
    ) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, ...], dict[str, Any]]:
        x0 = torch.as_tensor(batch["image"]).to(device, non_blocking=non_blocking)
        present = torch.as_tensor(batch["present"]).to(device, non_blocking=non_blocking)
        levels = draw_levels(present, self.noise_levels, self.schedule.steps, self.mixture)
        eps = torch.randn_like(x0)
        signal, noise = self.schedule.planes(levels, x0.dtype)
        x_k = torch.where(present[..., None, None], signal * x0 + noise * eps, eps)
        target = eps if self.prediction == "eps" else signal * eps - noise * x0
        weight = ((levels > 0) & present).to(x0.dtype)
        return x_k, (target, weight), (levels,), {}


class NoisedChannelLoss(torch.nn.Module):
    """Mean squared error of the prediction over the channels that are noised and present.

    ``forward(prediction (B, M, H, W), (target (B, M, H, W), weight (B, M)))`` → scalar.
    """

    def forward(self, prediction: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
        wanted, weight = target
        error = (prediction.float() - wanted).square().mean(dim=(2, 3))
        return (weight * error).sum() / weight.sum().clamp(min=1.0)
