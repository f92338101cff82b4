"""What comes back: an HTTP response read as its bytes arrive, its body kept in memory or in a file."""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .failures import TransportError

HEADER_LIMIT = 64 * 1024
MEMORY_LIMIT = 16 * 1024 * 1024
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)(?: [^\r\n]*)?\r?\n")


@dataclass(frozen=True)
class Target:
    """Where the body of a reply 200 goes: ``file``, written as ``<name>.partial`` until it is whole and right."""

    file: Path
    sha256: str | None = None


@dataclass(frozen=True)
class Reply:
    """A whole response. ``body`` is empty where ``file`` holds it; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    file: Path | None = None


class _Memory:
    """A body in memory, of at most ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit, self.parts, self.size = limit, [], 0

    def write(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self.limit:
            raise TransportError("too_large", f"the server's answer is larger than {self.limit} bytes")
        self.parts.append(data)

    def finish(self) -> bytes:
        return b"".join(self.parts)

    def discard(self) -> None:
        self.parts.clear()


class _File:
    """A body on disk: ``<name>.partial``, renamed when it is whole and has the right checksum."""

    def __init__(self, target: Target) -> None:
        self.target, self.hash = target, hashlib.sha256()
        self.partial = target.file.with_name(target.file.name + ".partial")
        self.stream = self._attempt(lambda: open(self.partial, "wb"))

    def write(self, data: bytes) -> None:
        self.hash.update(data)
        self._attempt(lambda: self.stream.write(data))

    def finish(self) -> bytes:
        self._attempt(self.stream.close)
        if self.target.sha256 not in (None, self.hash.hexdigest()):
            raise TransportError(
                "sha256",
                f"the volume '{self.target.file.name}' arrived damaged: its checksum is not the one the server named",
            )
        self._attempt(lambda: os.replace(self.partial, self.target.file))
        return b""

    def discard(self) -> None:
        """Close and remove what has arrived; a file that is finished stays."""
        try:
            self.stream.close()
            self.partial.unlink()
        except OSError:
            pass

    def _attempt(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise TransportError("file", f"the file '{self.target.file.name}' cannot be saved ({why})") from None


class ResponseReader:
    """Takes bytes as they arrive until `reply` is there.

    Args:
        target: file for the body of a reply 200; every other body stays in memory.
        memory_limit: bytes that a body in memory may have.
        headers_only: the reply ends with its headers (CONNECT).
    """

    def __init__(
        self, target: Target | None = None, memory_limit: int = MEMORY_LIMIT, headers_only: bool = False
    ) -> None:
        self.target, self.memory_limit, self.headers_only = target, memory_limit, headers_only
        self.reply: Reply | None = None
        self.received = 0
        self.total: int | None = None
        self._buffer = bytearray()  # a prefix of it is removed without moving the rest
        self._status = 0
        self._headers: dict[str, str] = {}
        self._sink: _Memory | _File | None = None
        self._left: int | None = None  # bytes of the body, or of the chunk, that are still to come
        self._chunks = ""  # of a chunked body, what comes next: size, data, end or trailer

    @property
    def started(self) -> bool:
        """Whether any byte of a final response has arrived."""
        return bool(self._status or self._buffer)

    def feed(self, data: bytes) -> None:
        """Take bytes. Raises TransportError for what is no HTTP, too large, damaged or cannot be saved."""
        self._buffer += data
        while self.reply is None and self._step():
            pass

    def end(self) -> None:
        """The connection has been closed: complete only where nothing else marks the end of the body."""
        if self.reply is None and self._sink is not None and self._left is None and not self._chunks:
            self._finish()
        if self.reply is None:
            when = "in the middle of an answer" if self.started else "without an answer"
            raise TransportError("lost", f"the connection was closed {when}")

    def discard(self) -> None:
        """Forget an unfinished body and its file."""
        if self._sink is not None and self.reply is None:
            self._sink.discard()

    def _step(self) -> bool:
        """One thing that the buffer holds wholly; whether there was one."""
        if self._sink is None:
            return self._take_headers()
        if self._chunks:
            return getattr(self, f"_chunk_{self._chunks}")()
        return self._take_body()

    def _take_headers(self) -> bool:
        if not b"HTTP/1.".startswith(bytes(self._buffer[:7])):
            raise _not_http(self._buffer)
        end = re.search(rb"\r?\n\r?\n", self._buffer)
        if end is None and len(self._buffer) > HEADER_LIMIT:
            raise TransportError("not_http", "what answers there sends headers without end")
        if end is None:
            return False
        head = self._taken(end.end())
        line = _STATUS_LINE.match(head)
        if line is None:
            raise _not_http(head)
        status = int(line.group(1))
        try:
            message = http.client.parse_headers(io.BytesIO(head[line.end() :]))
        except http.client.HTTPException:
            raise _not_http(head) from None
        if status < 200 and status != 101:
            return True
        self._status = status
        self._headers = {key.lower(): value.strip() for key, value in message.items()}
        self._begin_body(message.get_all("Content-Length") or [])
        return True

    def _begin_body(self, lengths: list[str]) -> None:
        self._sink = _Memory(self.memory_limit)
        if self.headers_only or self._status in (101, 204, 304):
            return self._finish()
        if self.target is not None and self._status == 200:
            self._sink = _File(self.target)
        coding = self._headers.get("transfer-encoding", "").lower()
        if coding not in ("", "identity", "chunked"):
            raise TransportError("not_http", f"the server's answer is coded as '{coding}'")
        if coding == "chunked":
            self._chunks = "size"
        elif lengths:
            if len(set(lengths)) > 1 or not re.fullmatch(r"\d{1,18}", lengths[0].strip()):
                raise TransportError("not_http", "the server's answer has no valid length")
            self._left = self.total = int(lengths[0])
        return None

    def _take_body(self) -> bool:
        if self._left is None:
            self._write(len(self._buffer))
            return False
        size = min(self._left, len(self._buffer))
        self._left -= size
        self._write(size)
        if not self._left:
            self._finish()
        return False

    def _chunk_size(self) -> bool:
        line = self._line()
        if line is None:
            return False
        text = line.split(b";")[0].strip()
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,15}", text):
            raise TransportError("not_http", "the server's answer is not chunked as it says")
        self._left = int(text, 16)
        self._chunks = "data" if self._left else "trailer"
        return True

    def _chunk_data(self) -> bool:
        size = min(self._left or 0, len(self._buffer))
        if not size:
            return False
        self._left = (self._left or 0) - size
        self._write(size)
        self._chunks = "data" if self._left else "end"
        return True

    def _chunk_end(self) -> bool:
        line = self._line()
        if line:
            raise TransportError("not_http", "the server's answer is not chunked as it says")
        if line is None:
            return False
        self._chunks = "size"
        return True

    def _chunk_trailer(self) -> bool:
        line = self._line()
        if line == b"":
            self._finish()
        return line is not None

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\n", 0, HEADER_LIMIT)
        if end < 0 and len(self._buffer) > HEADER_LIMIT:
            raise TransportError("not_http", "the server's answer is not chunked as it says")
        return None if end < 0 else self._taken(end + 1).rstrip(b"\r\n")

    def _write(self, size: int) -> None:
        data = self._taken(size)
        self.received += len(data)
        if data and self._sink is not None:
            self._sink.write(data)

    def _taken(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _finish(self) -> None:
        assert self._sink is not None
        body = self._sink.finish()
        file = self.target.file if self.target and isinstance(self._sink, _File) else None
        self.reply = Reply(self._status, self._headers, body, file)


def _not_http(start: bytes | bytearray) -> TransportError:
    if start[:1] in (b"\x15", b"\x16"):
        return TransportError("not_http", "what answers there wants encryption", "Begin the address with https://")
    return TransportError("not_http", "what answers there is no web server", "Check the port of the address")
