"""Files and requests that somebody who means harm would send."""

from __future__ import annotations

import gzip
import io
import pickle
import socket
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np


def zeros_gz(head: bytes, mebibytes: int) -> bytes:
    """A gzip file of ``head`` and many zeros: about a thousandth of what it unpacks to."""
    engine = zlib.compressobj(1, zlib.DEFLATED, 31)
    packed = [engine.compress(head)] + [engine.compress(bytes(2**20)) for _ in range(mebibytes)]
    return b"".join(packed) + engine.flush()


def nifti_head(shape: tuple[int, ...], offset: float = 352.0) -> bytes:
    """The header of a float32 NIfTI whose data begin at ``offset``; all before them is one header extension."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape(shape)
    header["magic"], header["vox_offset"] = b"n+1", offset
    if offset <= 352:
        return header.binaryblock + bytes(4)
    return header.binaryblock + b"\1\0\0\0" + int(offset - 352).to_bytes(4, "little") + (6).to_bytes(4, "little")


def tar_of(kind: str, name: str, link: str = "", packed: bool = False) -> bytes:
    """A tar with one plain member, and one of a kind (``file``, ``link``, ``hard``, ``fifo``, ``device``)."""
    types = {"file": tarfile.REGTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE}
    types |= {"fifo": tarfile.FIFOTYPE, "device": tarfile.CHRTYPE}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if packed else "w") as archive:
        for member, type_ in (("T2.nii.gz", tarfile.REGTYPE), (name, types[kind])):
            info = tarfile.TarInfo(member)
            info.type, info.linkname = type_, link
            info.size = 4 if type_ == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(b"evil"))
    return buffer.getvalue()


def zip_of(name: str, content: bytes = b"evil", link: bool = False) -> bytes:
    """A zip with one member, which is a symbolic link where ``link``."""
    info = zipfile.ZipInfo("placeholder")
    info.filename = name
    info.external_attr = ((stat.S_IFLNK if link else stat.S_IFREG) | 0o644) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(info, content)
    return buffer.getvalue()


class Payload:
    """Whoever unpickles it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.marker), "w")


def pickled_npy(marker: Path) -> bytes:
    """An array of objects: ``numpy.load`` with pickles allowed would run it."""
    buffer = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": (4, 1, 8, 8)}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + pickle.dumps(Payload(marker))


def npz_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def h5_elsewhere(folder: Path, kind: str, target: Path) -> bytes:
    """HDF5 whose k-space lies in another file: by an ``external`` link, ``raw`` storage, or ``virtual``."""
    file = folder / f"{kind}.h5"
    with h5py.File(file, "w") as h5:
        if kind == "external":
            h5["kspace"] = h5py.ExternalLink(str(target), "kspace")
        elif kind == "soft":
            h5["kspace"] = h5py.SoftLink("/elsewhere")
        elif kind == "raw":
            h5.create_dataset("kspace", (4, 1, 8, 8), "c8", external=[(str(target), 0, h5py.h5f.UNLIMITED)])
        else:
            layout = h5py.VirtualLayout((4, 1, 8, 8), "c8")
            layout[:] = h5py.VirtualSource(str(target), "kspace", (4, 1, 8, 8))
            h5.create_virtual_dataset("kspace", layout)
    return file.read_bytes()


def mha(data_file: str, *lines: str) -> bytes:
    """A MetaImage of 8x8x8 zeros that says where its data are."""
    head = ["ObjectType = Image", "NDims = 3", "DimSize = 8 8 8", "ElementType = MET_FLOAT", "BinaryData = True"]
    return "\n".join([*head, *lines, f"ElementDataFile = {data_file}", ""]).encode() + bytes(4 * 512)


def nrrd(*lines: str) -> bytes:
    """A NRRD of 8x8x8 zeros with further header lines."""
    head = ["NRRD0004", "type: float", "dimension: 3", "sizes: 8 8 8", "encoding: raw", "endian: little"]
    return "\n".join([*head, *lines, "", ""]).encode() + bytes(4 * 512)


def said(port: int, request: bytes, seconds: float = 5.0) -> bytes:
    """What a server answers to raw bytes until it closes the connection, or stays silent."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        connection.sendall(request)
        answer = b""
        try:
            while piece := connection.recv(1 << 16):
                answer += piece
        except (TimeoutError, ConnectionError):
            pass
        return answer


def unpacked(content: bytes) -> bytes:
    """The content of a .gz, or other bytes as they are."""
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def in_words(reply: Any) -> bool:
    """Whether an error reply is contract 3's."""
    return reply.headers["content-type"] == "application/json" and {"code", "message"} <= set(reply.json())
