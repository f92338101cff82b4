"""ISMRMRD and fastMRI files as bytes, whole or with parts that somebody has changed."""

from __future__ import annotations

import io
from collections.abc import Callable

import h5py
import numpy as np
from ismrmrd.hdf5 import acquisition_dtype

REFERENCE_BYTES = 16  # of samples of variable length as HDF5 stores them: length, address, number


def header_xml(matrix: tuple[int, int, int], more: str = "") -> str:
    """The least that a reader needs; ``more`` comes at the end."""
    sizes = "".join(f"<{axis}>{n}</{axis}>" for axis, n in zip("xyz", matrix))
    fov = "<fieldOfView_mm><x>220</x><y>220</y><z>5</z></fieldOfView_mm>"
    spaces = f"<encodedSpace><matrixSize>{sizes}</matrixSize>{fov}</encodedSpace><reconSpace>{fov}</reconSpace>"
    return f"<ismrmrdHeader><encoding>{spaces}<trajectory>cartesian</trajectory></encoding>{more}</ismrmrdHeader>"


def readouts(kspace: np.ndarray, dtype: np.dtype = acquisition_dtype) -> np.ndarray:
    """Records of (Z, C, H, W)."""
    slices, coils, rows, columns = kspace.shape
    records = np.zeros(slices * columns, dtype)
    head = records["head"]
    head["number_of_samples"], head["active_channels"], head["center_sample"] = rows, coils, rows // 2
    for i, (z, w) in enumerate(np.ndindex(slices, columns)):
        head["idx"]["slice"][i], head["idx"]["kspace_encode_step_1"][i] = z, w
        records["data"][i] = np.ascontiguousarray(kspace[z, :, :, w]).view(np.float32).ravel()
        records["traj"][i] = np.zeros(0, np.float32)
    return records


def mrd(
    records: np.ndarray,
    xml: str,
    fill: Callable[[h5py.Group], object] = lambda group: None,
    userblock: int = 0,
    **options: object,
) -> bytes:
    """A file with these records; ``fill`` adds to its group, ``options`` say how h5py stores the records."""
    out = io.BytesIO()
    with h5py.File(out, "w", userblock_size=userblock) as file:
        group = file.create_group("dataset")
        group.create_dataset("data", data=records, **options)
        group.create_dataset("xml", data=np.array([xml], object), dtype=h5py.string_dtype())
        fill(group)
    return out.getvalue()


def all_alike(content: bytes) -> bytes:
    """A file whose records lie together, changed: all of them refer to the samples and heads of the first."""
    with h5py.File(io.BytesIO(content)) as file:
        data = file["dataset/data"]
        place, size, count = data.id.get_offset(), data.dtype.itemsize, data.size
    return content[:place] + content[place : place + size] * count + content[place + size * count :]
