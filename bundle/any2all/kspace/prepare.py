"""From raw k-space to an acquisition: whitening, coil compression, coil maps, phase, noise."""

from __future__ import annotations

import numpy as np

from .acquisition import Acquisition
from .coil_maps import (
    blurred_phase,
    espirit_maps,
    estimate_noise_std,
    fold_phase,
    noise_std_of_outer,
    normalised,
    refine_phase,
)
from .formats import RawKspace
from .noncartesian import NonCartesianAcquisition, gridded_coils, gridded_kspace, weighted_step
from .preprocess import in_file_intensity, preprocessed
from .raw_samples import RawSamples
from .trajectory import density_weights

_PHASE_LAMDA = 0.003  # of the largest intensity, as `coil_maps.refine_phase`
_BY_ESPIRIT = "coil maps estimated by ESPIRiT from the calibration block"
_BY_WAVELETS = "phase estimated from a complex L1-wavelet reconstruction and folded into the coil maps"


def prepare(raw: RawKspace | RawSamples, noise_std: float | None = None) -> Acquisition | NonCartesianAcquisition:
    """Estimate what the file does not say.

    Axes are turned to (S, P, L) where the file knows its geometry; coils are whitened where it knows their noise, and
    compressed where there are many (`preprocess`). Coil maps come from ESPIRiT where none are given; the phase of the
    image is estimated and folded into the maps (METHOD §5); the noise is estimated from the outer samples where it is
    not given. Samples that lie on no grid are gridded for the calibration block: what they cover as densely as a grid.

    Args:
        raw: as read.
        noise_std: complex std in the file's units; it wins over what the file says.

    Raises:
        Any2allError: if the calibration block is too small for what has to be estimated.
    """
    raw = preprocessed(raw)
    return _prepared_samples(raw, noise_std) if isinstance(raw, RawSamples) else _prepared_grid(raw, noise_std)


def _prepared_grid(raw: RawKspace, noise_std: float | None) -> Acquisition:
    notes = list(raw.notes)
    maps = raw.coil_maps
    if maps is None:
        maps = espirit_maps(raw.kspace, raw.mask)
        notes.append(_BY_ESPIRIT)
    maps = normalised(maps)
    phase = refine_phase(raw.kspace, raw.mask, maps)
    maps = fold_phase(in_file_intensity(maps, raw.unmixing), phase)
    notes.append(_BY_WAVELETS)
    std = _known_std(raw, noise_std)
    if std is None:
        std = estimate_noise_std(raw.kspace, raw.mask)
        notes.append(_estimated(std))
    acquisition = Acquisition(raw.kspace, raw.mask, maps, std, raw.voxel_size_mm, notes, raw.affine)
    height, width = acquisition.matrix
    notes.append(f"true acceleration {acquisition.true_acceleration:.2f} of a {height} x {width} matrix")
    return acquisition


def _prepared_samples(raw: RawSamples, noise_std: float | None) -> NonCartesianAcquisition:
    notes, maps = list(raw.notes), raw.coil_maps
    if maps is None:
        maps = espirit_maps(*gridded_kspace(raw.kspace, raw.trajectory, raw.matrix))
        notes.append(_BY_ESPIRIT)
    maps = normalised(maps)
    phase = _phase_of_samples(raw, np.broadcast_to(maps, raw.image_shape))
    maps = fold_phase(in_file_intensity(maps, raw.unmixing), phase)
    notes.append(_BY_WAVELETS)
    std = _known_std(raw, noise_std)
    if std is None:
        std = noise_std_of_outer(raw.kspace, np.hypot(*(2 * raw.trajectory / np.array(raw.matrix)).T))
        notes.append(_estimated(std))
    height, width = raw.matrix
    notes.append(f"{len(raw.trajectory)} samples of a {height} x {width} matrix that lie on no grid")
    return NonCartesianAcquisition(
        raw.kspace, raw.trajectory, raw.matrix, maps, std, raw.voxel_size_mm, notes, raw.affine
    )


def _phase_of_samples(raw: RawSamples, maps: np.ndarray) -> np.ndarray:
    """`coil_maps.refine_phase` of samples: weighted by area, or the dense middle would slow the iterations down."""
    gridded = np.sum(np.conj(maps) * gridded_coils(raw.kspace, raw.trajectory, raw.matrix), axis=1)
    lamda, weights = _PHASE_LAMDA * float(np.abs(gridded).max()), density_weights(raw.trajectory, raw.matrix)
    step = weighted_step(raw.trajectory, raw.matrix)
    return blurred_phase(raw.kspace, maps, lamda, weights, raw.trajectory, step)


def _known_std(raw: RawKspace | RawSamples, noise_std: float | None) -> float | None:
    return raw.noise_std if noise_std is None else noise_std


def _estimated(std: float) -> str:
    return f"noise estimated from the outer samples: complex std {std:.3g}"
