"""How large a file of arrays really is: NPY, NPZ and HDF5 by their headers and their real decompressed bytes.

Nothing is unpickled, no other file is followed to, and no array is held: headers are read, compressed bytes counted.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence

import h5py
import numpy as np
from any2all.kspace.formats import ARRAYS

from .inflate import Pieces, TooMuch, Unusable, inflated_length, open_zip
from .study_file import StudyFile

MOST_ARRAYS = 64
MOST_CHUNKS = 1 << 18
_HEADER_BYTES = 1 << 14
_NUMBERS = "biufc"  # numpy's kinds; 'O' would be unpickled
_NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_FILTERS = (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32)  # in this order
_CHECKSUM_BYTES = 4


def npy_bytes(file: StudyFile) -> int:
    """Bytes of a ``.npy``. Raises what `sizes.unpacked_bytes` says."""
    with file.path.open("rb") as stream:
        name = "trajectory" if file.key.endswith(".trajectory") else "kspace"
        needed = _npy_needs(file, name, stream.read(_HEADER_BYTES))
        return file.check_long_enough(file.check_bytes(os.fstat(stream.fileno()).st_size), needed)


def _npy_needs(file: StudyFile, name: str, head: bytes) -> int:
    """Bytes that a header asks for, by the first bytes of an array in NPY format."""
    stream = io.BytesIO(head)
    try:
        shape, _, dtype = _NPY_HEADERS[np.lib.format.read_magic(stream)](stream)
    except Exception:  # numpy evaluates the header as a literal, and that can fail in many ways
        raise file.refused(f"the array {name} has no NPY header that can be read", file.path.name) from None
    return stream.tell() + _array_bytes(file, name, shape, dtype)


def _array_bytes(file: StudyFile, name: str, shape: Sequence[int], dtype: np.dtype) -> int:
    """Bytes of an array of numbers; k-space and coil maps are held against the voxel limit for one coil."""
    if dtype.kind not in _NUMBERS or dtype.itemsize > 32:
        raise file.refused(
            f"the array {name} does not hold numbers", str(dtype)[:40], allowed="real or complex numbers"
        )
    if name in ("kspace", "coil_maps"):
        if len(shape) not in (3, 4):
            raise file.refused(
                f"the array {name} has {len(shape)} axes", allowed="(slices, coils, H, W) or (coils, H, W)"
            )
        file.check_shape(shape[:-3] + shape[-2:], f"the array {name} has too many voxels in one coil")
    if len(shape) > 32 or min(shape, default=1) < 0:
        raise file.refused(f"the array {name} has an impossible shape", str(shape)[:60])
    return file.check_bytes(math.prod(shape) * dtype.itemsize)


def npz_bytes(file: StudyFile) -> int:
    """Bytes of all arrays of a ``.npz`` when unpacked. Raises what `sizes.unpacked_bytes` says."""
    total = 0
    with file.path.open("rb") as stream, open_zip(stream) as archive:
        members = archive.infolist()
        names = [info.filename for info in members]
        if len(members) > MOST_ARRAYS or len(set(names)) < len(names):
            raise file.refused("the file holds too many arrays, or one twice", len(names), f"at most {MOST_ARRAYS}")
        file.check_bytes(sum(info.file_size for info in members))
        for info in members:
            if not info.filename.endswith(".npy"):
                raise file.refused("the file holds something else than arrays", ascii(info.filename)[:60])
            with archive.open(info) as member:
                unpacked = Pieces(member, "raw", file.room - total)
                needed = _npy_needs(file, info.filename.removesuffix(".npy")[:40], unpacked.read(_HEADER_BYTES))
                total += file.check_long_enough(unpacked.length(), needed)
    return total


def h5_array_bytes(file: StudyFile, h5: h5py.File) -> int:
    """Bytes of the arrays in an HDF5 file that the reader takes by name. Raises what `sizes.unpacked_bytes` says."""
    total = 0
    for name in ARRAYS:
        total += _dataset_bytes(file, h5, name)
        file.check_bytes(total)
    return total


def _dataset_bytes(file: StudyFile, h5: h5py.File, name: str) -> int:
    link = name.encode()
    if not h5.id.links.exists(link):  # "name in h5" would follow a link into another file
        return 0
    if h5.id.links.get_info(link).type != h5py.h5l.TYPE_HARD:
        raise file.refused(f"the array {name} is a link", allowed="an array that the file itself holds")
    dataset = h5[name]
    if not isinstance(dataset, h5py.Dataset):
        return 0
    plan = dataset.id.get_create_plist()
    if plan.get_layout() == h5py.h5d.VIRTUAL or plan.get_external_count():
        raise file.refused(f"the array {name} is stored in other files", allowed="an array that the file itself holds")
    if dataset.shape is None:
        raise file.refused(f"the array {name} is empty")
    size = _array_bytes(file, name, dataset.shape, dataset.dtype)
    return size if plan.get_layout() != h5py.h5d.CHUNKED else _chunked_bytes(file, name, dataset, plan)


def _chunked_bytes(file: StudyFile, name: str, dataset: h5py.Dataset, plan: h5py.h5p.PropDCID) -> int:
    """Bytes of all chunks, each as large as it may be; HDF5 itself lets a chunk unpack to any size."""
    chunk = plan.get_chunk()
    count = math.prod(-(-n // c) for n, c in zip(dataset.shape, chunk))
    chunk_bytes = math.prod(chunk) * dataset.dtype.itemsize
    if count > MOST_CHUNKS:
        raise file.refused(f"the array {name} is cut into too many chunks", count, f"at most {MOST_CHUNKS}")
    total = file.check_bytes(count * chunk_bytes)
    filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
    if filters != [f for f in _FILTERS if f in filters]:
        raise file.refused(
            f"the array {name} is stored through filters that are not taken",
            filters[:8],
            allowed="shuffle, gzip and fletcher32, in this order",
            hint="h5repack can rewrite the file",
        )
    if h5py.h5z.FILTER_DEFLATE in filters:
        _check_chunks(dataset, count, chunk_bytes, skipped=1 << filters.index(h5py.h5z.FILTER_DEFLATE))
    return total


def _check_chunks(dataset: h5py.Dataset, count: int, chunk_bytes: int, skipped: int) -> None:
    """Unpack every chunk in pieces. ``skipped``: the bit that says of a chunk that gzip was left out."""
    stored: list = []

    def collect(info) -> bool | None:
        stored.append(info)
        return True if len(stored) > count else None

    dataset.id.chunk_iter(collect)
    if len(stored) > count:
        raise Unusable("it stores more chunks than its array has")
    for info in stored:
        if info.size > chunk_bytes + chunk_bytes // 100 + 4096:
            raise Unusable("a chunk is larger than what it should hold")
        if info.filter_mask & skipped:
            continue
        _, packed = dataset.id.read_direct_chunk(info.chunk_offset)
        try:
            inflated_length(io.BytesIO(packed), "zlib", chunk_bytes + _CHECKSUM_BYTES)
        except TooMuch:
            raise Unusable("a chunk unpacks to more than it should hold") from None
