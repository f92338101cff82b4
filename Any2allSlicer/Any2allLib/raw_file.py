"""What the form has to know of a raw data file, without reading the data."""

from __future__ import annotations

import functools
import os
import zipfile

_KEY = "voxel_size_mm"
_LOOK = 1024 * 1024  # bytes at either end of an HDF5 file, where the names of its few datasets are


def size_of(path: str) -> int:
    """Bytes of a file; 0 where there is none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def tells_voxel_size(path: str) -> bool:
    """Whether a file of raw k-space holds ``voxel_size_mm``; ``.npy`` never does.

    An HDF5 file is searched for the name near its beginning and end. A file where it lies elsewhere is taken not to
    have it: the user is then asked for what the file says, which does no harm.
    """
    try:
        stat = os.stat(path)
        return _tells(path, stat.st_size, stat.st_mtime_ns)
    except (OSError, zipfile.BadZipFile):
        return False


@functools.lru_cache(maxsize=64)
def _tells(path: str, size: int, _changed_ns: int) -> bool:
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            return f"{_KEY}.npy" in archive.namelist()
    if suffix not in (".h5", ".hdf5"):
        return False
    with open(path, "rb") as stream:
        start = stream.read(_LOOK)
        stream.seek(max(0, size - _LOOK))
        return _KEY.encode() in start or _KEY.encode() in stream.read()
