"""The one Fourier convention of the project: centred and orthonormal, on the last two dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

_AXES = (-2, -1)


def fft2c(image: Tensor) -> Tensor:
    """F of METHOD §1: ``fftshift(fft2(ifftshift(x), norm="ortho"))``.

    Args:
        image: real or complex, ``(..., H, W)``; index ``n // 2`` of each axis is the origin.

    Returns:
        complex k-space ``(..., H, W)``; index ``n // 2`` of each axis is the zero frequency.
    """
    shifted = torch.fft.ifftshift(image, dim=_AXES)
    return torch.fft.fftshift(torch.fft.fft2(shifted, norm="ortho"), dim=_AXES)


def ifft2c(kspace: Tensor) -> Tensor:
    """F^H, the inverse and adjoint of :func:`fft2c`; ``(..., H, W)`` to complex ``(..., H, W)``."""
    shifted = torch.fft.ifftshift(kspace, dim=_AXES)
    return torch.fft.fftshift(torch.fft.ifft2(shifted, norm="ortho"), dim=_AXES)
