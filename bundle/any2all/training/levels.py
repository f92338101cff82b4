"""Noise levels drawn for training: one for the whole stack, or one for every channel (METHOD §2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ..diffusion.prior import Recipe
from ..errors import Any2allError


@dataclass(frozen=True)
class LevelMixture:
    """How often the ``per_modality`` recipe draws which pattern; the rest of the draws are all independent.

    Args:
        equal: fraction of stacks whose channels share one level (this keeps the paper's samplers working).
        companions: fraction with a random proper subset clean (level 0) and the others at one level.
        pure_noise: among the latter, how often that level is T (the one-pass posterior mean lives there).
        idle: how often, where channels share a level, some of them are at T instead, like images that a patient lacks.

    With ``equal`` 0, ``companions`` 1 and ``pure_noise`` 1 the network sees given channels clean and nothing of the
    others (sqrt(abar_1000) = 5e-5): it learns a regression, the baseline without diffusion.
    """

    equal: float = 0.40
    companions: float = 0.45
    pure_noise: float = 0.15
    idle: float = 0.0

    @classmethod
    def of(cls, settings: Mapping[str, float]) -> LevelMixture:
        """From a config. Raises Any2allError for fractions that are none, and for unknown ones."""
        known = asdict(cls())
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise Any2allError("unknown fraction", key=f"mixture.{unknown[0]}", allowed=tuple(known))
        mixture = cls(**settings)
        for key, value in (*asdict(mixture).items(), ("equal + companions", mixture.equal + mixture.companions)):
            if not 0 <= value <= 1 + 1e-9:
                raise Any2allError("not a fraction", key=f"mixture.{key}", value=value, allowed="from 0 to 1")
        return mixture


def draw_levels(
    present: Tensor,
    recipe: Recipe,
    top: int,
    mixture: LevelMixture,
    generator: torch.Generator | None = None,
    acquired: Tensor | None = None,
) -> Tensor:
    """Levels (B, M) for stacks whose channels are ``present`` (B, M) bool; an absent channel is pure noise, level T.

    Of the present ones only ``acquired`` channels (None: all) are ever clean, and one of them is always noised.
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
    acquired = present if acquired is None else acquired
    clean = _random_proper_subset(acquired, uniform)
    levels[with_companions & clean] = 0
    if mixture.idle:
        levels[_random_proper_subset(present & (levels > 0), uniform) & (uniform(batch, 1) < mixture.idle)] = top
    own = (uniform(batch, channels) * (top + 1)).long().clamp(max=top)
    own = torch.where(acquired, own, own.clamp(min=1))
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
