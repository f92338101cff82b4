"""Simulated acquisitions: y = P F S u + e (Any2all, Sec. 4.1; what it does not print is marked in METHOD §5)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import sigpy.mri
import torch
from sigpy.mri import samp

from ..errors import Any2allError
from ..physics.noncartesian import nufft
from .acquisition import Acquisition
from .coil_maps import MIN_CALIBRATION, calibration_block, estimate_phase, fold_phase
from .fourier import fft2c
from .noncartesian import NonCartesianAcquisition, gridded_kspace
from .trajectory import SPIRAL_ARMS, radial_spokes, radial_trajectory, spiral_trajectory

MaskKind = Literal["equispaced", "random", "poisson", "radial", "spiral"]
NON_CARTESIAN = ("radial", "spiral")
POISSON_TRIES, POISSON_ATTEMPTS = 30, 30
PhaseKind = Literal["none", "smooth"]
_INVERSE_CRIME = "simulated (an inverse crime: coil maps are known exactly, and the image has no phase)"
_PHASE_ESTIMATED = "simulated with known coil maps; the phase was estimated from the calibration lines"


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

    As 3-D scans sample their two phase-encoded directions. ``acceleration`` is the true one, calibration included, to
    0.1 or 2 %. The search for it is our own: SigPy's goes on for ever where no mask comes near enough.
    """
    _check_lines(min(shape), acceleration, acs_lines)
    if acceleration == 1:
        return np.ones(shape, np.float32)
    distance = np.hypot(*np.meshgrid(*(_beside(n, acs_lines) for n in shape), indexing="ij"))
    low, high, best, miss = 0.0, float(max(shape)), None, np.inf
    for _ in range(POISSON_TRIES):
        slope = (low + high) / 2
        radii = [np.clip((1 + distance * slope) * n / max(shape), 1, None) for n in reversed(shape)]
        points = samp._poisson(shape[1], shape[0], POISSON_ATTEMPTS, *radii, (acs_lines, acs_lines), seed)
        reached = points.size / points.sum()
        if abs(reached - acceleration) < miss:
            best, miss = points, abs(reached - acceleration)
        if miss < 0.1:
            break
        low, high = (slope, high) if reached < acceleration else (low, slope)
    if miss > max(0.1, 0.02 * acceleration):
        raise Any2allError(
            "no Poisson-disc mask of this acceleration was found",
            key="simulate.acceleration",
            value=acceleration,
            allowed="points beside the calibration square: a lower acceleration or fewer acs_lines",
        )
    return (best > 0).astype(np.float32)


def _beside(size: int, acs_lines: int) -> np.ndarray:
    """Distance from the calibration square along one axis, 1 at its end: ``(size,)``."""
    beside = np.maximum(np.abs(np.arange(size) - size / 2) - acs_lines / 2, 0)
    return beside / max(beside.max(), 1e-9)


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
) -> Acquisition | NonCartesianAcquisition:
    """Undersampled multi-coil k-space of real images.

    Args:
        images: real ``(Z, H, W)``, any units; not clipped.
        coils: number of birdcage coils.
        acceleration: spacing of the lines outside the calibration block (the true R is in the result).
        acs_lines: fully sampled lines in the middle, or the side of the middle square of a Poisson-disc mask.
        noise_std: sqrt(E|e|^2) of the complex noise on sampled points, in the images' units.
        seed: of noise, phase and random mask; a slice's noise depends only on (seed, slice).
        mask: equispaced or random lines along W, or Poisson-disc points along both H and W; radial spokes or spiral
            arms (see `trajectory`), where ``acceleration`` is against Nyquist's rule at the edge of k-space, and
            ``acs_lines`` the diameter of a spiral's dense middle. Spokes take none: they are dense there.
        phase: "none" is the paper's setting, in which reconstruction knows the maps that made the data. "smooth" adds
            a phase per slice that reconstruction has to estimate from the calibration lines, as with measured data.

    Raises:
        Any2allError: for an unknown mask or phase, or too few calibration lines to estimate a phase from.
    """
    _check_choice("mask", mask, ("equispaced", "random", "poisson", *NON_CARTESIAN))
    _check_choice("phase", phase, ("none", "smooth"))
    images = np.asarray(images, np.float32)
    if mask in NON_CARTESIAN:
        return _simulated_samples(images, coils, acceleration, acs_lines, noise_std, seed, mask, phase)
    if phase == "smooth" and acs_lines < MIN_CALIBRATION:
        raise _too_little_to_calibrate(acs_lines)
    slices, height, width = images.shape
    sampled = _sampled((height, width), mask, acceleration, acs_lines, seed)
    maps = birdcage_maps((height, width), coils)
    kspace = np.empty((slices, coils, height, width), np.complex64)
    for z in range(slices):
        image = _with_phase(images[z], phase, seed + z)
        noise = _complex_noise((coils, height, width), noise_std, (seed, z))
        kspace[z] = sampled * (fft2c(maps[0] * image) + noise)
    note = _INVERSE_CRIME
    if phase == "smooth":
        note = _PHASE_ESTIMATED
        maps = fold_phase(maps, estimate_phase(kspace, sampled, maps))
    acquisition = Acquisition(kspace, sampled, maps, noise_std, notes=[note])
    if acs_lines:
        acquisition.notes.append(f"acceleration is {acquisition.true_acceleration:.2f} with its calibration lines")
    return acquisition


