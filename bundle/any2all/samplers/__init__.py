"""Samplers over one prior: ancestral, MPS, MDS (Any2all) and MCS (ours). See METHOD §3."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from ..diffusion.prior import Prior
from ..stack import Stack
from .ancestral import Ancestral
from .base import Problem, Sampler
from .mcs import MCS
from .mds import MDS
from .mps import MPS

if TYPE_CHECKING:
    from ..study import SamplerSettings

__all__ = ["Ancestral", "MCS", "MDS", "MPS", "Problem", "Sampler", "build_sampler"]


def build_sampler(
    settings: SamplerSettings,
    stack: Stack,
    outputs: Collection[str] | None = None,
    mean_network: Prior | None = None,
) -> Sampler:
    """The sampler that a study's settings describe.

    ``outputs`` are what is asked for (None: everything); ``mean_network`` states the mean on which mcs centres samples.
    """
    if settings.name == "mps":
        weights = {stack.index(name): weight for name, weight in settings.weights.items()}
        return MPS(settings.steps, settings.zeta, weights)
    if settings.name == "mds":
        return MDS(settings.steps, settings.eta, settings.eta_convention, settings.gamma, settings.faithful)
    wanted = None if outputs is None else frozenset(stack.index(name) for name in outputs)
    return MCS(
        settings.steps,
        settings.eta,
        settings.consistency,
        centre=settings.centre,
        mean_network=mean_network if settings.centre else None,
        wanted=wanted,
    )
