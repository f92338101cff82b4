"""How far the samples' own spread is from the error: the factor that makes `_std` mean what it says.

MCS in a few steps, on a network that is not exact, draws samples that agree more than they should. So the spread is
measured on validation heads, and written with the prior: one factor for each modality, reconstructed and synthetic.
Samples are drawn, centred and pooled here as a study's are by default.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..diffusion.prior import NetworkPrior
from ..kspace.simulate import simulate_kspace
from ..physics.measurements import Channel, Measurements
from ..samplers import MCS, Problem
from ..samplers.noise import VolumeNoise
from ..scores.uncertainty import scale_for_coverage
from ..spread import std_of
from ..study.presets import CENTRE

LEVEL = 0.9
STEPS, SAMPLES, MOST_SLICES = 10, 4, 12
NOISE_STD = 0.01
HEAD_U = 0.04  # of the brightest modality; what is darker is air, where every sample is right


def measure_std_scale(prior: NetworkPrior, slices: Tensor) -> dict[str, dict[str, float]]:
    """Factors by role and modality (`PriorCard.std_scale`), each over several sets of companions.

    Args:
        prior: of the ``per_modality`` recipe.
        slices: complete validation slices (B, M, H, W) in the prior range; up to twelve of them are used.
    """
    truth = ((slices.cpu() + 1) / 2).clamp(0, 1)
    truth = truth[torch.linspace(0, len(truth) - 1, min(len(truth), MOST_SLICES)).round().long()]
    inside = (truth.amax(dim=1) > HEAD_U).numpy()
    scales: dict[str, dict[str, float]] = {}
    for role, raw in (("reconstructed", True), ("synthetic", False)):
        scales[role] = {}
        for m, modality in enumerate(prior.stack.modalities):
            if raw and not modality.raw_data:
                continue
            parts = [_draw(prior, truth, m, given, raw) for given in _companions(prior, m) if given or raw]
            if not parts:
                continue
            samples = np.concatenate([part[:, :, m].numpy() for part in parts], axis=1).clip(0, 1)
            true, mask = (np.concatenate([image] * len(parts)) for image in (truth[:, m].numpy(), inside))
            drawn = (samples.std(axis=0) > 0) | (true > HEAD_U)  # in what is air there is no spread to scale
            factor = scale_for_coverage(samples, true, mask & drawn, std_of(samples), LEVEL)
            if factor is not None:
                scales[role][modality.name] = round(factor, 3)
    return scales


def _companions(prior: NetworkPrior, m: int) -> Iterator[tuple[int, ...]]:
    """One given MR image, and all the other MR images."""
    others = [i for i, modality in enumerate(prior.stack.modalities) if modality.raw_data and i != m]
    yield tuple(others[:1])
    yield tuple(others)


def _draw(prior: NetworkPrior, truth: Tensor, m: int, given: Sequence[int], raw: bool) -> Tensor:
    """Samples (K, B, M, H, W) in u of channel m, from its R = 4 k-space or from nothing of its own."""
    channels = [Channel.missing()] * prior.channels
    for i in given:
        channels[i] = Channel.available(truth[:, i])
    if raw:
        channels[m] = simulate_kspace(truth[:, m].numpy(), noise_std=NOISE_STD).channel()
    problem = Problem.of(Measurements(tuple(channels)), tuple(truth.shape))
    centre = {} if raw else {"centre": CENTRE, "mean_network": prior.mean_network}
    sampler = MCS(STEPS, consistency="moment", refill=False, **centre)
    noise = VolumeNoise(tuple(truth.shape[1:]), subject="dispersion")
    return (sampler.sample(prior, problem, noise, SAMPLES, device=prior.device) + 1) / 2
