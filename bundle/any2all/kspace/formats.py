"""Reading raw k-space: ``.npy``, ``.npz``, HDF5 (arrays by name, fastMRI, ISMRMRD) and BART's pairs of files."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from ..errors import Any2allError
from .bart import read_cfl, read_cfl_trajectory
from .fastmri import read_fastmri
from .hdf5 import array_of, kind_of
from .mrd import read_mrd
from .preprocess import without_oversampling
from .raw import Contents, RawKspace, check_kspace, check_maps, check_size
from .raw_samples import RawSamples, check_samples
from .three_d import as_slices

__all__ = [
    "ARRAYS",
    "BART",
    "READABLE",
    "RawKspace",
    "RawSamples",
    "check_kspace",
    "coil_maps_in",
    "read_coil_maps",
    "read_contents",
    "read_kspace",
]

BART = (".cfl", ".hdr")
READABLE = (".npy", ".npz", ".h5", ".hdf5", ".mrd", *BART)
ARRAYS = (
    "kspace",
    "mask",
    "coil_maps",
    "noise_std",
    "voxel_size_mm",
    "noise",
    "noise_covariance",
    "affine",
    "trajectory",
    "matrix",
)
# What numpy, zipfile and h5py raise on damaged files.
_UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    RuntimeError,  # NotImplementedError among them
    MemoryError,
    OverflowError,
    SyntaxError,
    AttributeError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_kspace(path: str | Path, key: str = "kspace", trajectory: str | Path | None = None) -> RawKspace | RawSamples:
    """Read and check one file of raw k-space; readout oversampling that its header tells of is removed.

    ``.npz`` and HDF5 hold ``kspace`` and may hold the other ``ARRAYS``: ``noise`` are samples of noise alone (coils,
    N), ``noise_covariance`` is (coils, coils), ``affine`` is 4x4, RAS mm of the indices (slice, H, W). HDF5 files of
    fastMRI and ISMRMRD are told by what they hold (see ``hdf5.kind_of``). Where no mask is given, it is what is not
    zero. 3-D data becomes slices (see ``three_d``). Data with a ``trajectory`` is not Cartesian: `RawSamples`, of
    which ``matrix`` (H, W) spans the field of view.

    Args:
        path: the file; of BART either of the two.
        key: the study key to name in errors.
        trajectory: a file of its own, for formats that do not hold it.

    Raises:
        Any2allError: for a file that is missing, unreadable, truncated or of another format, and for k-space that is
            real, of another dimension, empty, not finite or all zero, or that does not fit its mask or maps.
    """
    with _in_words(Path(path), key):
        contents = read_contents(Path(path), key)
        if "kspace" not in contents.arrays:
            raise Any2allError(
                "the file holds no k-space", key=key, value=Path(path).name, allowed="an array named kspace"
            )
        if trajectory is not None:
            contents.arrays["trajectory"] = _read_trajectory(Path(trajectory), _beside(key, "trajectory"))
            if Path(path).suffix.lower() in BART:  # samples come before spokes there
                contents.arrays["kspace"] = contents.arrays["kspace"].swapaxes(-2, -1)
        if "trajectory" not in contents.arrays:
            contents = as_slices(contents, key)
    if "trajectory" in contents.arrays:
        return check_samples(contents.arrays, key, tuple(contents.notes))
    raw = check_kspace(contents.arrays, key, tuple(contents.notes))
    return without_oversampling(raw, contents.kept_rows)


def read_coil_maps(path: str | Path, kspace: np.ndarray, key: str = "coil_maps") -> np.ndarray:
    """Read and check the coil maps that belong to ``kspace`` ``(Z, C, H, W)``, as `read_kspace` gave it.

    ``.npz`` and HDF5 hold them as ``coil_maps``, or as ``kspace`` where the file was written as k-space is. Maps of
    3-D data in BART's format belong to its slices along z.

    Returns:
        complex64 ``(1 | Z, C, H, W)``.

    Raises:
        Any2allError: for a file that cannot be used, and for maps that do not fit the k-space.
    """
    return check_maps(coil_maps_in(path, key), kspace.shape, key)


def coil_maps_in(path: str | Path, key: str = "coil_maps") -> np.ndarray:
    """The array of a file of coil maps, not yet checked against any k-space. Raises Any2allError without one."""
    with _in_words(Path(path), key):
        arrays = read_contents(Path(path), key).arrays
        maps = arrays.get("coil_maps", arrays.get("kspace"))
        if maps is None:
            raise Any2allError(
                "the file holds no coil maps", key=key, value=Path(path).name, allowed="an array named coil_maps"
            )
        if maps.ndim == 5:
            maps = np.moveaxis(maps, -1, 0)[:, 0]
    return maps


def _read_trajectory(path: Path, key: str) -> np.ndarray:
    """The array of a trajectory's file: ``trajectory`` in it, or the only array that it holds."""
    with _in_words(path, key):
        if path.suffix.lower() in BART:
            return read_cfl_trajectory(path, key)
        arrays = read_contents(path, key).arrays
        found = arrays.get("trajectory", arrays.get("kspace") if path.suffix.lower() == ".npy" else None)
        if found is None:
            raise Any2allError(
                "the file holds no trajectory", key=key, value=path.name, allowed="an array named trajectory"
            )
    return found


def _beside(key: str, name: str) -> str:
    """The study key of this name in the modality that ``key`` belongs to."""
    return f"{key.rpartition('.')[0]}.{name}".lstrip(".")


@contextmanager
def _in_words(path: Path, key: str) -> Iterator[None]:
    if path.suffix.lower() not in READABLE:
        raise Any2allError("unknown k-space format", key=key, value=path.name, allowed=READABLE)
    if not path.is_file():
        raise Any2allError("no such file", key=key, value=path.name, allowed="an existing file")
    try:
        yield
    except Any2allError:
        raise
    except _UNREADABLE as error:
        raise Any2allError(
            "the file cannot be read; it may be truncated or of another format",
            key=key,
            value=path.name,
            allowed=READABLE,
        ) from error


def read_contents(path: Path, key: str) -> Contents:
    """Arrays by name; the one array of a ``.npy`` or of a BART pair is called ``kspace``."""
    suffix = path.suffix.lower()
    if suffix in BART:
        array = read_cfl(path, key)
        return Contents({"kspace": array}, ["read as BART data"], volume=array.ndim == 5)
    if suffix == ".npy":
        return Contents({"kspace": np.array(np.load(path, mmap_mode="r", allow_pickle=False))})
    if suffix == ".npz":
        return Contents(_read_npz(path, key))
    with h5py.File(path, "r") as file:
        kind, group = kind_of(file, key)
        if kind == "ismrmrd":
            return read_mrd(file, group, key)
        if kind == "fastmri":
            return read_fastmri(file, key)
        found = {name: array_of(file, name, key) for name in ARRAYS}
    return Contents({name: array for name, array in found.items() if array is not None})


def _read_npz(path: Path, key: str) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        check_size(sum(info.file_size for info in archive.infolist()) // 8, key)
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in ARRAYS if name in archive.files}
