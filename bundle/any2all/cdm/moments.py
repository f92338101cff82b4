r"""Do MDN's samples have the moments of the standardised y_0 that they stand for?

Notation
    ========  =========================================================================================
    y         y_0 of held-out slices (N, D) of one modality, standardised: the truth
    ŷ         draws for the same slices (K, N, D), given the other modalities or given nothing
    μ, C      mean (D,) and covariance (D, D), over slices, or over slices and draws
    ========  =========================================================================================

All are in units of the training images' standard deviation. A draw for a slice is compared with the truth of that
slice in its distance only: moments tell whether draws are distributed as the truth is, the distance whether they
belong to their slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor

from ..scores.statistics import Interval, paired_bootstrap
from .batches import FrozenEncoder
from .mdn import STEPS, sample_missing
from .predictor import CDM

CHUNK = 32
# What draws given the other modalities are held to. The validation head lies 0.4 to 0.55 from the training's mean with
# 0.6 to 0.75 of its variance, so draws that took the average head for this one would be out of these bounds.
MOST_MEAN_ERROR, MOST_COVARIANCE_ERROR, VARIANCE_RATIO = 0.33, 0.33, (0.75, 1.33)


@dataclass(frozen=True)
class Moments:
    """How draws of one modality compare with the truth.

    Attributes:
        mean_error: ||μ_ŷ - μ_y|| / sqrt(D), in training standard deviations.
        covariance_error: ||C_ŷ - C_y||_F / ||C_y||_F.
        variance_ratio: tr C_ŷ / tr C_y.
    """

    mean_error: float
    covariance_error: float
    variance_ratio: float

    @property
    def within_bounds(self) -> bool:
        low, high = VARIANCE_RATIO
        small = self.mean_error <= MOST_MEAN_ERROR and self.covariance_error <= MOST_COVARIANCE_ERROR
        return small and low <= self.variance_ratio <= high


@dataclass(frozen=True)
class Samples:
    """MDN's samples of one modality on held-out slices.

    Attributes:
        modality: its name.
        head: mean (RMS over features) and mean variance of the truth itself; of the training images they are 0 and 1.
        given, nothing: moments of draws given all other modalities, and given nothing.
        distance, distance_nothing: mean squared difference of a draw and the truth of its slice.
        closer: how much closer draws given the others are, with its interval over renderings.
    """

    modality: str
    head: tuple[float, float]
    given: Moments
    nothing: Moments
    distance: float
    distance_nothing: float
    closer: Interval

    def to_json(self) -> dict[str, Any]:
        """JSON-able, rounded for people."""
        found = {name: [round(value, 3) for value in astuple(getattr(self, name))] for name in ("given", "nothing")}
        squared = {name: round(getattr(self, name), 3) for name in ("distance", "distance_nothing")}
        gap = (self.closer.mean, self.closer.low, self.closer.high)
        closer = [round(value, 3) for value in gap if value is not None]
        return {"head": [round(value, 3) for value in self.head], **found, **squared, "closer": closer}


def moments(drawn: Tensor, truth: Tensor) -> Moments:
    """Of draws (K, N, D) beside the truth (N, D), all slices and draws together."""
    flat = drawn.flatten(0, 1).double()
    truth = truth.double()
    c_drawn, c_truth = torch.cov(flat.T, correction=0), torch.cov(truth.T, correction=0)
    return Moments(
        float((flat.mean(0) - truth.mean(0)).square().mean().sqrt()),
        float((c_drawn - c_truth).norm() / c_truth.norm()),
        float(c_drawn.trace() / c_truth.trace()),
    )


@torch.no_grad()
def check_samples(cdm: CDM, slices: Tensor, groups: Sequence[str], samples: int = 4, seed: int = 0) -> list[Samples]:
    """Every modality in its turn, drawn ``samples`` times for each slice.

    ``slices`` (N, M, H, W) are complete, on CDM's grid and in the prior range; ``groups`` names the rendering of each.
    One rendering alone has no interval.
    """
    generator, found = torch.Generator().manual_seed(seed), []
    everything = torch.ones(slices.shape[:2], dtype=torch.bool, device=cdm.device)
    encoder = FrozenEncoder(cdm.mrm, cdm.card.standardisation)
    y0 = torch.cat([encoder(part.to(cdm.device), everything[: len(part)]) for part in slices.split(CHUNK)])
    for m, name in enumerate(cdm.stack.names):
        wanted = torch.zeros_like(everything)
        wanted[:, m] = True
        truth, drawn = y0[:, m].cpu(), []
        for given in (~wanted, torch.zeros_like(wanted)):
            starts = [torch.randn(y0.shape, generator=generator).to(cdm.device) for _ in range(samples)]
            draws = [sample_missing(cdm.mdn, start, wanted, y0, given, cdm.schedule, STEPS)[:, m] for start in starts]
            drawn.append(torch.stack(draws).cpu())
        apart, apart_nothing = ((draws - truth).square().mean(dim=(0, 2)).numpy() for draws in drawn)
        found.append(
            Samples(
                name,
                (float(truth.mean(0).square().mean().sqrt()), float(truth.var(0, correction=0).mean())),
                moments(drawn[0], truth),
                moments(drawn[1], truth),
                float(apart.mean()),
                float(apart_nothing.mean()),
                paired_bootstrap(apart_nothing, apart, groups),
            )
        )
    return found
