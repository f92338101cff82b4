"""From raw k-space to an acquisition: whitening, coil compression, coil maps, phase, noise."""

from __future__ import annotations

from .acquisition import Acquisition
from .coil_maps import espirit_maps, estimate_noise_std, fold_phase, normalised, refine_phase
from .formats import RawKspace
from .preprocess import in_file_intensity, preprocessed


def prepare(raw: RawKspace, noise_std: float | None = None) -> Acquisition:
    """Estimate what the file does not say.

    Axes are turned to (S, P, L) where the file knows its geometry; coils are whitened where it knows their noise, and
    compressed where there are many (`preprocess`). Coil maps come from ESPIRiT where none are given; the phase of the
    image is estimated and folded into the maps (METHOD §5); the noise is estimated from the outer samples where it is
    not given.

    Args:
        raw: as read.
        noise_std: complex std in the file's units; it wins over what the file says.

    Raises:
        Any2allError: if the calibration block is too small for what has to be estimated.
    """
    raw = preprocessed(raw)
    notes = list(raw.notes)
    maps = raw.coil_maps
    if maps is None:
        maps = espirit_maps(raw.kspace, raw.mask)
        notes.append("coil maps estimated by ESPIRiT from the calibration block")
    maps = normalised(maps)
    phase = refine_phase(raw.kspace, raw.mask, maps)
    maps = fold_phase(in_file_intensity(maps, raw.unmixing), phase)
    notes.append("phase estimated from a complex L1-wavelet reconstruction and folded into the coil maps")
    std = raw.noise_std if noise_std is None else noise_std
    if std is None:
        std = estimate_noise_std(raw.kspace, raw.mask)
        notes.append(f"noise estimated from the outer samples: complex std {std:.3g}")
    acquisition = Acquisition(raw.kspace, raw.mask, maps, std, raw.voxel_size_mm, notes, raw.affine)
    height, width = acquisition.matrix
    notes.append(f"true acceleration {acquisition.true_acceleration:.2f} of a {height} x {width} matrix")
    return acquisition
