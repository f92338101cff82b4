"""Classical reconstructions: baselines, and the first image from which an intensity scale is taken.

All get the same data, mask and coil maps with the phase folded in. So the image is real by construction, and its real
part is returned, ``(Z, H, W)`` float32 in the acquisition's units.
"""

from __future__ import annotations

import numpy as np
import sigpy.mri.app
import torch

from any2all.kspace.acquisition import Acquisition
from any2all.kspace.fourier import ifft2c
from any2all.physics.solve import DataConsistency

# Fractions of the unit-gain A^H A (at most 1) and of the largest intensity.
SENSE_LAMDA = 0.01
WAVELET_LAMDA = 0.005


def zero_filled(acquisition: Acquisition) -> np.ndarray:
    """Re(S^H F^H y): what was not sampled is zero."""
    combined = np.sum(np.conj(acquisition.coil_maps) * ifft2c(acquisition.kspace), axis=1)
    return combined.real.astype(np.float32)


def sense(acquisition: Acquisition, lamda: float = SENSE_LAMDA) -> np.ndarray:
    """argmin over REAL x of ||A x - y||^2 + lamda ||x||^2, exact by rows or by 100 conjugate gradients."""
    consistency = DataConsistency(acquisition.channel(), iterations=100, tolerance=1e-5)
    slices = torch.arange(acquisition.kspace.shape[0])
    images = [consistency.proximal(torch.zeros(1, *acquisition.matrix), 1 / lamda, z) for z in slices.split(1)]
    return torch.cat(images).numpy()


def sigpy_sense(acquisition: Acquisition, lamda: float = SENSE_LAMDA, iterations: int = 100) -> np.ndarray:
    """SigPy's SENSE over COMPLEX x, 1/2 ||A x - y||^2 + lamda/2 ||x||^2, as an independent second opinion."""
    images = [
        sigpy.mri.app.SenseRecon(
            data, maps, lamda=lamda, weights=acquisition.mask, max_iter=iterations, show_pbar=False
        ).run()
        for data, maps in _pairs(acquisition)
    ]
    return np.stack(images).real.astype(np.float32)


def l1_wavelet(acquisition: Acquisition, lamda: float = WAVELET_LAMDA, iterations: int = 100) -> np.ndarray:
    """SigPy's L1-wavelet reconstruction (Lustig et al., 2007), 1/2 ||A x - y||^2 + lamda' ||W x||_1 (db4).

    lamda' = ``lamda`` times the largest magnitude of the volume's zero-filled image, so that it has no units.
    """
    peak = float(np.abs(zero_filled(acquisition)).max())
    images = [
        sigpy.mri.app.L1WaveletRecon(
            data, maps, lamda=lamda * peak, weights=acquisition.mask, max_iter=iterations, show_pbar=False
        ).run()
        for data, maps in _pairs(acquisition)
    ]
    return np.stack(images).real.astype(np.float32)


def first_reconstruction(acquisition: Acquisition) -> np.ndarray:
    """The image from which the intensity scale is taken when no clean one exists (METHOD §5): SENSE, held at zero.

    Tikhonov's weight follows the noise, lamda = noise variance over signal variance (Wiener), but not below 0.003,
    where unfolding at R = 4 begins to amplify errors of the coil maps.
    """
    power = float(np.sum(np.abs(acquisition.kspace) ** 2)) / acquisition.kspace[:, 0].size
    signal = power * acquisition.true_acceleration
    lamda = float(np.clip(acquisition.noise_std**2 / max(signal, 1e-30), 3e-3, 0.1))
    return np.maximum(sense(acquisition, lamda), 0)


def _pairs(acquisition: Acquisition) -> list[tuple[np.ndarray, np.ndarray]]:
    maps = np.broadcast_to(acquisition.coil_maps, acquisition.kspace.shape)
    return list(zip(acquisition.kspace, maps, strict=True))
