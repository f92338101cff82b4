"""Coil maps, phase and noise from the data themselves."""

from __future__ import annotations

import numpy as np
import sigpy.mri.app
from scipy.ndimage import gaussian_filter

from ..errors import Any2allError
from .fourier import ifft2c

MIN_CALIBRATION = 8
_ESPIRIT_KERNEL = 6


def calibration_block(mask: np.ndarray) -> tuple[int, int]:
    """(h, w) of the fully sampled block around the zero frequency of a mask ``(H, W)``.

    The block spans rows ``H//2 - h//2`` to ``H//2 - h//2 + h`` and columns likewise. Among all such blocks the one
    with the longest shorter side is taken, then the one with the largest area. (0, 0) when the middle is not sampled.
    """
    height, width = mask.shape
    total = np.zeros((height + 1, width + 1), np.int64)
    total[1:, 1:] = np.cumsum(np.cumsum(mask > 0, axis=0), axis=1)
    h, w = np.arange(1, height + 1)[:, None], np.arange(1, width + 1)[None]
    top, left = height // 2 - h // 2, width // 2 - w // 2
    inside = total[top + h, left + w] - total[top, left + w] - total[top + h, left] + total[top, left]
    full = inside == h * w
    if not full.any():
        return (0, 0)
    # The area is below height * width, so it only breaks ties of the shorter side.
    rank = np.where(full, np.minimum(h, w) * (height * width + 1) + h * w, -1)
    best = np.unravel_index(int(np.argmax(rank)), rank.shape)
    return (int(best[0]) + 1, int(best[1]) + 1)


def block_mask(shape: tuple[int, int], block: tuple[int, int]) -> np.ndarray:
    """The calibration block as a boolean mask ``(H, W)``."""
    inside = np.zeros(shape, bool)
    top, left = shape[0] // 2 - block[0] // 2, shape[1] // 2 - block[1] // 2
    inside[top : top + block[0], left : left + block[1]] = True
    return inside


def espirit_maps(kspace: np.ndarray, mask: np.ndarray, crop: float = 0.95) -> np.ndarray:
    """ESPIRiT coil maps of every slice (Uecker et al., 2014; SigPy), from the calibration block.

    Args:
        kspace: ``(Z, C, H, W)``.
        mask: ``(H, W)``.
        crop: eigenvalue below which a pixel is outside the support.

    Returns:
        complex64 ``(Z, C, H, W)``, sum |S|^2 = 1 on the support and zero outside: data consistency moves nothing
        there, and the prior alone decides.

    Raises:
        Any2allError: if the calibration block is smaller than ``MIN_CALIBRATION``.
    """
    width = min(calibration_block(mask))
    if width < MIN_CALIBRATION:
        raise Any2allError(
            "the calibration block is too small to estimate coil maps",
            key="coil_maps",
            value=f"{width} x {width} fully sampled points",
            allowed=f"at least {MIN_CALIBRATION} x {MIN_CALIBRATION}",
            hint="give coil_maps with the data",
        )
    maps = np.empty(kspace.shape, np.complex64)
    for z, data in enumerate(kspace):
        calibration = sigpy.mri.app.EspiritCalib(
            data, calib_width=width, kernel_width=_ESPIRIT_KERNEL, crop=crop, max_iter=50, show_pbar=False
        )
        # A coil without any signal makes 0/0 inside SigPy; such pixels are outside the support.
        with np.errstate(invalid="ignore", divide="ignore"):
            maps[z] = np.nan_to_num(calibration.run())
    return normalised(maps)


def normalised(maps: np.ndarray) -> np.ndarray:
    """Coil maps ``(..., C, H, W)`` with sum |S|^2 = 1 where they are not zero."""
    norm = np.sqrt(np.sum(np.abs(maps) ** 2, axis=-3, keepdims=True))
    return np.where(norm > 0, maps / np.where(norm > 0, norm, 1), 0).astype(np.complex64)


def estimate_phase(kspace: np.ndarray, mask: np.ndarray, coil_maps: np.ndarray) -> np.ndarray:
    """Phase of the image in radians, ``(Z, H, W)``, from the low-resolution calibration image.

    phi = angle( sum_c conj(S_c) F^H (w y_c) ), w a Hann window over the square inside the calibration block: the
    window suppresses ringing, which would turn into phase errors beside edges.
    """
    side = min(calibration_block(mask))
    if side == 0:
        raise Any2allError(
            "the middle of k-space is not sampled, so the phase of the image cannot be estimated", key="kspace"
        )
    height, width = mask.shape
    window = np.zeros((height, width), np.float32)
    taper = np.hanning(side + 2)[1:-1]
    top, left = height // 2 - side // 2, width // 2 - side // 2
    window[top : top + side, left : left + side] = np.outer(taper, taper)
    low = ifft2c(kspace * window)
    return np.angle(np.sum(np.conj(coil_maps) * low, axis=1))


