"""What is sent: one HTTP request whose body is read from memory and from disk in pieces, its length known before."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .failures import TransportError

PIECE = 256 * 1024  # bytes read from disk at once


@dataclass(frozen=True)
class FilePart:
    """A file of a form. ``name`` is what the server sees: never the name that the file has here."""

    name: str
    path: Path


@dataclass(frozen=True)
class Body:
    """Sections (bytes, or files to stream) of ``length`` bytes in all."""

    sections: Sequence[bytes | Path]
    lengths: Sequence[int]
    content_type: str

    @property
    def length(self) -> int:
        return sum(self.lengths)

    def pieces(self) -> Iterator[bytes]:
        """The body from its beginning, at most ``PIECE`` bytes at a time.

        Raises TransportError when a file has become unreadable, or shorter or longer than it was.
        """
        for section, length in zip(self.sections, self.lengths):
            if isinstance(section, bytes):
                yield section
            else:
                yield from _read(section, length)


def multipart(fields: Mapping[str, str], files: Sequence[FilePart]) -> Body:
    """``multipart/form-data`` (RFC 7578): text fields, then every file as a part named ``files``.

    Raises:
        TransportError: a file that cannot be read.
        ValueError: a part's name that would break out of its header.
    """
    boundary = f"any2all-{secrets.token_hex(16)}"
    sections: list[bytes | Path] = []
    for key, text in fields.items():
        head = _part_head(boundary, f'name="{_plain(key)}"', "text/plain; charset=utf-8")
        sections.append(head + text.encode("utf-8") + b"\r\n")
    for file in files:
        disposition = f'name="files"; filename="{_plain(file.name)}"'
        sections += [_part_head(boundary, disposition, "application/octet-stream"), file.path, b"\r\n"]
    sections.append(f"--{boundary}--\r\n".encode("ascii"))
    lengths = [len(s) if isinstance(s, bytes) else _size(s) for s in sections]
    return Body(sections, lengths, f"multipart/form-data; boundary={boundary}")


def study_text(document: Mapping[str, Any]) -> str:
    """A study document as the server takes it: NaN and infinity are no JSON, and raise ValueError."""
    return json.dumps(document, allow_nan=False)


@dataclass(frozen=True)
class Request:
    """One request. ``target`` begins with ``/``; ``headers`` are in addition to those that every request has."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None

    def head(self, authority: str, absolute: str = "") -> bytes:
        """Request line and headers; ``absolute`` (``http://host:port``) is put before the target for a proxy.

        Raises ValueError for a header that holds more than one line.
        """
        headers = {"Host": authority, "Connection": "close", "Accept-Encoding": "identity", **self.headers}
        if self.body is not None:
            headers.update({"Content-Type": self.body.content_type, "Content-Length": str(self.body.length)})
        lines = [f"{self.method} {absolute}{self.target} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
        if any(not line.isascii() or not line.isprintable() for line in lines):
            raise ValueError("a header holds characters that HTTP does not take")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")

    def pieces(self) -> Iterator[bytes]:
        """The body's pieces; none where there is no body."""
        return iter(()) if self.body is None else self.body.pieces()


def _part_head(boundary: str, disposition: str, content_type: str) -> bytes:
    head = f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\nContent-Type: {content_type}\r\n\r\n"
    return head.encode("ascii")


def _plain(name: str) -> str:
    if not name.isascii() or not name.isprintable() or '"' in name or "\\" in name or "/" in name:
        raise ValueError("a part of the upload needs a plain name")
    return name


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError as error:
        raise _unreadable(path, error) from None


def _read(path: Path, length: int) -> Iterator[bytes]:
    left = length
    try:
        with open(path, "rb") as stream:
            while left:
                piece = stream.read(min(PIECE, left))
                if not piece:
                    break
                left -= len(piece)
                yield piece
            longer = not left and stream.read(1)
    except OSError as error:
        raise _unreadable(path, error) from None
    if left or longer:
        raise TransportError("file", f"the file '{path.name}' was changed while it was being sent")


def _unreadable(path: Path, error: OSError) -> TransportError:
    return TransportError("file", f"the file '{path.name}' cannot be read ({error.strerror or type(error).__name__})")
