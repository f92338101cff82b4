"""Images that a real subject lacks, drawn by an earlier prior: to be looked at in training, never to be learnt.

Training on incomplete stacks shows the network real images only beside images that are pure noise. A sampler shows it
something else: while it draws all missing images together, each is half there. On real scans such samples drift away
from what one pass says, and a network that has seen real images beside half-drawn ones drifts less.

What is drawn here enters training as a noised input alone. No loss is taken there, and it is never given clean: the
network does not learn its own images as if a scanner had made them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..diffusion.prior import NetworkPrior, load_prior
from ..errors import Any2allError
from ..physics.measurements import Channel, Measurements
from ..samplers import MCS, Problem
from ..samplers.noise import VolumeNoise

STEPS = 10


@dataclass(frozen=True)
class Completion:
    """Draws what a stack lacks.

    Args:
        prior: of the ``per_modality`` recipe.
        draws: how many times each subject is completed.
        seed: of the draws.

    Raises:
        Any2allError: a prior of the ``shared`` recipe, which cannot be given clean images.
    """

    prior: NetworkPrior
    draws: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.prior.noise_levels != "per_modality":
            raise Any2allError(
                "this prior cannot complete a stack", key="complete_with", value="shared", allowed=("per_modality",)
            )

    @classmethod
    def by(cls, model_file: str | Path, device: torch.device | str, seed: int) -> Completion:
        """With a prior's file, on a device. Raises Any2allError for a file that is no such prior."""
        return cls(load_prior(model_file, device), seed=seed)

    def of(self, image: Tensor, present: Tensor, subject: str) -> Tensor:
        """(draws, Z, M, H, W) in [-1, 1] of a stack (Z, M, H, W) that has the modalities ``present`` (M,) bool.

        What is present stays as it is.
        """
        u = (image + 1) / 2
        channels = [Channel.available(u[:, m]) if has else Channel.missing() for m, has in enumerate(present.tolist())]
        problem = Problem.of(Measurements(tuple(channels)), tuple(image.shape))
        noise = VolumeNoise(tuple(image.shape[1:]), self.seed, f"completion/{subject}")
        drawn = MCS(STEPS).sample(self.prior, problem, noise, self.draws, device=self.prior.device)
        return torch.where(present[:, None, None], image, drawn.cpu().clamp(-1, 1))
