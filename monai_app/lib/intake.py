"""What a client sends becomes files in a folder of ours, or one error in words; nothing stays behind on refusal."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from any2all.errors import Any2allError
from any2all.kspace.formats import BART
from any2all.study.files import IMAGE_SUFFIXES
from any2all.study.spec import BART_HEADER, FILE_KEYS, KSPACE_SUFFIXES

from .inflate import PIECE
from .settings import Limits
from .sizes import check_study

__all__ = ["Incoming", "check_study", "check_used", "file_name", "shown", "store_files", "study_document"]

SUFFIXES = (*IMAGE_SUFFIXES, *KSPACE_SUFFIXES, BART_HEADER)  # of files that a study takes
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz")
KEY = "files"  # the field of a request that carries files, for the words of an error
LEAST_FREE_BYTES = 1 << 28  # that stay free on the disk
MOST_DEPTH = 32
MOST_DIGITS = 40
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+ -]{0,127}")
_ALLOWED_NAME = "letters, digits, '.', '_', '+', '-' and blanks, a letter or digit first, at most 128, ending in "


def shown(text: str) -> str:
    """A client's text as an error may repeat it: short, and printable ASCII."""
    plain = text[:80].encode("ascii", "backslashreplace").decode()
    return re.sub(r"[\x00-\x1f\x7f]", "?", plain)[:80]


def file_name(name: str | None, key: str, suffixes: tuple[str, ...] = SUFFIXES) -> str:
    """A client's file name, if it is the plain name of a file of these formats; it is never changed.

    Raises:
        Any2allError: ``invalid_upload``.
    """
    allowed = _ALLOWED_NAME + ", ".join(suffixes)
    if not isinstance(name, str) or not name:
        raise Any2allError("a file was sent without its name", key=key, allowed=allowed, code="invalid_upload")
    if not _NAME.fullmatch(name) or name.endswith((".", " ")) or not name.lower().endswith(suffixes):
        raise Any2allError(
            "this file name is not taken", key=key, value=shown(name), allowed=allowed, code="invalid_upload"
        )
    return name


class Incoming:
    """Files that arrive in one folder: all of them, or none where anything goes wrong inside the ``with``.

    Args:
        folder: an existing folder of ours.
        limits: ``files`` counts here.
        most_bytes: of all files together.
        suffixes: of the names that are taken.
    """

    def __init__(self, folder: Path, limits: Limits, most_bytes: int, suffixes: tuple[str, ...] = SUFFIXES) -> None:
        self._folder, self._limits, self._most_bytes, self._suffixes = folder, limits, most_bytes, suffixes
        self._left = most_bytes
        self.written: list[Path] = []

    def __enter__(self) -> Incoming:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is not None:
            for path in self.written:
                path.unlink(missing_ok=True)

    def add(self, name: str | None, pieces: Iterable[bytes]) -> Path:
        """Store one file.

        Raises:
            Any2allError: ``invalid_upload`` (its name, a second file of this name, too many files), ``too_large``,
                ``storage``.
        """
        path = self._folder / file_name(name, KEY, self._suffixes)
        if path.name.lower() in {earlier.name.lower() for earlier in self.written}:
            raise self._refused("two files have the same name", path.name)
        if len(self.written) == self._limits.files:
            raise self._refused("too many files", allowed=f"at most {self._limits.files}")
        self._check_room(0)
        with self._opened(path) as stream:
            for piece in pieces:
                self._take(len(piece))
                with _storing():
                    _write_all(stream, piece)
            with _storing():  # some file systems say only here that they are full
                stream.close()
        return path

    def _opened(self, path: Path) -> BinaryIO:
        """A new file that only we may read; an old one, or a link, is never written through."""
        try:
            with _storing():
                target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise self._refused("a file of this name is already there", path.name) from None
        self.written.append(path)
        return os.fdopen(target, "wb", buffering=0)

    def _take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise Any2allError(
                "the files are too large",
                key=KEY,
                allowed=f"at most {self._most_bytes} bytes together",
                code="too_large",
            )
        self._check_room(count)

    def _check_room(self, count: int) -> None:
        with _storing():
            free = shutil.disk_usage(self._folder).free
        if free < LEAST_FREE_BYTES + count:
            raise Any2allError(
                "the server's disk is full", key=KEY, hint="try again later, or tell who runs it", code="storage"
            )

    def _refused(self, message: str, value: object = None, allowed: object = None) -> Any2allError:
        return Any2allError(message, key=KEY, value=value, allowed=allowed, code="invalid_upload")


