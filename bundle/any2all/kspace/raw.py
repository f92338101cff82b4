"""What a file of raw k-space holds, whatever its format: one checked form for all readers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import Any2allError

MOST_SAMPLES = 2**30  # complex numbers of one array, 8 GiB in memory
_LAYOUT = "complex (slices, coils, H, W), or (coils, H, W) for one slice"


@dataclass(frozen=True)
class RawKspace:
    """What a file holds, checked: shapes agree, numbers are finite.

    Attributes:
        kspace: complex64 ``(Z, C, H, W)``, zero where ``mask`` is.
        mask: float32 ``(H, W)``.
        coil_maps: complex64 ``(1 | Z, C, H, W)``, or None.
        noise_std: complex std in the file's units, or None.
        voxel_size_mm: (h, w, z), or None.
        notes: what was decided while reading.
        noise_covariance: complex128 ``(C, C)``, E[n n^H] of a sample's noise over coils, or None.
        affine: RAS mm of the indices (z, h, w), 4x4, where the header says where the slices lie, or None.
        unmixing: ``(C_file, C)``, what turns whitened or compressed coils back into the file's, or None where these are
            the file's coils.
    """

    kspace: np.ndarray
    mask: np.ndarray
    coil_maps: np.ndarray | None = None
    noise_std: float | None = None
    voxel_size_mm: tuple[float, float, float] | None = None
    notes: tuple[str, ...] = ()
    noise_covariance: np.ndarray | None = None
    affine: np.ndarray | None = None
    unmixing: np.ndarray | None = None


@dataclass
class Contents:
    """What a reader found, not yet checked.

    Attributes:
        arrays: by name, as in ``formats.ARRAYS``; ``sampled`` ``(Z, H, W)`` says where a line was acquired (default:
            where k-space is not zero).
        notes: what was decided while reading.
        kept_rows: rows of the image that are left without readout oversampling; None: all.
        volume: whether k-space is 3-D, ``(1, C, H, W, z)``.
    """

    arrays: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    kept_rows: int | None = None
    volume: bool = False


def check_kspace(arrays: dict[str, Any], key: str = "kspace", notes: tuple[str, ...] = ()) -> RawKspace:
    """Turn arrays by name (as in the files) into a :class:`RawKspace`, or refuse them in words.

    Raises:
        Any2allError: for k-space that is real, of another dimension, empty, not finite or all zero, or that does not
            fit its mask, maps, noise or geometry.
    """
    kspace = _checked_samples(np.asarray(arrays["kspace"]), key)
    mask, mask_notes = _checked_mask(arrays.get("mask"), arrays.get("sampled"), kspace, key)
    maps = check_maps(arrays["coil_maps"], kspace.shape, f"{key}.coil_maps") if "coil_maps" in arrays else None
    noise_std, covariance = check_noise(arrays, kspace.shape[1], key)
    voxel, affine = check_geometry(arrays, key)
    notes = (*notes, *mask_notes, *said_twice(arrays))
    return RawKspace(kspace * mask, mask, maps, noise_std, voxel, notes, covariance, affine)


def said_twice(arrays: dict[str, Any]) -> tuple[str, ...]:
    """What of the file counts where it says two things about the same."""
    rivals = (("noise_covariance", "noise"), ("noise_covariance", "noise_std"), ("noise", "noise_std"))
    rivals = (*rivals, ("affine", "voxel_size_mm"))
    return tuple(
        f"the file's {first} counts, not its {second}" for first, second in rivals if {first, second} <= {*arrays}
    )


def check_geometry(arrays: dict[str, Any], key: str) -> tuple[tuple[float, float, float] | None, np.ndarray | None]:
    """(h, w, z) mm and the affine, each None where the arrays do not say it."""
    voxel = check_positive(arrays["voxel_size_mm"], 3, f"{key}.voxel_size_mm") if "voxel_size_mm" in arrays else None
    affine = _checked_affine(arrays["affine"], f"{key}.affine") if "affine" in arrays else None
    if affine is not None:
        z, h, w = np.linalg.norm(affine[:3, :3], axis=0)
        voxel = (float(h), float(w), float(z))
    return voxel, affine


def check_noise(arrays: dict[str, Any], coils: int, key: str) -> tuple[float | None, np.ndarray | None]:
    """Complex std and covariance over coils, each None where the arrays do not say it."""
    noise_std = check_positive(arrays["noise_std"], 1, f"{key}.noise_std")[0] if "noise_std" in arrays else None
    return noise_std, _noise_covariance(arrays, coils, key)


def check_maps(maps: np.ndarray, shape: tuple[int, int, int, int], key: str) -> np.ndarray:
    """Coil maps of coil images ``(Z, C, H, W)`` as complex64 ``(1 | Z, C, H, W)``, or an Any2allError."""
    maps = np.asarray(maps)
    maps = maps[None] if maps.ndim == 3 else maps
    slices, coils, height, width = shape
    fits = maps.ndim == 4 and maps.shape[0] in (1, slices) and maps.shape[1:] == (coils, height, width)
    if not fits or not np.iscomplexobj(maps) or not np.isfinite(maps).all() or not maps.any():
        raise Any2allError(
            "the coil maps do not fit the k-space",
            key=key,
            value=f"{maps.dtype} {maps.shape}",
            allowed=f"finite complex (1 or {slices}, {coils}, {height}, {width})",
        )
    return maps.astype(np.complex64)


def check_size(count: int, key: str) -> None:
    """Refuse an array of ``count`` complex numbers that no computer here could hold."""
    if count > MOST_SAMPLES:
        allowed = f"at most {MOST_SAMPLES} samples"
        raise Any2allError("the array is too large", key=key, value=count, allowed=allowed, code="too_large")


def _checked_samples(kspace: np.ndarray, key: str) -> np.ndarray:
    if kspace.ndim == 3:
        kspace = kspace[None]
    if np.iscomplexobj(kspace) and (kspace.ndim != 4 or 0 in kspace.shape):
        raise Any2allError("k-space has a wrong shape", key=key, value=kspace.shape, allowed=_LAYOUT)
    return check_numbers(kspace, key)


def check_numbers(kspace: np.ndarray, key: str) -> np.ndarray:
    """The same array in complex64, or an Any2allError where it is real, not finite, or all zero."""
    if not np.iscomplexobj(kspace):
        raise Any2allError("k-space must be complex", key=key, value=str(kspace.dtype), allowed="complex64, complex128")
    if not np.isfinite(kspace).all():
        raise Any2allError("k-space holds NaN or infinite values", key=key, allowed="finite numbers")
    if not kspace.any():
        raise Any2allError("k-space is zero everywhere", key=key, allowed="measured data")
    with np.errstate(over="ignore"):
        single = kspace.astype(np.complex64)
    if not np.isfinite(single).all():
        raise Any2allError("k-space holds NaN or infinite values in single precision", key=key)
    return single


def _checked_mask(
    mask: np.ndarray | None, sampled: np.ndarray | None, kspace: np.ndarray, key: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    if mask is None:
        return _inferred_mask((kspace != 0).any(axis=1) if sampled is None else sampled, key)
    height, width = kspace.shape[-2:]
    mask = np.asarray(mask)
    if mask.shape not in {(width,), (height, width)} or not np.isin(mask, (0, 1)).all() or not mask.any():
        raise Any2allError(
            "the mask does not fit the k-space",
            key=f"{key}.mask",
            value=mask.shape,
            allowed=f"zeros and ones, ({width},) or ({height}, {width})",
        )
    mask = np.broadcast_to(mask, (height, width)).astype(np.float32)
    measured, notes = _without_zeros(mask, kspace, key)
    held = (kspace != 0).any(axis=(0, 1))
    outside = int((held & (mask == 0)).sum())
    if outside:
        share = outside / held.sum()
        notes = (*notes, f"{share:.1%} of the points that hold data lie outside of the mask and were left out")
    return measured, notes


def _inferred_mask(sampled: np.ndarray, key: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """The points that every slice has; sampled: bool ``(Z, H, W)``."""
    common, anywhere = sampled.all(axis=0), sampled.any(axis=0)
    if not common.any():
        raise Any2allError("no point is sampled in every slice", key=key, allowed="one mask for all slices")
    dropped = 1 - common.sum() / anywhere.sum()
    notes = (f"mask taken from the data; {dropped:.1%} of the points are not in every slice and were dropped",)
    return common.astype(np.float32), notes if dropped > 0 else ("mask taken from the data",)


def _without_zeros(mask: np.ndarray, kspace: np.ndarray, key: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Points that are zero in all slices and coils were filled up (partial Fourier, corners), not measured."""
    filled = (kspace != 0).any(axis=(0, 1))
    measured = mask * filled
    if not measured.any():
        raise Any2allError("no point of the mask holds data", key=f"{key}.mask")
    lost = int((mask.any(axis=0) & ~measured.any(axis=0)).sum() + (mask.any(axis=1) & ~measured.any(axis=1)).sum())
    if lost:
        return measured, (f"{lost} lines of the mask hold zeros and count as not measured",)
    points = int(mask.sum() - measured.sum())
    return measured, (f"{points} points of the mask hold zeros and count as not measured",) if points else ()


