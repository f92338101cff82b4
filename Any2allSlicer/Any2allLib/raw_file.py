"""What the form has to know of a raw data file, without reading the data."""

from __future__ import annotations

import functools
import os
import re
import zipfile
from pathlib import Path

_SCANNERS = (b"ismrmrd_header", b"ismrmrdHeader")  # names of an array and of an XML's root, which tell everything
_PAIR = {".cfl": ".hdr", ".hdr": ".cfl"}  # BART keeps data and dimensions apart
_LOOK = 1024 * 1024  # bytes at either end of an HDF5 file, where the names of its few datasets are


def size_of(path: str) -> int:
    """Bytes of a file; 0 where there is none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def files_of(path: str) -> list[Path]:
    """The file itself, and its partner where two belong together."""
    file = Path(path)
    partner = _PAIR.get(file.suffix.lower())
    return [file] if partner is None else [file, file.with_suffix(partner)]


def tells_voxel_size(path: str) -> bool:
    """Whether a file of raw k-space says its voxel size, by name, in an affine or in an ISMRMRD header.

    ``.npy`` and BART never do. An HDF5 file is searched for the names near its beginning and end. A file where they lie
    elsewhere is taken not to have one: the user is then asked for what the file says.
    """
    return _holds(path, "voxel_size_mm") or _holds(path, "affine")


def tells_trajectory(path: str) -> bool:
    """Whether a file of raw k-space says by itself where it was sampled, looked for as `tells_voxel_size` does."""
    return _holds(path, "trajectory")


def _holds(path: str, name: str) -> bool:
    try:
        stat = os.stat(path)
        return _tells(path, name, stat.st_size, stat.st_mtime_ns)
    except (OSError, zipfile.BadZipFile):
        return False


@functools.lru_cache(maxsize=64)
def _tells(path: str, name: str, size: int, _changed_ns: int) -> bool:
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            return f"{name}.npy" in archive.namelist()
    if suffix == ".mrd":
        return True
    if suffix not in (".h5", ".hdf5"):
        return False
    with open(path, "rb") as stream:
        start = stream.read(_LOOK)
        stream.seek(max(0, size - _LOOK))
        looked_at = start + stream.read()
    named = re.search(rb"(?<!\w)%s(?!\w)" % name.encode("ascii"), looked_at)
    return named is not None or any(word in looked_at for word in _SCANNERS)
