"""Classical reconstructions: baselines, and the first image from which an intensity scale is taken.

All get the same data, mask and coil maps with the phase folded in. So the image is real by construction, and its real
part is returned, ``(Z, H, W)`` float32 in the acquisition's units.
"""

from __future__ import annotations

import math

import numpy as np
import sigpy.linop
import sigpy.mri.app
import torch

from ..physics.solve import DataConsistency
from .acquisition import Acquisition
from .coil_maps import MIN_CALIBRATION, block_mask, calibration_block
from .fourier import ifft2c
from .noncartesian import NonCartesianAcquisition, weighted_step
from .trajectory import density_weights

AnyAcquisition = Acquisition | NonCartesianAcquisition

# A fraction of the largest intensity; best or within 0.5 dB of it on simulated and on measured heads.
WAVELET_LAMDA = 0.003
# Best mean PSNR over T2FLAIR of the validation head, rendered, and of the real validation subject (R = 4, 8 coils).
REAL_WAVELET_LAMDA = 0.001
TV_LAMDA = 0.001
# Tikhonov's weight shrinks even what is known by 1 / (1 + lamda), and a scale is taken from the image.
MAX_SENSE_LAMDA = 0.02
# The objective falls by less than 1e-4 of itself after these for lamda up to 0.002, total variation's 3e-4 at 0.005.
SPARSE_ITERATIONS, STEP_BALANCE = 300, 30.0


def zero_filled(acquisition: AnyAcquisition) -> np.ndarray:
    """Re(S^H F^H y): what was not sampled is zero. Samples that lie on no grid are gridded, weighted by their area."""
    if isinstance(acquisition, NonCartesianAcquisition):
        return acquisition.gridded()
    combined = np.sum(np.conj(acquisition.coil_maps) * ifft2c(acquisition.kspace), axis=1)
    return combined.real.astype(np.float32)


def wiener_lamda(acquisition: AnyAcquisition) -> float:
    """Tikhonov's weight from noise and signal: (sigma^2 / 2) / s, noise variance per real component over power.

    s is the mean power per point of what has to be found: where there is a calibration block that is what lies
    outside it (the middle is known already), else everything. Measured data want a larger weight, up to 8 times:
    their coil maps are not exact either.
    """
    power = _mean_power(acquisition)
    return float(np.clip(acquisition.noise_std**2 / 2 / max(power, 1e-30), 1e-5, MAX_SENSE_LAMDA))


def _mean_power(acquisition: AnyAcquisition) -> float:
    """The s of `wiener_lamda`."""
    if isinstance(acquisition, NonCartesianAcquisition):
        return acquisition.mean_power()
    mask = acquisition.mask > 0
    block = calibration_block(acquisition.mask)
    calibrated = min(block) >= MIN_CALIBRATION
    chosen = mask & ~block_mask(mask.shape, block) if calibrated else mask
    if not chosen.any():
        chosen, calibrated = mask, False
    power = np.sum(np.abs(acquisition.kspace[..., chosen]) ** 2) / acquisition.kspace.shape[0]
    per_point = power / (chosen.sum() if calibrated else mask.size)
    return per_point - acquisition.noise_std**2 * acquisition.kspace.shape[1] * (1 if calibrated else mask.mean())


def sense(acquisition: AnyAcquisition, lamda: float | None = None) -> np.ndarray:
    """argmin over REAL x of ||A x - y||^2 + lamda ||x||^2, exact by rows or by 100 conjugate gradients.

    ``lamda`` is :func:`wiener_lamda` by default; A^H A is at most 1 (on a grid).
    """
    lamda = wiener_lamda(acquisition) if lamda is None else lamda
    consistency = DataConsistency(acquisition.channel(), iterations=100, tolerance=1e-5)
    slices = torch.arange(acquisition.kspace.shape[0])
    images = [consistency.proximal(torch.zeros(1, *acquisition.matrix), 1 / lamda, z) for z in slices.split(1)]
    return torch.cat(images).numpy()


def sigpy_sense(acquisition: AnyAcquisition, lamda: float | None = None, iterations: int = 100) -> np.ndarray:
    """SigPy's SENSE over COMPLEX x, 1/2 ||A x - y||^2 + lamda/2 ||x||^2, as an independent second opinion."""
    lamda = wiener_lamda(acquisition) if lamda is None else lamda
    images = [
        sigpy.mri.app.SenseRecon(
            data, maps, lamda=lamda, max_iter=iterations, show_pbar=False, **_sampling(acquisition)
        ).run()
        for data, maps in _pairs(acquisition)
    ]
    return np.stack(images).real.astype(np.float32)


