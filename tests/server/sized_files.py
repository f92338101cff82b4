"""Files of every format that a study takes, as bytes, and their headers to be changed."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable

import h5py
import nibabel as nib
import numpy as np
from raw_files import header_xml

SHAPE = (6, 7, 8)
VOXELS = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
RAW = VOXELS.tobytes()
KSPACE = (VOXELS[None, :2] * (1 + 1j)).astype(np.complex64)  # (1, 2, 7, 8)
NRRD = """NRRD0005
# a comment
type: {type}
dimension: 3
space: left-posterior-superior
sizes: {sizes}
space directions: (1,0,0) (0,1,0) (0,0,1)
endian: little
encoding: {encoding}
{extra}space origin: (0,0,0)

"""
MHA = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = {compressed}
TransformMatrix = {matrix}
Offset = 0 0 0
ElementSpacing = 1 1 1
{extra}DimSize = {sizes}
ElementType = {type}
ElementDataFile = LOCAL
"""


def nifti(pair: type = nib.Nifti1Image, kind: type = np.float32) -> bytes:
    return pair(VOXELS.astype(kind), np.eye(4)).to_bytes()


def nrrd(encoding="raw", extra="", sizes="6 7 8", kind="float", data=RAW) -> bytes:
    return NRRD.format(type=kind, sizes=sizes, encoding=encoding, extra=extra).encode() + data


def mha(compressed="False", extra="", sizes="6 7 8", kind="MET_FLOAT", matrix="1 0 0 0 1 0 0 0 1", data=RAW) -> bytes:
    return MHA.format(type=kind, sizes=sizes, compressed=compressed, extra=extra, matrix=matrix).encode() + data


def npy(array: np.ndarray, pickled: bool = False) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array, allow_pickle=pickled)
    return out.getvalue()


def npy_header(shape: str, descr: str = "'<c8'") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def npz(packed: bool = False, **arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(out, **arrays)
    return out.getvalue()


def zip_of(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "."), data)
    return out.getvalue()


def h5(fill: Callable[[h5py.File], object], userblock: int = 0) -> bytes:
    out = io.BytesIO()
    with h5py.File(out, "w", userblock_size=userblock) as file:
        fill(file)
    return out.getvalue()


def h5_array(name: str = "kspace", **options: object) -> bytes:
    return h5(lambda file: file.create_dataset(name, **{"data": KSPACE, **options}))


def virtual() -> h5py.VirtualLayout:
    layout = h5py.VirtualLayout((2, 7, 8), "c8")
    layout[:] = h5py.VirtualSource("/etc/x.h5", "kspace", (2, 7, 8))
    return layout


def fastmri_like(file: h5py.File) -> None:
    file["kspace"], file["mask"], file["voxel_size_mm"] = KSPACE, np.ones(8, bool), [1.0, 1, 3]
    file["ismrmrd_header"] = header_xml((7, 8, 1))
    file["elsewhere"] = h5py.ExternalLink("/etc/x.h5", "/")
    file.create_group("noise_std")
