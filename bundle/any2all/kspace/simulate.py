"""Simulated acquisitions: y = P F S u + e (Any2all, Sec. 4.1; what it does not print is marked in METHOD §5)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import sigpy.mri

from ..errors import Any2allError
from .acquisition import Acquisition
from .coil_maps import MIN_CALIBRATION, estimate_phase, fold_phase
from .fourier import fft2c

MaskKind = Literal["equispaced", "random", "poisson"]
PhaseKind = Literal["none", "smooth"]


def equispaced_mask(width: int, acceleration: int, acs_lines: int = 0, offset: int | None = None) -> np.ndarray:
    """Every ``acceleration``-th phase-encode line, and ``acs_lines`` in the middle: float32 ``(W,)``.

    ``offset`` is the first line; by default the one that lets the zero frequency be sampled.
    """
    _check_lines(width, acceleration, acs_lines)
    offset = (width // 2) % acceleration if offset is None else offset
    mask = np.zeros(width, np.float32)
    mask[offset % acceleration :: acceleration] = 1
    return _with_acs(mask, acs_lines)


def random_mask(width: int, acceleration: int, acs_lines: int = 0, seed: int = 0) -> np.ndarray:
    """``width / acceleration`` lines drawn uniformly, the middle one among them, and ``acs_lines``: ``(W,)``."""
    _check_lines(width, acceleration, acs_lines)
    others = np.delete(np.arange(width), width // 2)
    count = max(1, round(width / acceleration))
    mask = np.zeros(width, np.float32)
    mask[np.random.default_rng(seed).choice(others, count - 1, replace=False)] = 1
    mask[width // 2] = 1
    return _with_acs(mask, acs_lines)


def poisson_mask(shape: tuple[int, int], acceleration: int, acs_lines: int = 0, seed: int = 0) -> np.ndarray:
    """Variable-density Poisson-disc points (Bridson, 2007; SigPy) with a square of calibration points: ``(H, W)``.

    As 3-D scans sample their two phase-encoded directions. ``acceleration`` is the true one, calibration included.
    """
    _check_lines(min(shape), acceleration, acs_lines)
    if acceleration == 1:
        return np.ones(shape, np.float32)
    try:
        points = sigpy.mri.poisson(shape, acceleration, calib=(acs_lines, acs_lines), crop_corner=False, seed=seed)
    except ValueError:
        raise Any2allError(
            "no Poisson-disc mask of this acceleration was found",
            key="simulate.acceleration",
            value=acceleration,
            allowed="points beside the calibration square: a lower acceleration or fewer acs_lines",
        ) from None
    return (np.abs(points) > 0).astype(np.float32)


def birdcage_maps(shape: tuple[int, int], coils: int = 8, radius: float = 1.5) -> np.ndarray:
    """SigPy's birdcage coil maps with sum |S|^2 = 1, complex64 ``(1, C, H, W)`` (METHOD §5: r = 1.5, inferred)."""
    maps = sigpy.mri.birdcage_maps((coils, *shape), r=radius)
    return (maps / np.sqrt(np.sum(np.abs(maps) ** 2, axis=0)))[None].astype(np.complex64)


def smooth_phase(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A smooth random phase map in radians ``(H, W)``: a quadratic polynomial over [-1, 1]^2, about +-pi/2."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * y, x**2, y**2])
    weights = np.random.default_rng(seed).normal(scale=0.6, size=len(terms))
    return np.tensordot(weights, terms, axes=1)


def simulate_kspace(
    images: np.ndarray,
    coils: int = 8,
    acceleration: int = 4,
    acs_lines: int = 0,
    noise_std: float = 0.01,
    seed: int = 0,
    mask: MaskKind = "equispaced",
    phase: PhaseKind = "none",
) -> Acquisition:
    """Undersampled multi-coil k-space of real images.

    Args:
        images: real ``(Z, H, W)``, any units; not clipped.
        coils: number of birdcage coils.
        acceleration: spacing of the lines outside the calibration block (the true R is in the result).
        acs_lines: fully sampled lines in the middle, or the side of the middle square of a Poisson-disc mask.
        noise_std: sqrt(E|e|^2) of the complex noise on sampled points, in the images' units.
        seed: of noise, phase and random mask; a slice's noise depends only on (seed, slice).
        mask: equispaced or random lines along W, or Poisson-disc points along both H and W.
        phase: "none" is the paper's setting, in which reconstruction knows the maps that made the data. "smooth" adds
            a phase per slice that reconstruction has to estimate from the calibration lines, as with measured data.

    Raises:
        Any2allError: for an unknown mask or phase, or too few calibration lines to estimate a phase from.
    """
    _check_choice("mask", mask, ("equispaced", "random", "poisson"))
    _check_choice("phase", phase, ("none", "smooth"))
    if phase == "smooth" and acs_lines < MIN_CALIBRATION:
        raise Any2allError(
            "a smooth phase has to be estimated from calibration lines",
            key="simulate.acs_lines",
            value=acs_lines,
            allowed=f"at least {MIN_CALIBRATION} with phase smooth",
        )
    images = np.asarray(images, np.float32)
    slices, height, width = images.shape
    sampled = _sampled((height, width), mask, acceleration, acs_lines, seed)
    maps = birdcage_maps((height, width), coils)
    kspace = np.empty((slices, coils, height, width), np.complex64)
    for z in range(slices):
        image = images[z] * np.exp(1j * smooth_phase((height, width), seed + z)) if phase == "smooth" else images[z]
        noise = _complex_noise((coils, height, width), noise_std, (seed, z))
        kspace[z] = sampled * (fft2c(maps[0] * image) + noise)
    note = "simulated (an inverse crime: coil maps are known exactly, and the image has no phase)"
    if phase == "smooth":
        note = "simulated with known coil maps; the phase was estimated from the calibration lines"
        maps = fold_phase(maps, estimate_phase(kspace, sampled, maps))
    acquisition = Acquisition(kspace, sampled, maps, noise_std, notes=[note])
    if acs_lines:
        acquisition.notes.append(f"acceleration is {acquisition.true_acceleration:.2f} with its calibration lines")
    return acquisition


def _sampled(shape: tuple[int, int], kind: MaskKind, acceleration: int, acs_lines: int, seed: int) -> np.ndarray:
    """The mask ``(H, W)`` of this kind."""
    if kind == "poisson":
        return poisson_mask(shape, acceleration, acs_lines, seed)
    if kind == "random":
        lines = random_mask(shape[1], acceleration, acs_lines, seed)
    else:
        lines = equispaced_mask(shape[1], acceleration, acs_lines)
    return np.repeat(lines[None], shape[0], axis=0)


def _complex_noise(shape: tuple[int, ...], std: float, seed: tuple[int, int]) -> np.ndarray:
    parts = np.random.default_rng(seed).normal(scale=std / np.sqrt(2), size=(2, *shape))
    return (parts[0] + 1j * parts[1]).astype(np.complex64)


def _with_acs(mask: np.ndarray, acs_lines: int) -> np.ndarray:
    start = mask.size // 2 - acs_lines // 2
    mask[start : start + acs_lines] = 1
    return mask


def _check_lines(width: int, acceleration: int, acs_lines: int) -> None:
    for name, value, least in (("acceleration", acceleration, 1), ("acs_lines", acs_lines, 0)):
        if not least <= value <= width:
            raise Any2allError(
                "does not fit the width of k-space", key=f"simulate.{name}", value=value, allowed=f"{least} to {width}"
            )


def _check_choice(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise Any2allError(f"unknown {key}", key=f"simulate.{key}", value=value, allowed=allowed)
