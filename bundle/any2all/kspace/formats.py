"""Reading raw k-space: ``.npy``, ``.npz`` and HDF5 in the layout of fastMRI."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from ..errors import Any2allError

READABLE = (".npy", ".npz", ".h5", ".hdf5")
ARRAYS = ("kspace", "mask", "coil_maps", "noise_std", "voxel_size_mm")
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
    """

    kspace: np.ndarray
    mask: np.ndarray
    coil_maps: np.ndarray | None = None
    noise_std: float | None = None
    voxel_size_mm: tuple[float, float, float] | None = None
    notes: tuple[str, ...] = ()


def read_kspace(path: str | Path, key: str = "kspace") -> RawKspace:
    """Read and check one file of raw k-space.

    ``.npz`` and HDF5 hold ``kspace`` and may hold ``mask``, ``coil_maps``, ``noise_std``, ``voxel_size_mm``. Where no
    mask is given, it is what is not zero.

    Args:
        path: the file.
        key: the study key to name in errors.

    Raises:
        Any2allError: for a file that is missing, unreadable, truncated or of another format, and for k-space that is
            real, of another dimension, empty, not finite or all zero, or that does not fit its mask or maps.
    """
    arrays = _read_file(path, key)
    if "kspace" not in arrays:
        raise Any2allError("the file holds no k-space", key=key, value=Path(path).name, allowed="an array named kspace")
    return check_kspace(arrays, key)


def read_coil_maps(path: str | Path, kspace: np.ndarray, key: str = "coil_maps") -> np.ndarray:
    """Read and check the coil maps that belong to ``kspace`` ``(Z, C, H, W)``.

    ``.npz`` and HDF5 hold them as ``coil_maps``, or as ``kspace`` where the file was written as k-space is.

    Returns:
        complex64 ``(1 | Z, C, H, W)``.

    Raises:
        Any2allError: for a file that cannot be used, and for maps that do not fit the k-space.
    """
    arrays = _read_file(path, key)
    maps = arrays.get("coil_maps", arrays.get("kspace"))
    if maps is None:
        raise Any2allError(
            "the file holds no coil maps", key=key, value=Path(path).name, allowed="an array named coil_maps"
        )
    return _checked_maps(np.asarray(maps), kspace, key)


def check_kspace(arrays: dict[str, np.ndarray], key: str = "kspace") -> RawKspace:
    """Turn arrays by name (as in the files) into a :class:`RawKspace`, or refuse them as :func:`read_kspace` does."""
    kspace = _checked_samples(np.asarray(arrays["kspace"]), key)
    mask, notes = _checked_mask(arrays.get("mask"), kspace, key)
    maps = _checked_maps(arrays["coil_maps"], kspace, f"{key}.coil_maps") if "coil_maps" in arrays else None
    noise_std = None if "noise_std" not in arrays else _positive(arrays["noise_std"], 1, f"{key}.noise_std")[0]
    voxel = None
    if "voxel_size_mm" in arrays:
        voxel = _positive(arrays["voxel_size_mm"], 3, f"{key}.voxel_size_mm")
    return RawKspace(kspace * mask, mask, maps, noise_std, voxel, notes)


def _read_file(path: str | Path, key: str) -> dict[str, np.ndarray]:
    """Arrays by name; the one array of a ``.npy`` is called ``kspace``."""
    path = Path(path)
    if path.suffix.lower() not in READABLE:
        raise Any2allError("unknown k-space format", key=key, value=path.name, allowed=READABLE)
    if not path.is_file():
        raise Any2allError("no such file", key=key, value=path.name, allowed="an existing file")
    try:
        if path.suffix.lower() == ".npy":
            return {"kspace": np.load(path, allow_pickle=False)}
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return {name: archive[name] for name in ARRAYS if name in archive.files}
        with h5py.File(path, "r") as file:
            return {name: file[name][()] for name in ARRAYS if isinstance(file.get(name), h5py.Dataset)}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise Any2allError(
            "the file cannot be read; it may be truncated or of another format",
            key=key,
            value=path.name,
            allowed=READABLE,
        ) from error


def _checked_samples(kspace: np.ndarray, key: str) -> np.ndarray:
    if not np.iscomplexobj(kspace):
        raise Any2allError("k-space must be complex", key=key, value=str(kspace.dtype), allowed="complex64, complex128")
    if kspace.ndim == 3:
        kspace = kspace[None]
    if kspace.ndim != 4 or 0 in kspace.shape:
        raise Any2allError("k-space has a wrong shape", key=key, value=kspace.shape, allowed=_LAYOUT)
    if not np.isfinite(kspace).all():
        raise Any2allError("k-space holds NaN or infinite values", key=key, allowed="finite numbers")
    if not kspace.any():
        raise Any2allError("k-space is zero everywhere", key=key, allowed="measured data")
    return kspace.astype(np.complex64)


def _checked_mask(mask: np.ndarray | None, kspace: np.ndarray, key: str) -> tuple[np.ndarray, tuple[str, ...]]:
    if mask is None:
        sampled = (kspace != 0).any(axis=1)
        common = sampled.all(axis=0) if sampled.any(axis=0).sum() != sampled.all(axis=0).sum() else sampled[0]
        if not common.any():
            raise Any2allError("no point is sampled in every slice", key=key, allowed="one mask for all slices")
        dropped = 1 - common.sum() / sampled.any(axis=0).sum()
        notes = (f"mask taken from the data; {dropped:.1%} of the points are not in every slice and were dropped",)
        return common.astype(np.float32), notes if dropped > 0 else ("mask taken from the data",)
    height, width = kspace.shape[-2:]
    mask = np.asarray(mask)
    if mask.shape not in {(width,), (height, width)} or not np.isin(mask, (0, 1)).all() or not mask.any():
        raise Any2allError(
            "the mask does not fit the k-space",
            key=f"{key}.mask",
            value=mask.shape,
            allowed=f"zeros and ones, ({width},) or ({height}, {width})",
        )
    return np.broadcast_to(mask, (height, width)).astype(np.float32), ()


def _checked_maps(maps: np.ndarray, kspace: np.ndarray, key: str) -> np.ndarray:
    maps = maps[None] if maps.ndim == 3 else maps
    slices, coils, height, width = kspace.shape
    fits = maps.ndim == 4 and maps.shape[0] in (1, slices) and maps.shape[1:] == (coils, height, width)
    if not fits or not np.iscomplexobj(maps) or not np.isfinite(maps).all() or not maps.any():
        raise Any2allError(
            "the coil maps do not fit the k-space",
            key=key,
            value=f"{maps.dtype} {maps.shape}",
            allowed=f"finite complex (1 or {slices}, {coils}, {height}, {width})",
        )
    return maps.astype(np.complex64)


def _positive(value: np.ndarray, count: int, key: str) -> tuple[float, ...]:
    flat = np.atleast_1d(np.asarray(value)).ravel()
    if flat.size != count or flat.dtype.kind not in "fiu" or not (np.isfinite(flat) & (flat > 0)).all():
        raise Any2allError("not a positive number", key=key, value=str(value), allowed=f"{count} positive numbers")
    return tuple(float(number) for number in flat)
