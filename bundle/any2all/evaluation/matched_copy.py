"""Histogram matching between contrasts, learnt on training slices: what `peers.MatchedCopy` copies with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..errors import Any2allError
from ..intensity import head_mask
from ..scores.metrics import psnr
from ..stack import Stack

QUANTILES = 1025


@dataclass(frozen=True, eq=False)
class MonotoneMap:
    """From one contrast to another inside the head: the voxel at quantile q of the source gets that of the target.

    Attributes:
        quantiles: of the target in u, at equal steps from 0 to 1.
        increasing: False: the brightest becomes the darkest, as from T1 to T2.
        psnr: in dB, of the copies of the training slices.
    """

    quantiles: np.ndarray
    increasing: bool
    psnr: float = float("nan")

    def apply(self, image: np.ndarray, head: np.ndarray) -> np.ndarray:
        """The copy of a source image (Z, H, W) inside its head (bool, the same shape); air, u = 0, outside."""
        copy = np.zeros(image.shape, np.float32)
        levels = _ranks(image[head])
        levels = levels if self.increasing else 1 - levels
        copy[head] = np.interp(levels, np.linspace(0, 1, len(self.quantiles)), self.quantiles)
        return copy


def fit_maps(slices: Tensor, stack: Stack, present: Tensor | None = None) -> dict[tuple[str, str], MonotoneMap]:
    """Quantiles, direction and training PSNR of every (source, target) that some slices have both of.

    A contrast may be inverted in another, so the increasing and the decreasing map are both tried on these slices.

    Args:
        slices: training slices (N, M, H, W) in u.
        stack: their modalities.
        present: bool (N, M), which modalities each slice has; all by default.

    Raises:
        Any2allError: when no slice has a head in two modalities.
    """
    images = slices.clamp(0, 1).cpu().numpy()
    known = np.ones(images.shape[:2], bool) if present is None else present.cpu().numpy()
    maps = {}
    for s, source in enumerate(stack.names):
        for t, target in enumerate(stack.names):
            both = known[:, s] & known[:, t]
            found = _best_map(images[both, s], images[both, t]) if s != t and both.any() else None
            if found is not None:
                maps[source, target] = found
    if not maps:
        raise Any2allError("no training slice has a head in two modalities", key="slices", value=tuple(slices.shape))
    return maps


def _best_map(source: np.ndarray, target: np.ndarray) -> MonotoneMap | None:
    """The better direction on these slices (N, H, W); None where the source shows no head."""
    head = head_mask(source)
    if not head.any():
        return None
    quantiles = np.quantile(target[head], np.linspace(0, 1, QUANTILES)).astype(np.float32)
    copies = {increasing: MonotoneMap(quantiles, increasing).apply(source, head) for increasing in (True, False)}
    tried = [MonotoneMap(quantiles, increasing, psnr(copy, target)) for increasing, copy in copies.items()]
    return max(tried, key=lambda found: found.psnr)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Mid-rank of every value among all, in (0, 1); equal values share theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return ((np.cumsum(counts) - counts / 2) / max(values.size, 1))[inverse]
