"""Unpacking what a session uploads as one archive: plain image files, by their own names, whole or not at all."""

from __future__ import annotations

import re
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from any2all.errors import Any2allError

from .inflate import PIECE, Pieces, TooMuch, Unusable, open_zip
from .intake import ARCHIVE_SUFFIXES, KEY, Incoming, shown
from .settings import Limits

MOST_FOLDERS = 3  # that a member may lie in, one inside the other
ENTRIES_PER_FILE = 8  # folders and extended headers beside the files themselves
_MOST_EXTENDED_BYTES = 1 << 16
_BLOCK = 512


def unpack(archive: Path, folder: Path, limits: Limits) -> list[Path]:
    """Unpack an archive into ``folder``; members in its folders are stored by their last name.

    Args:
        archive: ``.zip``, ``.tar`` or ``.tar.gz``, told by its name.
        folder: an existing folder of ours.
        limits: ``files`` and ``unpacked_bytes`` count here.

    Raises:
        Any2allError: ``invalid_upload``, ``too_large``, ``storage``; then nothing was left in ``folder``.
    """
    name = archive.name.lower()
    if not name.endswith(ARCHIVE_SUFFIXES):
        raise _refused("unknown archive format", archive.name, allowed=ARCHIVE_SUFFIXES)
    try:
        with Incoming(folder, limits, limits.unpacked_bytes) as incoming, archive.open("rb") as stream:
            if name.endswith(".zip"):
                _unpack_zip(stream, incoming, limits)
            else:
                _unpack_tar(
                    Pieces(stream, "gzip" if name.endswith(".gz") else "raw", _tar_bytes(limits)), incoming, limits
                )
    except Any2allError:
        raise
    except TooMuch:
        raise _too_large(limits) from None
    except Unusable as error:
        raise _refused(f"the archive cannot be used: {error}") from None
    except Exception as error:  # damaged bytes: zipfile and tarfile raise a dozen kinds
        raise _refused("the archive is damaged", hint=type(error).__name__) from None
    return incoming.written


def _refused(message: str, value: str | None = None, allowed: object = None, hint: str | None = None) -> Any2allError:
    value = None if value is None else shown(value)
    return Any2allError(message, key=KEY, value=value, allowed=allowed, hint=hint, code="invalid_upload")


def _too_large(limits: Limits) -> Any2allError:
    return Any2allError(
        "the archive is too large when unpacked",
        key=KEY,
        allowed=f"at most {limits.unpacked_bytes} bytes",
        code="too_large",
    )


def _tar_bytes(limits: Limits) -> int:
    """A tar of files that fit, with its headers and its padding to records."""
    return limits.unpacked_bytes + ENTRIES_PER_FILE * limits.files * (_BLOCK + _MOST_EXTENDED_BYTES)


def _last_name(name: str) -> str:
    """A member's own name, if its path stays inside and is plain."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or "\\" in name or ".." in parts or not name.isprintable():
        raise _refused("a member of the archive leaves it", name, allowed="relative paths with '/', without '..'")
    if len(parts) > MOST_FOLDERS + 1:
        raise _refused("a member of the archive lies too deep", name, allowed=f"at most {MOST_FOLDERS} folders")
    return parts[-1] if parts else ""


def _check_entries(count: int, limits: Limits) -> None:
    if count > ENTRIES_PER_FILE * limits.files:
        raise _refused("the archive holds too many members", allowed=f"at most {limits.files} files")


def _unpack_zip(stream: BinaryIO, incoming: Incoming, limits: Limits) -> None:
    with open_zip(stream) as archive:
        members = archive.infolist()
        _check_entries(len(members), limits)
        files = [(info, _zip_name(info)) for info in members]
        if sum(info.file_size for info in members) > limits.unpacked_bytes:
            raise _too_large(limits)
        for info, name in files:
            if not info.is_dir():
                incoming.add(name, _zip_member(archive, info))


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Checked by its original name: zipfile cuts a name at a zero byte and turns separators round."""
    name = _last_name(info.orig_filename)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or info.is_dir() and info.file_size:
        raise _refused("a member of the archive is no plain file", info.orig_filename)
    return name


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """The member's bytes; zipfile itself ends a member where its directory says, and compares the checksum."""
    count = 0
    with archive.open(info) as stream:
        while piece := stream.read(PIECE):
            count += len(piece)
            yield piece
    if count != info.file_size:
        raise _refused("a member of the archive is not as long as it says", info.orig_filename)


def _unpack_tar(stream: Pieces, incoming: Incoming, limits: Limits) -> None:
    """Header by header, forward only: `tarfile` would hold an extended header of any size in memory."""
    entries, long_name = 0, None
    while (block := stream.read(_BLOCK)).strip(b"\0"):
        entries += 1
        _check_entries(entries, limits)
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if info.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
            long_name = _extended_name(info, stream, long_name)
            continue
        path, long_name = long_name or info.name, None
        name = _last_name(path)
        if info.type == tarfile.DIRTYPE and not info.size:
            continue
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.sparse:
            raise _refused("a member of the archive is no plain file", path)
        if info.size > limits.unpacked_bytes:
            raise _too_large(limits)
        incoming.add(name, _tar_member(stream, info.size))
    if not entries or len(block) < _BLOCK:
        raise Unusable("it ends early")
    stream.length()  # to the end, where a .gz has its checksum


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _tar_member(stream: Pieces, size: int) -> Iterator[bytes]:
    left = size
    while left:
        piece = stream.read(min(left, PIECE))
        if not piece:
            raise Unusable("it ends early")
        left -= len(piece)
        yield piece
    stream.read(_padded(size) - size)


def _extended_name(info: tarfile.TarInfo, stream: Pieces, known: str | None) -> str | None:
    """The next member's name from a GNU or a POSIX extended header, if it says one."""
    if info.size > _MOST_EXTENDED_BYTES:
        raise Unusable("a header in it is too long")
    data = stream.read(_padded(info.size))[: info.size]
    if info.type == tarfile.GNUTYPE_LONGNAME:
        return data.rstrip(b"\0").decode("utf-8", "surrogateescape")
    while data:
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or not len(length) < int(length[:6]) <= len(data):
            raise Unusable("a header in it is damaged")
        key, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        if key in (b"size", b"linkpath") or key.startswith(b"GNU.sparse"):
            raise Unusable("a header in it changes what its members are")
        if key == b"path":
            if info.type == tarfile.XGLTYPE:
                raise Unusable("a header in it names all its members alike")
            known = value.decode("utf-8", "surrogateescape")
        data = data[int(length) :]
    return known
