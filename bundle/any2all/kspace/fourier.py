"""The project's Fourier convention (see ``physics.fourier``) for numpy arrays."""

from __future__ import annotations

import numpy as np
import sigpy

_AXES = (-2, -1)


def fft2c(image: np.ndarray) -> np.ndarray:
    """Centred orthonormal 2-D FFT of the last two dimensions, complex64 unless the input is complex128."""
    return sigpy.fft(image, axes=_AXES)


def ifft2c(kspace: np.ndarray) -> np.ndarray:
    """Inverse (and adjoint) of :func:`fft2c`."""
    return sigpy.ifft(kspace, axes=_AXES)


def centre_crop(x: np.ndarray, size: int, axis: int) -> np.ndarray:
    """``size`` indices of one axis, old index N // 2 on new index n // 2 (as ``physics.grids.centre_resize``)."""
    start = x.shape[axis] // 2 - size // 2
    return np.take(x, np.arange(start, start + size), axis=axis)
