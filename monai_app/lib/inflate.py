"""Reading compressed bytes in pieces, never more than a limit of them: a small file may unpack to terabytes."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Literal

PIECE = 1 << 18
MOST_MEMBERS = 1 << 16  # of one .gz; bgzip starts a member every 64 kB
MOST_DIRECTORY_BYTES = 1 << 20  # of a .zip: zipfile turns all of it into objects before anyone can count them
_ZLIB, _GZIP = 47, 31  # zlib's window bits: either header, and only gzip's

Encoding = Literal["raw", "gzip", "zlib"]


class Unusable(ValueError):
    """Bytes that are damaged or not what they should be, in words."""


class TooMuch(ValueError):
    """More bytes than the limit came out."""


def inflated(stream: BinaryIO, encoding: Encoding, most: int) -> Iterator[bytes]:
    """Pieces of at most 256 KiB, decompressed; the stream's checksums are verified.

    Args:
        stream: where the next byte is the first compressed one.
        encoding: ``gzip`` takes concatenated members to the end of the file; ``zlib`` is one stream with a zlib or a
            gzip header, and what follows it is ignored; ``raw`` is not compressed.
        most: bytes that may come out.

    Raises:
        Unusable: the stream is damaged, ends early, or says next to nothing at great length.
        TooMuch: more than ``most`` bytes came out; no more than one piece beyond them was unpacked.
    """
    left = most
    for piece in _raw(stream) if encoding == "raw" else _deflated(stream, encoding):
        left -= len(piece)
        if left < 0:
            raise TooMuch
        yield piece


def inflated_length(stream: BinaryIO, encoding: Encoding, most: int) -> int:
    """Bytes that come out in all; raises what `inflated` raises."""
    return sum(map(len, inflated(stream, encoding, most)))


class Pieces:
    """`inflated` as a stream to read from: ``read(size)`` gives fewer bytes only at the end."""

    def __init__(self, stream: BinaryIO, encoding: Encoding, most: int) -> None:
        self._pieces = inflated(stream, encoding, most)
        self._waiting = bytearray()
        self.count = 0  # bytes unpacked so far

    def read(self, size: int) -> bytes:
        while len(self._waiting) < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._waiting += piece
            self.count += len(piece)
        taken = bytes(self._waiting[:size])
        del self._waiting[:size]
        return taken

    def length(self) -> int:
        """Read to the end: bytes that came out in all."""
        while self.read(PIECE):
            pass
        return self.count


def _raw(stream: BinaryIO) -> Iterator[bytes]:
    while piece := stream.read(PIECE):
        yield piece


def _deflated(stream: BinaryIO, encoding: Encoding) -> Iterator[bytes]:
    engine, members = None, 0
    while data := stream.read(PIECE):
        whole, produced, more = len(data) == PIECE, False, True
        while more:
            if engine is None:
                data = data.lstrip(b"\0") if members else data  # gzip allows zeros between members and at the end
                if not data:
                    break
                if members == MOST_MEMBERS:
                    raise Unusable("it has too many parts")
                engine, members = zlib.decompressobj(_ZLIB if encoding == "zlib" else _GZIP), members + 1
            try:
                piece = engine.decompress(data, PIECE)
            except zlib.error as error:
                raise Unusable(f"its compressed data are damaged: {error}") from None
            if piece:
                produced = True
                yield piece
            data = engine.unused_data if engine.eof else engine.unconsumed_tail
            more = bool(data) or len(piece) == PIECE  # a full piece may have left bytes inside zlib
            if engine.eof:
                if encoding == "zlib":
                    return
                engine = None
        if whole and not produced:  # empty members and long names would keep a processor busy for hours
            raise Unusable("long stretches of its compressed data say nothing")
    if engine is not None or not members:
        raise Unusable("its compressed data end early")


def open_zip(stream: BinaryIO) -> zipfile.ZipFile:
    """A zip file whose directory is small enough to read, and whose members are plain.

    Raises:
        Unusable: no zip, a directory of more than 1 MiB, an encrypted member, an unusual compression.
    """
    if _directory_bytes(stream) > MOST_DIRECTORY_BYTES:
        raise Unusable("it holds too many members")
    try:
        archive = zipfile.ZipFile(stream)
    except Exception:  # zipfile raises struct.error, NotImplementedError and others on damaged bytes
        raise Unusable("its zip directory is damaged") from None
    for info in archive.infolist():
        if info.flag_bits & 0x2041:  # encrypted, strongly encrypted, masked header
            raise Unusable("it is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Unusable("its compression is neither 'stored' nor 'deflated'")
    return archive


def _directory_bytes(stream: BinaryIO) -> int:
    """What the end record says; a comment behind it is refused, so that zipfile finds the same record."""
    size = stream.seek(0, 2)
    stream.seek(max(0, size - 98))
    tail = stream.read(98)
    record, locator, long_record = tail[-22:], tail[-42:-22], tail[-98:-42]
    if len(record) < 22 or record[:4] != b"PK\x05\x06" or record[20:] != b"\0\0":
        raise Unusable("it is no zip file, or it ends in a comment")
    if locator[:4] == b"PK\x06\x07" and long_record[:4] == b"PK\x06\x06":  # zip64
        return struct.unpack("<Q", long_record[40:48])[0]
    return struct.unpack("<L", record[12:16])[0]
