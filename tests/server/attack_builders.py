"""Files and requests that somebody who means harm would send, and a watch over what a server does then."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import socket
import stat
import tarfile
import time
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import httpx
import nibabel as nib
import numpy as np
from server_builders import REPOSITORY, Server, tree


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


def in_words(reply: httpx.Response) -> bool:
    """Whether an error reply is contract 3's."""
    return reply.headers["content-type"] == "application/json" and {"code", "message"} <= set(reply.json())


def refused(reply: httpx.Response, *statuses: int) -> dict[str, Any]:
    """An error in contract 3's words; whatever the attack, the server is not the one that failed."""
    assert 400 <= reply.status_code < 500 and in_words(reply), (reply.status_code, reply.text[:500])
    assert not statuses or reply.status_code in statuses, (reply.status_code, reply.text[:500])
    return reply.json()


def one_file(name: str, key: str = "file", modality: str = "T1") -> dict[str, Any]:
    """A study of one file."""
    status = "available" if key == "file" else "undersampled"
    return {"modalities": {modality: {"status": status, key: name}}, "outputs": ["CT"], "preset": "fast"}


def sent_job(server: Server, document: Any, *files: tuple[str, bytes]) -> httpx.Response:
    """POST jobs with a document, or with any text in its place, and with files."""
    text = document if isinstance(document, (str, bytes)) else json.dumps(document)
    parts = [("files", file) for file in files] or {}
    return server.http.post("/any2all/v1/jobs", data={"study": text}, files=parts)


class Watch:
    """Remembers what lay in a server's folders and everything that it replies from now on.

    Args:
        server: just started.
        outside: folders that are no business of the server's.
    """

    def __init__(self, server: Server, *outside: Path) -> None:
        self.server, self.folders = server, (server.folder, *outside)
        self.replies: list[bytes] = []
        self.before = self._files()
        server.http.event_hooks["response"] = [self._remember]

    def assert_nothing_was_left(self) -> None:
        """No file was made or lost anywhere, and neither jobs nor sessions nor temporary files are left."""
        deadline = time.monotonic() + 10  # the last client's upload may just be on its way out
        while self._files() != self.before and time.monotonic() < deadline:
            time.sleep(0.1)
        assert self._files() == self.before

    def assert_no_reply_told_a_path(self) -> None:
        """Neither bodies, also unpacked, nor headers."""
        server = self.server
        folders = [server.work, server.studies, server.folder / "tmp", Path.home(), REPOSITORY]
        words = [str(folder).encode() for folder in folders if folder != Path(folder.anchor)]
        assert len(self.replies) > 20
        for content in self.replies:
            assert not [word for word in words if word in content], content[:300]

    def assert_it_lives(self) -> None:
        """It answers, it is the process that was started, and it was never surprised."""
        assert self.server.health() == "ok" and self.server.process.poll() is None
        log = self.server.log()
        assert "Traceback" not in log and "unforeseen" not in log and "unexpected" not in log, log[-3000:]

    def _remember(self, reply: httpx.Response) -> None:
        content = reply.read()
        if content[:2] == b"\x1f\x8b":
            with suppress(OSError, EOFError, zlib.error):  # a client gets back the damaged file that it sent
                content = gzip.decompress(content)
        self.replies += [content, str(reply.headers).encode()]

    def _files(self) -> tuple[set[str], ...]:
        app = {p.relative_to(REPOSITORY).as_posix() for p in (REPOSITORY / "monai_app").rglob("*") if p.suffix == ".py"}
        return *(tree(folder) for folder in self.folders), app