@contextmanager
def _storing() -> Iterator[None]:
    """What the disk refuses, in words that name no path of the server."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise Any2allError("the server cannot store the files", key=KEY, hint=error.strerror, code="storage") from error


def _write_all(stream: BinaryIO, piece: bytes) -> None:
    """An unbuffered write may take less than it was given."""
    view = memoryview(piece)
    while view:
        view = view[stream.write(view) :]


def store_files(
    files: Iterable[tuple[str | None, BinaryIO]], folder: Path, limits: Limits, archives: bool = False
) -> list[Path]:
    """Copy what a client sent into ``folder``: all files, or none.

    Args:
        files: name (as the client says) and content of each.
        folder: an existing folder of ours.
        limits: ``files`` and ``upload_bytes`` count here.
        archives: what comes is to be unpacked (see `archive.unpack`), and is no file of a study.

    Raises:
        Any2allError: ``invalid_upload``, ``too_large``, ``storage``.
    """
    with Incoming(folder, limits, limits.upload_bytes, ARCHIVE_SUFFIXES if archives else SUFFIXES) as incoming:
        for name, stream in files:
            incoming.add(name, _pieces(stream))
    return incoming.written


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    while True:
        with _storing():  # an upload that waits on the disk is read from there
            piece = stream.read(PIECE)
        if not piece:
            return
        yield piece


def study_document(text: str | bytes, limits: Limits) -> dict[str, Any]:
    """A study's JSON text as Python objects; whether it is a study, `parse_study` says.

    Strict: UTF-8, one object, no key twice, no NaN or infinity, bounded depth and numbers.

    Raises:
        Any2allError: ``too_large`` or ``invalid_study``.
    """
    try:
        raw = text.encode() if isinstance(text, str) else text
        if len(raw) > limits.study_bytes:
            raise Any2allError(
                "the study's text is too long",
                key="study",
                value=len(raw),
                allowed=f"at most {limits.study_bytes} bytes",
                code="too_large",
            )
        document = json.loads(
            raw.decode(),
            object_pairs_hook=_object,
            parse_int=_whole_number,
            parse_float=_number,
            parse_constant=_constant,
        )
    except UnicodeError:
        raise Any2allError("the study's text is not UTF-8", key="study") from None
    except json.JSONDecodeError as error:
        raise Any2allError(f"the study is not JSON: {error}", key="study") from None
    except RecursionError:
        raise _too_deep() from None
    _check_depth_and_words(document)
    if not isinstance(document, dict):
        raise Any2allError("a study is a JSON object", key="study", value=type(document).__name__)
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise Any2allError("the study names this key twice", key=shown(key))
        found[key] = value
    return found


def _whole_number(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise Any2allError("a number of the study is too long", key="study", allowed=f"at most {MOST_DIGITS} digits")
    return int(text)


def _number(text: str) -> float:
    if len(text) > MOST_DIGITS:
        _whole_number(text)
    if not math.isfinite(number := float(text)):
        _constant(text)
    return number


def _constant(text: str) -> NoReturn:
    raise Any2allError("a number of the study is not finite", key="study", value=text, allowed="finite numbers")


def _too_deep() -> Any2allError:
    return Any2allError("the study is nested too deeply", key="study", allowed=f"at most {MOST_DEPTH} levels")


def _check_depth_and_words(document: Any) -> None:
    """Without recursion. Half a surrogate pair is no text: it could not be sent back in an error."""
    waiting = [(document, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MOST_DEPTH:
            raise _too_deep()
        if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
            raise Any2allError("a word of the study is not Unicode text", key="study", value=shown(value))
        inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
        waiting.extend((part, depth + 1) for part in inner)


def check_used(document: dict[str, Any], names: list[str]) -> list[str]:
    """The uploaded names that the study mentions; every one has to be. Who names one of a BART pair mentions both.

    Args:
        document: a study that may still be anything.
        names: of the uploaded files.

    Raises:
        Any2allError: ``invalid_upload``, with the names that no modality mentions.
    """
    modalities = document.get("modalities")
    entries = modalities.values() if isinstance(modalities, dict) else ()
    mentioned = [entry.get(which) for entry in entries if isinstance(entry, dict) for which in FILE_KEYS]
    known = {name for name in mentioned if isinstance(name, str)}
    known |= {name[:-4] + suffix for name in known if name.lower().endswith(BART) for suffix in BART}
    unused = [name for name in names if name not in known]
    if unused:
        raise Any2allError(
            "the study does not mention these files",
            key=KEY,
            value=", ".join(map(shown, unused[:8])),
            allowed=[shown(name) for name in mentioned if isinstance(name, str)][:24],
            hint="leave them out, or name them in the study",
            code="invalid_upload",
        )
    return names