def _noise_covariance(arrays: dict[str, Any], coils: int, key: str) -> np.ndarray | None:
    """E[n n^H] as given, or from samples of noise alone ``(C, N)``."""
    if "noise_covariance" in arrays:
        name, covariance = "noise_covariance", np.asarray(arrays["noise_covariance"])
        enough = covariance.shape == (coils, coils)
    elif "noise" in arrays:
        name, noise = "noise", np.asarray(arrays["noise"])
        enough = noise.ndim == 2 and noise.shape[0] == coils and noise.shape[1] > coils and np.iscomplexobj(noise)
        covariance = sample_covariance(noise) if enough else noise
    else:
        return None
    wrong = not enough or covariance.dtype.kind not in "fc" or not np.isfinite(covariance).all()
    if not wrong:
        covariance = (covariance + covariance.conj().T).astype(np.complex128) / 2
        powers = np.linalg.eigvalsh(covariance)
        wrong = powers[0] <= 1e-12 * powers[-1]
    if wrong:
        raise Any2allError(
            "the noise cannot be used to whiten the coils",
            key=f"{key}.{name}",
            value=np.shape(arrays[name]),
            allowed=f"a positive definite ({coils}, {coils}), or complex samples ({coils}, more than {coils})",
        )
    return covariance


def sample_covariance(noise: np.ndarray) -> np.ndarray:
    """E[n n^H] ``(C, C)`` of samples ``(C, N)``."""
    noise = noise.astype(np.complex128)
    return noise @ noise.conj().T / noise.shape[1]


def _checked_affine(affine: np.ndarray, key: str) -> np.ndarray:
    affine = np.asarray(affine)
    fine = affine.shape == (4, 4) and affine.dtype.kind in "fiu" and np.isfinite(affine).all()
    if fine:
        affine = affine.astype(np.float64)
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        fine = lengths.min() > 0 and abs(np.linalg.det(affine[:3, :3])) > 1e-3 * lengths.prod()
    if not fine or (affine[3] != [0, 0, 0, 1]).any():
        raise Any2allError(
            "the affine is no geometry", key=key, value=str(np.shape(affine)), allowed="4x4, RAS mm of (slice, H, W)"
        )
    return affine


def check_positive(value: np.ndarray, count: int, key: str) -> tuple[float, ...]:
    """``count`` positive numbers, or an Any2allError."""
    flat = np.atleast_1d(np.asarray(value)).ravel()
    if flat.size != count or flat.dtype.kind not in "fiu" or not (np.isfinite(flat) & (flat > 0)).all():
        raise Any2allError("not a positive number", key=key, value=str(value), allowed=f"{count} positive numbers")
    return tuple(float(number) for number in flat)
