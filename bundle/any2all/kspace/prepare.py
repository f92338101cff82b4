"""From raw k-space to an acquisition: noise, coil maps, phase."""

from __future__ import annotations

from .acquisition import Acquisition
from .coil_maps import espirit_maps, estimate_noise_std, fold_phase, normalised, refine_phase
from .formats import RawKspace


def prepare(raw: RawKspace, noise_std: float | None = None) -> Acquisition:
    """Estimate what the file does not say.

    Coil maps come from ESPIRiT where none are given; the phase of the image is estimated and folded into the
    maps (METHOD §5); the noise is estimated from the outer samples where it is not given.

    Raises:
        Any2allError: if the calibration block is too small for what has to be estimated.
    """
    notes = list(raw.notes)
    maps = raw.coil_maps
    if maps is None:
        maps = espirit_maps(raw.kspace, raw.mask)
        notes.append("coil maps estimated by ESPIRiT from the calibration block")
    maps = normalised(maps)
    maps = fold_phase(maps, refine_phase(raw.kspace, raw.mask, maps))
    notes.append("phase estimated from a complex L1-wavelet reconstruction and folded into the coil maps")
    std = raw.noise_std if noise_std is None else noise_std
    if std is None:
        std = estimate_noise_std(raw.kspace, raw.mask)
        notes.append(f"noise estimated from the outer samples: complex std {std:.3g}")
    return Acquisition(raw.kspace, raw.mask, maps, std, raw.voxel_size_mm, notes)
