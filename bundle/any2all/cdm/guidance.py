"""Does guidance move the C-UNet's output the right way? PSNR by guidance with paired intervals over renderings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from ..scores.statistics import Interval, bootstrap_mean, paired_bootstrap, psnr_of_mse
from .batches import FrozenEncoder
from .mdn import STEPS, sample_missing
from .predictor import CDM, Guidance

# What is told apart where guidance does not help: the spread of single draws, and MDN's error that all slices share.
AVERAGED, CORRECTED = "averaged", "averaged, corrected"
MEAN = "source, mean of samples"
GAPS = {
    "source - null": ("source", "null"),
    "mean of samples - null": (MEAN, "null"),
    "oracle - source": ("oracle", "source"),
    "source - unconditional": ("source", "unconditional"),
    "averaged - null": (AVERAGED, "null"),
    "averaged, corrected - null": (CORRECTED, "null"),
}


@dataclass(frozen=True)
class Guided:
    """One target from one set of given images: PSNR in dB by guidance, and what one guidance gains on another."""

    target: str
    given: tuple[str, ...]
    psnr: dict[str, float]
    gaps: dict[str, Interval]

    def to_json(self) -> dict[str, Any]:
        """JSON-able, rounded for people; a gap is its mean, or mean, low and high."""
        gaps = {
            name: [round(v, 2) for v in (gap.mean, gap.low, gap.high) if v is not None]
            for name, gap in self.gaps.items()
        }
        return {"psnr": {name: round(value, 2) for name, value in self.psnr.items()}, "gaps": gaps}


def compare_guidance(
    cdm: CDM, slices: Tensor, groups: Sequence[str], given: Sequence[str], targets: Sequence[str], samples: int = 4
) -> list[Guided]:
    """Each target from the given images, by every guidance that the slices allow.

    Args:
        cdm: the trained networks.
        slices: (N, M, H, W) in the prior range on CDM's grid.
        groups: rendering or subject of each slice.
        given: names of the given modalities; all others are filled in.
        targets: names of those that are scored. Where they are not all that is missing, nobody knows the rest (a real
            subject), and no column looks at the truth.
        samples: draws of MDN.
    """
    channels = [cdm.stack.index(name) for name in given]
    complete = set(given) | set(targets) == set(cdm.stack.names)
    images = {}
    for guidance in get_args(Guidance):
        if guidance != "oracle" or complete:
            truth = slices if guidance == "oracle" else None
            images[guidance] = cdm.predict(slices, channels, samples, guidance=guidance, truth=truth)
    if complete:
        images |= _explaining(cdm, slices, channels, samples)
    return [_guided(cdm, slices, groups, tuple(given), target, images) for target in targets]


@torch.no_grad()
def _explaining(cdm: CDM, slices: Tensor, given: Sequence[int], samples: int) -> dict[str, Tensor]:
    """Images (1, N, M, H, W) by the mean of MDN's draws, and by that mean without the error that all slices share.

    The second one looks at the truth: it explains, and is no result.
    """
    available = torch.zeros(slices.shape[:2], dtype=torch.bool, device=cdm.device)
    available[:, list(given)] = True
    slices = slices.to(cdm.device)
    y0 = FrozenEncoder(cdm.mrm, cdm.card.standardisation)(slices, torch.ones_like(available))
    generator = torch.Generator().manual_seed(0)
    draws = [
        sample_missing(
            *(cdm.mdn, torch.randn(y0.shape, generator=generator).to(cdm.device), ~available, y0, available),
            *(cdm.schedule, STEPS),
        )
        for _ in range(samples)
    ]
    mean = torch.stack(draws).mean(0)
    shared = ((mean - y0) * ~available[..., None]).mean(0, keepdim=True)
    return {
        name: cdm.cunet(slices, available, y, ~available).float().cpu()[None]
        for name, y in ((AVERAGED, mean), (CORRECTED, mean - shared))
    }


def _guided(
    cdm: CDM, slices: Tensor, groups: Sequence[str], given: tuple[str, ...], target: str, images: dict[str, Tensor]
) -> Guided:
    m = cdm.stack.index(target)

    def errors(image: Tensor) -> np.ndarray:
        """MSE in u of each slice, averaged over samples."""
        return ((image - slices[:, m]) / 2).square().mean(dim=(-2, -1)).reshape(-1, len(slices)).mean(0).numpy()

    mse = {name: errors(drawn[:, :, m]) for name, drawn in images.items()}
    mse[MEAN] = errors(images["source"][:, :, m].mean(0))
    psnr = {name: bootstrap_mean(error, groups, reduce=psnr_of_mse).mean for name, error in mse.items()}
    known = {name: pair for name, pair in GAPS.items() if set(pair) <= set(mse)}
    gaps = {name: paired_bootstrap(mse[a], mse[b], groups, reduce=psnr_of_mse) for name, (a, b) in known.items()}
    return Guided(target, given, psnr, gaps)
