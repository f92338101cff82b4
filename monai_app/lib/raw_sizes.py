"""How large raw data of a scanner becomes: HDF5 (arrays by name, fastMRI, ISMRMRD) and BART's pairs.

ISMRMRD keeps samples of variable length: one stored block may serve any number of readouts, and nothing but the
stored records says how long each is. So the records are read as bytes, and no sample is followed to.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import h5py
import numpy as np
from any2all.kspace import bart
from any2all.kspace.hdf5 import dataset_of, kind_of, text_of
from any2all.kspace.header import MOST_HEADER_BYTES, parse_header

from .array_sizes import MOST_CHUNKS, h5_array_bytes
from .inflate import PIECE, Unusable
from .study_file import StudyFile

MOST_LINKS = 1024  # of an HDF5 file's root, which are looked through for readouts
_MOST_CHUNK_BYTES = 1 << 24
_MOST_RECORD_BYTES = 1 << 12
_REFERENCE_BYTES = 16  # of a text of variable length as it is stored: its length, where it lies
_SAMPLE_BYTES = 8
_UNWRITTEN = "some of its readouts, or their header, were never written"
_COUNTERS = ("number_of_samples", "active_channels")


def h5_bytes(file: StudyFile) -> int:
    """Bytes of what the reader takes from an HDF5 file. Raises what `sizes.unpacked_bytes` says."""
    with h5py.File(file.path, "r") as h5:
        total = h5_array_bytes(file, h5)
        if len(h5) > MOST_LINKS:
            raise file.refused("the file holds too many things", len(h5), f"at most {MOST_LINKS}")
        kind, group = kind_of(h5, file.key)
        if kind == "fastmri":
            if h5["kspace"].ndim == 3:  # of one coil: all three are of its voxels
                file.check_shape(h5["kspace"].shape, "the array kspace has too many voxels in one coil")
            total += _text_bytes(file, h5, "ismrmrd_header")
        elif kind == "ismrmrd":
            total += _mrd_bytes(file, h5, group)
    return file.check_bytes(total)


def cfl_bytes(file: StudyFile) -> int:
    """Bytes of a BART pair, by its ``.hdr``. Raises what `sizes.unpacked_bytes` says."""
    sizes = bart.dimensions(file.path.with_suffix(".hdr"), file.key)
    one_coil = [n for i, n in enumerate(sizes) if n > 1 and i not in (bart.COIL, bart.MAPS)] or [1]
    file.check_shape(one_coil, "the BART array has too many voxels in one coil")
    needed = file.check_bytes(_SAMPLE_BYTES * math.prod(sizes))
    held = file.check_bytes(file.path.stat().st_size)
    if held != needed:
        raise file.refused(
            "the .cfl file does not have the size that its .hdr says", f"{held} bytes", f"{needed} bytes"
        )
    return held


def hdr_bytes(file: StudyFile) -> int:
    """Bytes of a ``.hdr`` alone; its array is counted with the ``.cfl``. Raises what `sizes.unpacked_bytes` says."""
    bart.dimensions(file.path, file.key)
    return file.check_bytes(file.path.stat().st_size)


def _mrd_bytes(file: StudyFile, h5: h5py.File, group: str) -> int:
    """Bytes of all readouts, and of the k-space that they are sorted into."""
    text = _text_bytes(file, h5, f"{group}/xml")
    header = parse_header(text_of(h5, f"{group}/xml", file.key), file.key)
    data = dataset_of(h5, f"{group}/data", file.key)
    record = _record_type(file, data)
    most, slices = file.path.stat().st_size, np.zeros(1 << 16, bool)
    named = stored = coils = 0
    for heads, lengths in _readouts(data, record, file):
        samples, channels = (heads[name].astype(np.int64) for name in _COUNTERS)
        named += _SAMPLE_BYTES * int((samples * channels).sum())
        stored += 4 * lengths
        coils = max(coils, int(channels.max()))
        slices[heads["idx"]["slice"]] = True
        if stored > most:
            raise file.refused("the readouts are longer than the file", file.path.name, hint="send the file again")
    file.check_long_enough(most, named)
    shape = (int(slices.sum()), *header.encoded_matrix)
    file.check_shape(shape, "the header's matrix has too many voxels in one coil")
    records = data.size * record.itemsize
    return text + file.check_bytes(records + stored) + file.check_bytes(math.prod(shape) * coils * _SAMPLE_BYTES)


def _record_type(file: StudyFile, data: h5py.Dataset) -> np.dtype:
    """A readout as it is stored: its head, and where samples and trajectory lie their lengths alone."""
    fields = data.dtype.fields or {}
    head = fields["head"][0] if "head" in fields else np.dtype(np.void)
    floats = [h5py.check_vlen_dtype(fields[name][0]) for name in ("data", "traj") if name in fields]
    wrong = data.ndim != 1 or data.size < 1 or data.dtype.itemsize > _MOST_RECORD_BYTES or head.hasobject
    wrong = wrong or not {"head", "data"} <= set(fields) <= {"head", "data", "traj"} or set(floats) != {np.dtype("f4")}
    if not wrong:
        counters = [head.fields.get(name, (None,))[0] for name in _COUNTERS] + [head["idx"].fields["slice"][0]]
        wrong = any(c is None or c.kind != "u" or c.itemsize != 2 for c in counters)
    if wrong:
        raise file.refused("the file holds no ISMRMRD readouts", str(data.shape)[:60])
    return np.dtype(
        {
            "names": list(fields),
            "formats": [head if name == "head" else np.dtype("<u4") for name in fields],
            "offsets": [place for _, place, *_ in fields.values()],
            "itemsize": data.dtype.itemsize,
        }
    )


def _readouts(data: h5py.Dataset, record: np.dtype, file: StudyFile) -> Iterator[tuple[np.ndarray, int]]:
    """Heads of some readouts, and how many numbers these hold by their stored lengths."""
    waiting = bytearray()
    for piece in _stored(file, data, record.itemsize):
        waiting += piece
        whole = len(waiting) // record.itemsize * record.itemsize
        if whole >= PIECE:
            yield _taken_apart(waiting[:whole], record)
            del waiting[:whole]
    if waiting:
        yield _taken_apart(waiting, record)


def _taken_apart(raw: bytearray, record: np.dtype) -> tuple[np.ndarray, int]:
    readouts = np.frombuffer(bytes(raw), record)
    return readouts["head"], sum(int(readouts[n].sum(dtype=np.int64)) for n in record.names if n != "head")


def _text_bytes(file: StudyFile, h5: h5py.File, path: str) -> int:
    """Bytes of the XML header, which is about to be parsed."""
    dataset = dataset_of(h5, path, file.key)
    text = h5py.check_string_dtype(dataset.dtype)
    if dataset.size != 1 or text is None:
        raise file.refused("the file's header is no text", path[-40:])
    length = text.length
    if length is None:
        length = int.from_bytes(b"".join(_stored(file, dataset, _REFERENCE_BYTES))[:4], "little")
    elif length <= MOST_HEADER_BYTES:
        length = sum(map(len, _stored(file, dataset, length)))
    if length > min(MOST_HEADER_BYTES, file.path.stat().st_size):
        raise file.refused("the file's header is too long", length, f"at most {MOST_HEADER_BYTES} bytes")
    return length


def _stored(file: StudyFile, dataset: h5py.Dataset, record_bytes: int) -> Iterator[bytes]:
    """All records of a dataset as the file stores them, in order, in pieces.

    Every record has to be there: HDF5 gives those that are not a fill value, which may be of any length.
    """
    plan = dataset.id.get_create_plist()
    plain = plan.get_layout() in (h5py.h5d.CHUNKED, h5py.h5d.CONTIGUOUS) and not plan.get_nfilters()
    if not plain or h5py.h5i.get_file_id(dataset.id).get_create_plist().get_sizes() != (8, 8):
        raise file.refused(
            "the readouts or their header are stored in a way that is not taken",
            dataset.name[-40:],
            "records that are not compressed",
            hint="h5repack -f NONE can rewrite the file",
        )
    needed = record_bytes * dataset.size
    if plan.get_layout() == h5py.h5d.CHUNKED:
        yield from _chunks(dataset, plan.get_chunk()[0], record_bytes)
    elif dataset.id.get_storage_size() != needed:
        raise Unusable(_UNWRITTEN)
    else:
        with file.path.open("rb") as stream:
            place = dataset.id.get_offset()
            file.check_long_enough(stream.seek(0, 2), place + needed)
            stream.seek(place)
            while needed:
                piece = stream.read(min(needed, PIECE))
                needed -= len(piece)
                yield piece


def _chunks(dataset: h5py.Dataset, length: int, record_bytes: int) -> Iterator[bytes]:
    """Every chunk of one axis, without what its last one holds beyond the end."""
    starts = range(0, dataset.size, length)
    if len(starts) > MOST_CHUNKS or length * record_bytes > _MOST_CHUNK_BYTES:
        raise Unusable("it is cut into too many chunks, or into chunks that are too large")
    stored: list = []

    def collect(info) -> bool | None:
        stored.append(info)
        return True if len(stored) > len(starts) else None

    dataset.id.chunk_iter(collect)
    sizes = {info.chunk_offset[0]: info.size for info in stored}
    if len(stored) != len(starts) or set(sizes) != set(starts) or set(sizes.values()) != {length * record_bytes}:
        raise Unusable(_UNWRITTEN)
    for start in starts:
        yield dataset.id.read_direct_chunk((start,))[1][: (dataset.size - start) * record_bytes]
