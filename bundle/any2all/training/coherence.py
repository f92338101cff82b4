"""How alike the noise of neighbouring slices must be, so that samples change from slice to slice as the truth does.

A 2-D prior draws every slice by itself: with independent noise a modality of which the given images say little (PET)
flickers, and one that they settle (CT) is smoother along z than the truth. AR(1) noise moves both, so its correlation
is measured for every modality, and written with the prior. How much a head changes from slice to slice is its own, so
several heads are asked, of the training as well, in new renderings.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from ..diffusion.prior import NetworkPrior
from ..physics.measurements import Channel, Measurements
from ..samplers import MCS, Problem
from ..samplers.noise import VolumeNoise
from ..scores.flicker import z_flicker
from .cohort import validation_slices

FIRST_SEED, SLICES, LOWEST_MM = 4000, 12, -6.0
STEPS, SAMPLES = 10, 2
TRIED = (0.0, 0.5, 0.9)
HEAD_U = 0.04  # of the brightest modality; what is darker is air


def measure_slice_correlation(prior: NetworkPrior, heads: Sequence[str | Path]) -> dict[str, float]:
    """Per modality, the correlation at which z-flicker of single samples is the truth's (`PriorCard`).

    A block of neighbouring slices of one rendering of each head (label map); each modality is missing beside one MR
    image, and beside all of them where it is none. The flicker found at a few correlations (medians: one finding in a
    block that hardly changes may be far off) is interpolated.
    """
    flicker: dict[str, list[list[float]]] = {name: [] for name in prior.stack.names}
    card = prior.card
    block = [LOWEST_MM + i * card.spacing_mm[2] for i in range(SLICES)]
    for seed, head in enumerate(heads, FIRST_SEED):
        slices = validation_slices(head, prior.stack, card.matrix, card.spacing_mm, seeds=(seed,), positions_mm=block)
        for given in _given(prior):
            at = [_flicker(prior, slices, given, rho, seed) for rho in TRIED]
            for name in at[0]:
                flicker[name].append([found[name] for found in at])
    return {name: settled(np.median(found, axis=0)) for name, found in flicker.items() if found}


def settled(flicker: Sequence[float]) -> float:
    """The correlation between 0 and 0.9 at which flicker, found at `TRIED`, is 1 or nearest to it."""
    falling = np.minimum.accumulate(np.asarray(flicker, np.float64))
    return round(float(np.interp(1.0, falling[::-1], TRIED[::-1])), 2)


def _given(prior: NetworkPrior) -> list[tuple[int, ...]]:
    """The first MR image, the second, and all of them."""
    raw = [m for m, modality in enumerate(prior.stack.modalities) if modality.raw_data]
    return [(m,) for m in raw[:2]] + [tuple(raw)]


def _flicker(prior: NetworkPrior, slices: Tensor, given: tuple[int, ...], rho: float, seed: int) -> dict[str, float]:
    """Mean z-flicker of single samples of each missing modality of neighbouring slices (Z, M, H, W) in prior range."""
    truth = ((slices + 1) / 2).clamp(0, 1)
    channels = [Channel.available(truth[:, m]) if m in given else Channel.missing() for m in range(prior.channels)]
    problem = Problem.of(Measurements(tuple(channels)), tuple(truth.shape))
    noise = VolumeNoise(tuple(truth.shape[1:]), seed, "coherence", rho)
    samples = ((MCS(STEPS).sample(prior, problem, noise, SAMPLES, device=prior.device) + 1) / 2).clamp(0, 1).numpy()
    inside = (truth.amax(dim=1) > HEAD_U).numpy()
    found = {}
    for m, name in enumerate(prior.stack.names):
        if m not in given:
            each = [z_flicker(sample[:, m], truth[:, m].numpy(), inside) for sample in samples]
            if None not in each:
                found[name] = float(np.mean(each))
    return found