def refine_phase(
    kspace: np.ndarray, mask: np.ndarray, coil_maps: np.ndarray, lamda: float = 0.003, blur_pixels: float = 1.0
) -> np.ndarray:
    """Phase of the image in radians, ``(Z, H, W)``, from ALL samples: that of a blurred complex reconstruction.

    The calibration image of :func:`estimate_phase` is too coarse for measured heads: on 8-coil data of 230 x 180
    points with a 24 x 24 block it leaves an imaginary part of 12 % and a hold-out error of SENSE of 0.42, where this
    phase leaves 7 % and 0.30. The reconstruction is SigPy's L1-wavelet over complex images.

    Args:
        kspace: ``(Z, C, H, W)``.
        mask: ``(H, W)``.
        coil_maps: ``(1 | Z, C, H, W)``.
        lamda: weight of the L1 term, as a fraction of the zero-filled image's largest magnitude.
        blur_pixels: standard deviation of the Gaussian blur; it keeps noise out of the phase.
    """
    peak = float(np.abs(np.sum(np.conj(coil_maps) * ifft2c(kspace), axis=1)).max())
    return blurred_phase(kspace, np.broadcast_to(coil_maps, kspace.shape), lamda * peak, mask, blur_pixels=blur_pixels)


def blurred_phase(
    kspace: np.ndarray,
    coil_maps: np.ndarray,
    lamda: float,
    weights: np.ndarray,
    trajectory: np.ndarray | None = None,
    step: float | None = None,
    blur_pixels: float = 1.0,
) -> np.ndarray:
    """The phase of `refine_phase` by SigPy's L1-wavelet reconstruction of every slice, ``(Z, H, W)``.

    Args:
        kspace: ``(Z, C, H, W)``, or ``(Z, C, N)`` at the points of a ``trajectory`` ``(N, 2)``.
        coil_maps: ``(Z, C, H, W)``.
        lamda: weight of the L1 term, in the units of the image.
        weights: of the samples: a mask, or how large an area of k-space each stands for.
        step: of the iterations; None: as SigPy finds it.
        blur_pixels: as there.
    """
    phases = np.zeros((len(kspace), *coil_maps.shape[-2:]), np.float32)
    for z, maps in enumerate(coil_maps):
        if not maps.any():  # a slice without a head has no support, and SigPy would divide by its largest eigenvalue
            continue
        image = sigpy.mri.app.L1WaveletRecon(
            kspace[z], maps, lamda=lamda, weights=weights, coord=trajectory, alpha=step, max_iter=20, show_pbar=False
        ).run()
        phases[z] = np.angle(gaussian_filter(image.real, blur_pixels) + 1j * gaussian_filter(image.imag, blur_pixels))
    return phases


def fold_phase(coil_maps: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """S' = S exp(i phi) of METHOD §5, complex64 ``(Z, C, H, W)``: the image behind S' is real."""
    return (coil_maps * np.exp(1j * phase)[:, None]).astype(np.complex64)


def estimate_noise_std(kspace: np.ndarray, mask: np.ndarray, fraction: float = 0.05) -> float:
    """sqrt(E|e|^2) from the outermost ``fraction`` of the sampled points, where signal is weakest.

    |e|^2 of complex Gaussian noise is exponential with median ln 2 E|e|^2; the median forgives the signal that is
    left. It is an upper estimate: of well-resolved structure some signal always remains.
    """
    height, width = mask.shape
    y = (np.arange(height) - height // 2)[:, None] / (height / 2)
    x = (np.arange(width) - width // 2)[None] / (width / 2)
    return noise_std_of_outer(kspace[..., mask > 0], np.hypot(y, x)[mask > 0], fraction)


def noise_std_of_outer(samples: np.ndarray, radius: np.ndarray, fraction: float = 0.05) -> float:
    """`estimate_noise_std` of samples ``(..., N)`` at any distances ``(N,)`` from the middle of k-space."""
    power = np.abs(samples[..., radius >= np.quantile(radius, 1 - fraction)]) ** 2
    return float(np.sqrt(np.median(power) / np.log(2)))