def _simulated_samples(
    images: np.ndarray,
    coils: int,
    acceleration: int,
    acs_lines: int,
    noise_std: float,
    seed: int,
    kind: MaskKind,
    phase: PhaseKind,
) -> NonCartesianAcquisition:
    """`simulate_kspace` along spokes or spirals."""
    matrix, trajectory = images.shape[1:], _trajectory(images.shape[1:], kind, acceleration, acs_lines)
    maps = birdcage_maps(matrix, coils)
    kspace = np.empty((len(images), coils, len(trajectory)), np.complex64)
    for z, image in enumerate(images):
        coil_images = (maps[0] * _with_phase(image, phase, seed + z)).astype(np.complex64)
        noise = _complex_noise((coils, len(trajectory)), noise_std, (seed, z))
        kspace[z] = nufft(torch.from_numpy(coil_images), trajectory).numpy() + noise
    note = _INVERSE_CRIME
    if phase == "smooth":
        note = _PHASE_ESTIMATED
        gridded, mask = gridded_kspace(kspace, trajectory, matrix)
        if min(calibration_block(mask)) < MIN_CALIBRATION:
            raise _too_little_to_calibrate(acs_lines)
        maps = fold_phase(maps, estimate_phase(gridded, mask, maps))
    acquisition = NonCartesianAcquisition(kspace, trajectory, matrix, maps, noise_std, notes=[note])
    acquisition.notes.append(_true_acceleration(acquisition, kind, acceleration))
    return acquisition


def _trajectory(matrix: tuple[int, int], kind: MaskKind, acceleration: int, acs_lines: int) -> np.ndarray:
    """The trajectory ``(N, 2)`` of this kind."""
    _check_lines(min(matrix), acceleration, acs_lines)
    if kind == "spiral":
        return spiral_trajectory(matrix, acceleration, acs_lines).reshape(-1, 2)
    if acs_lines:
        raise Any2allError(
            "radial spokes are dense in the middle of themselves",
            key="simulate.acs_lines",
            value=acs_lines,
            allowed="0 with mask radial",
        )
    return radial_trajectory(matrix, acceleration).reshape(-1, 2)


def _true_acceleration(acquisition: NonCartesianAcquisition, kind: MaskKind, acceleration: int) -> str:
    """Both ways of counting, in words: against Nyquist's rule, and samples against points of the grid."""
    points = f"{acquisition.true_acceleration:.2f} points of the grid for each sample"
    if kind == "radial":
        spokes = radial_spokes(acquisition.matrix, acceleration)
        true = np.pi / 2 * max(acquisition.matrix) / spokes
        return f"acceleration is {true:.2f} against Nyquist's rule ({spokes} spokes), {points}"
    return f"acceleration is {acceleration} against Nyquist's rule between the turns ({SPIRAL_ARMS} arms), {points}"


def _with_phase(image: np.ndarray, phase: PhaseKind, seed: int) -> np.ndarray:
    return image * np.exp(1j * smooth_phase(image.shape, seed)) if phase == "smooth" else image


def _too_little_to_calibrate(acs_lines: int) -> Any2allError:
    return Any2allError(
        "a smooth phase has to be estimated from calibration lines",
        key="simulate.acs_lines",
        value=acs_lines,
        allowed=f"at least {MIN_CALIBRATION} with phase smooth",
    )


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
