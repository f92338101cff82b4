"""What a file of radial or spiral raw data holds, whatever its format: the counterpart of `raw.RawKspace`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import Any2allError
from ..physics.grids import Shape
from .raw import check_geometry, check_maps, check_noise, check_numbers, check_positive, said_twice

MOST_MATRIX = 2**12
LEAST_REACH = 0.25  # of half the matrix: radians reach pi
MOST_EMPTY = 16  # times more points of the grid than samples
_LAYOUT = "complex (slices, coils, …) or (coils, spokes, samples), where … are the axes of the trajectory"
_UNIT = "cycles per field of view along (H, W): numbers up to half of the matrix"
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class RawSamples:
    """Checked samples: shapes agree, numbers are finite.

    Attributes:
        kspace: complex64 ``(Z, C, N)``.
        trajectory: float64 ``(N, 2)``, cycles per field of view along (H, W), the same for all slices.
        matrix: (H, W) that spans the field of view.
        matrix_known: whether the file says so, or it was taken from how far the trajectory reaches.
        coil_maps, noise_std, voxel_size_mm, notes, noise_covariance, affine, unmixing: as of `RawKspace`.
    """

    kspace: np.ndarray
    trajectory: np.ndarray
    matrix: Shape
    matrix_known: bool = True
    coil_maps: np.ndarray | None = None
    noise_std: float | None = None
    voxel_size_mm: tuple[float, float, float] | None = None
    notes: tuple[str, ...] = ()
    noise_covariance: np.ndarray | None = None
    affine: np.ndarray | None = None
    unmixing: np.ndarray | None = None

    @property
    def image_shape(self) -> tuple[int, int, int, int]:
        """(Z, C, H, W) of the coil images."""
        return (*self.kspace.shape[:2], *self.matrix)

    def with_maps(self, maps: np.ndarray, key: str) -> RawSamples:
        """The same samples with coil maps, whose matrix counts where the file does not say one."""
        maps = np.asarray(maps)
        raw = self
        if not self.matrix_known and maps.ndim in (3, 4):
            matrix = _checked_matrix(maps.shape[-2:], self.trajectory, key)
            raw = dataclasses.replace(self, matrix=matrix, matrix_known=True)
        return dataclasses.replace(raw, coil_maps=check_maps(maps, raw.image_shape, key))


def check_samples(arrays: dict[str, Any], key: str, notes: tuple[str, ...] = ()) -> RawSamples:
    """Turn arrays by name into `RawSamples`, or refuse them in words.

    Raises:
        Any2allError: for a trajectory that is 3-D, of another unit or not finite, and for k-space that does not fit
            it; and as `raw.check_kspace`.
    """
    path, points = _checked_trajectory(np.asarray(arrays["trajectory"]), f"{key}.trajectory")
    kspace = _checked_samples(np.asarray(arrays["kspace"]), points, key)
    known = "matrix" in arrays
    wanted = check_positive(arrays["matrix"], 2, f"{key}.matrix") if known else _reached(path)
    if not known:
        words = f"a matrix of {wanted[0]:.0f} x {wanted[1]:.0f} was taken from how far the trajectory reaches"
        notes = (*notes, words)
    kspace, path, zeros = _without_zeros(kspace, path)
    notes = (*notes, *zeros)
    matrix = _checked_matrix(wanted, path, f"{key}.{'matrix' if known else 'trajectory'}")
    reach = float(np.abs(path).max())
    if 2 * reach < LEAST_REACH * min(matrix):
        notes = (
            *notes,
            f"the trajectory reaches {reach:.3g} of {min(matrix) / 2:g} cycles: is its unit right? ({_UNIT})",
        )
    notes = (*notes, *said_twice(arrays))
    noise_std, covariance = check_noise(arrays, kspace.shape[1], key)
    voxel, affine = check_geometry(arrays, key)
    raw = RawSamples(kspace, path, matrix, known, None, noise_std, voxel, notes, covariance, affine)
    return raw.with_maps(arrays["coil_maps"], f"{key}.coil_maps") if "coil_maps" in arrays else raw


def _checked_trajectory(trajectory: np.ndarray, key: str) -> tuple[np.ndarray, tuple[int, ...]]:
    """float64 ``(N, 2)`` and the axes that the samples have: those of the trajectory longer than 1."""
    real = trajectory.dtype.kind in "fiu"
    if not real or trajectory.ndim not in (2, 3) or trajectory.shape[-1] not in (2, 3) or 0 in trajectory.shape:
        raise Any2allError(
            "the trajectory has a wrong shape",
            key=key,
            value=f"{trajectory.dtype} {trajectory.shape}",
            allowed="real (samples, 2) or (spokes, samples, 2), cycles per field of view along (H, W)",
        )
    if not np.isfinite(trajectory).all():
        raise Any2allError("the trajectory holds NaN or infinite values", key=key, allowed="finite numbers")
    points = tuple(n for n in trajectory.shape[:-1] if n > 1)
    # In the single precision of BART and ISMRMRD, whatever the file, so that all give the same reconstruction.
    flat = trajectory.reshape(-1, trajectory.shape[-1]).astype(np.float32).astype(np.float64)
    if flat.shape[1] == 3 and np.abs(flat[:, 2]).max() > _TOLERANCE:
        raise Any2allError(
            "3-D trajectories are not read",
            key=key,
            value=f"a third coordinate up to {np.abs(flat[:, 2]).max():.4g}",
            allowed="slices that are sampled in their plane",
            hint="a stack of stars becomes slices by a Fourier transform along kz",
        )
    reach = np.abs(flat[:, :2]).max()
    if reach < 1:
        raise Any2allError(
            "the trajectory stays in the middle of k-space",
            key=key,
            value=f"{reach:.3g} at most",
            allowed=_UNIT,
            hint="cycles per pixel are to be multiplied by the matrix",
        )
    return flat[:, :2], points


def _checked_samples(kspace: np.ndarray, points: tuple[int, ...], key: str) -> np.ndarray:
    """complex64 ``(Z, C, N)``."""
    shape = kspace.shape
    if kspace.ndim == 3 and tuple(n for n in shape[1:] if n > 1) == points and len(points) == 2:
        kspace, shape = kspace[None], (1, *shape)
    if not 3 <= kspace.ndim <= 4 or 0 in shape or tuple(n for n in shape[2:] if n > 1) != points:
        raise Any2allError(
            f"k-space does not fit its trajectory, whose axes are {points}", key=key, value=shape, allowed=_LAYOUT
        )
    return check_numbers(kspace, key).reshape(*shape[:2], -1)


def _without_zeros(kspace: np.ndarray, path: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Samples and trajectory without what is zero in all slices and coils: that was filled up, not measured.

    As on a grid (`raw._without_zeros`). Noise is never zero in every coil; where one coarsely quantised coil reads zero
    all the same, what is lost is the word of a sample that saw less than one step.
    """
    measured = (kspace != 0).any(axis=(0, 1))
    if measured.all():
        return kspace, path, ()
    note = f"{1 - measured.mean():.1%} of the samples hold zeros in all slices and coils and count as not measured"
    return np.ascontiguousarray(kspace[..., measured]), path[measured], (note,)


def _reached(path: np.ndarray) -> tuple[int, int]:
    """The smallest even square matrix that holds the trajectory."""
    side = 2 * math.ceil(np.abs(path).max() - _TOLERANCE)
    return (side, side)


def _checked_matrix(matrix: tuple[float, ...], path: np.ndarray, key: str) -> Shape:
    h, w = (int(n) for n in matrix)
    if (h, w) != tuple(matrix) or min(h, w) < 2 or max(h, w) > MOST_MATRIX or h * w > MOST_EMPTY * len(path):
        most = f"whole numbers up to {MOST_MATRIX}, and at most {MOST_EMPTY} points for each of {len(path)} samples"
        raise Any2allError("this matrix cannot be used", key=key, value=tuple(matrix), allowed=most)
    reach = np.abs(path).max(axis=0)
    if (reach > (1 + _TOLERANCE) * np.array([h, w]) / 2).any():
        raise Any2allError(
            f"the trajectory reaches beyond the matrix of {h} x {w}",
            key=key,
            value=[round(float(r), 3) for r in reach],
            allowed=_UNIT,
        )
    return (h, w)
