"""Scoring measured data, of which no truth exists: some samples are set aside before anything is estimated."""

from __future__ import annotations

import dataclasses

import numpy as np

from ..errors import Any2allError
from .coil_maps import block_mask, calibration_block
from .formats import RawKspace
from .fourier import fft2c


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Samples that no estimate has seen: ``kspace`` ``(Z, C, H, W)`` where ``mask`` ``(H, W)`` is 1."""

    kspace: np.ndarray
    mask: np.ndarray

    def error(self, images: np.ndarray, coil_maps: np.ndarray) -> float:
        """||P_h (F S x - y)|| / ||P_h y|| of images ``(Z, H, W)`` in the file's units; 1 is what x = 0 reaches."""
        predicted = fft2c(coil_maps * np.asarray(images)[:, None])
        difference = self.mask * (predicted - self.kspace)
        return float(np.linalg.norm(difference) / np.linalg.norm(self.mask * self.kspace))


def hold_out(raw: RawKspace, fraction: float = 0.1, seed: int = 0) -> tuple[RawKspace, HeldOut]:
    """Remove a random ``fraction`` of the samples outside the calibration block.

    To be called BEFORE maps, phase, noise and scale are estimated, and after `preprocess.preprocessed`: what is held
    out has to be of the same coils and axes as the acquisition that is scored. Where the mask is 1-D along W whole
    lines are removed, so that it stays so.

    Raises:
        Any2allError: if there are too few samples outside the calibration block.
    """
    outside = (raw.mask > 0) & ~block_mask(raw.mask.shape, calibration_block(raw.mask))
    by_lines = bool((raw.mask == raw.mask[:1]).all())
    candidates = np.flatnonzero(outside[0]) if by_lines else np.flatnonzero(outside)
    count = round(fraction * candidates.size)
    if count == 0:
        raise Any2allError(
            "nothing can be held out", key="kspace", value=f"{candidates.size} samples outside the calibration block"
        )
    chosen = np.random.default_rng(seed).choice(candidates, count, replace=False)
    held = np.zeros(raw.mask.shape, np.float32)
    held.reshape(-1)[chosen] = 1
    if by_lines:
        held = np.repeat(held[:1], raw.mask.shape[0], axis=0)
    remaining = raw.mask * (1 - held)
    return (
        dataclasses.replace(raw, kspace=raw.kspace * remaining, mask=remaining),
        HeldOut(raw.kspace * held, held),
    )
