"""Noise levels drawn for training: one for the whole stack, or one for every channel (METHOD §2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.prior import Recipe


@dataclass(frozen=True)
class LevelMixture:
    """How often the ``per_modality`` recipe draws which pattern; the rest of the draws are all independent.

    Args:
        equal: fraction of stacks whose channels share one level (this keeps the paper's samplers working).
        companions: fraction with a random proper subset clean (level 0) and the others at one level.
        pure_noise: among the latter, how often that level is T (the one-pass posterior mean lives there).
    """

    equal: float = 0.40
    companions: float = 0.45
    pure_noise: float = 0.15


def draw_levels(
    present: Tensor, recipe: Recipe, top: int, mixture: LevelMixture, generator: torch.Generator | None = None
) -> Tensor:
    """Levels (B, M) for stacks whose channels are ``present`` (B, M) bool; an absent channel is pure noise, level T.

    The ``shared`` recipe draws one level 1 … T for all channels (Any2all, Sec. 3; DDPM).
    """
    batch, channels = present.shape
    device = present.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=device)

    common = 1 + (uniform(batch, 1) * top).long().clamp(max=top - 1)
    if recipe == "shared":
        if not bool(present.all()):
            raise ValueError("the shared recipe trains on complete stacks only")
        return common.expand(batch, channels).clone()

    pattern = uniform(batch, 1)
    with_companions = (pattern >= mixture.equal) & (pattern < mixture.equal + mixture.companions)
    independent = pattern >= mixture.equal + mixture.companions
    common = torch.where(with_companions & (uniform(batch, 1) < mixture.pure_noise), top, common)

    levels = common.expand(batch, channels).clone()
    clean = _random_proper_subset(present, uniform)
    levels[with_companions & clean] = 0
    own = (uniform(batch, channels) * (top + 1)).long().clamp(max=top)
    levels = torch.where(independent, own, levels)
    return torch.where(present, levels, top)


def _random_proper_subset(present: Tensor, uniform) -> Tensor:
    """A subset of the present channels (B, M) bool, non-empty where two are present, leaving at least one noised."""
    batch, channels = present.shape
    count = present.sum(1, keepdim=True)
    size = 1 + (uniform(batch, 1) * (count - 1).clamp(min=0)).floor().long()
    size = torch.minimum(size, (count - 1).clamp(min=0))
    order = uniform(batch, channels).masked_fill(~present, 2.0).argsort(1).argsort(1)
    return present & (order < size)