def l1_wavelet(acquisition: AnyAcquisition, lamda: float = WAVELET_LAMDA, iterations: int = 100) -> np.ndarray:
    """SigPy's L1-wavelet reconstruction (Lustig et al., 2007), 1/2 ||A x - y||^2 + lamda' ||W x||_1 (db4).

    lamda' = ``lamda`` times the largest magnitude of the volume's zero-filled image, so that it has no units. Samples
    that lie on no grid are weighted by their area of k-space, as is usual, or its first-order iterations would crawl.
    """
    peak = float(np.abs(zero_filled(acquisition)).max())
    images = [
        sigpy.mri.app.L1WaveletRecon(
            data, maps, lamda=lamda * peak, max_iter=iterations, show_pbar=False, **_sampling(acquisition)
        ).run()
        for data, maps in _pairs(acquisition)
    ]
    return np.stack(images).real.astype(np.float32)


def real_l1_wavelet(
    acquisition: AnyAcquisition, lamda: float = REAL_WAVELET_LAMDA, iterations: int = SPARSE_ITERATIONS
) -> np.ndarray:
    """argmin over REAL x of 1/2 ||A x - y||^2 + lamda' ||W x||_1, slice by slice (db4), solved as it stands.

    `l1_wavelet` with what the samplers know as well: the image is real. lamda' is relative, as there.
    """
    wavelet = sigpy.linop.Wavelet(_volume_shape(acquisition), axes=(-2, -1), wave_name="db4")
    return _sparse(acquisition, wavelet, 1.0, lamda, iterations)


def total_variation(
    acquisition: AnyAcquisition, lamda: float = TV_LAMDA, iterations: int = SPARSE_ITERATIONS
) -> np.ndarray:
    """argmin over REAL x of 1/2 ||A x - y||^2 + lamda' ||G x||_1, G the two in-plane differences (Block et al., 2007).

    The problem of SigPy's ``TotalVariationRecon`` with a real image; lamda' is relative as in `l1_wavelet`.
    """
    gradient = sigpy.linop.FiniteDifference(_volume_shape(acquisition), axes=(-2, -1))
    return _sparse(acquisition, gradient, math.sqrt(8), lamda, iterations)


def first_reconstruction(acquisition: AnyAcquisition) -> np.ndarray:
    """The image from which the intensity scale is taken when no clean one exists (METHOD §5): SENSE, held at zero."""
    return np.maximum(sense(acquisition), 0)


def _sparse(
    acquisition: AnyAcquisition, transform: sigpy.linop.Linop, norm: float, lamda: float, iterations: int
) -> np.ndarray:
    """argmin over real x of 1/2 ||A x - y||^2 + lamda' ||K x||_1 with ||K|| = norm (Chambolle and Pock, 2011, Alg. 1).

    The proximal map of the data term is `DataConsistency.proximal`, exact by rows, so few iterations are needed.
    ``lamda`` is positive.
    """
    consistency = DataConsistency(acquisition.channel(), iterations=100, tolerance=1e-5)
    x = zero_filled(acquisition)
    bound = lamda * float(np.abs(x).max())
    # the dual variable lies within lamda' of zero, so the best ratio of the two steps goes with lamda
    balance = STEP_BALANCE * lamda
    primal_step, dual_step = 1 / (norm * balance), balance / norm
    dual, ahead = np.float32(0), x
    for _ in range(iterations):
        dual = np.clip(dual + dual_step * transform(ahead), -bound, bound)
        start = torch.from_numpy(x - primal_step * transform.H(dual))
        following = consistency.proximal(start, primal_step).numpy()
        x, ahead = following, 2 * following - x
    return x


def _volume_shape(acquisition: AnyAcquisition) -> tuple[int, int, int]:
    return (len(acquisition.kspace), *acquisition.matrix)


def _sampling(acquisition: AnyAcquisition) -> dict[str, np.ndarray | float]:
    """What SigPy's applications are told of the sampling."""
    if isinstance(acquisition, NonCartesianAcquisition):
        where = (acquisition.trajectory, acquisition.matrix)
        return {"weights": density_weights(*where), "coord": where[0], "alpha": weighted_step(*where)}
    return {"weights": acquisition.mask}


def _pairs(acquisition: AnyAcquisition) -> list[tuple[np.ndarray, np.ndarray]]:
    shape = (*acquisition.kspace.shape[:2], *acquisition.matrix)
    return list(zip(acquisition.kspace, np.broadcast_to(acquisition.coil_maps, shape), strict=True))
