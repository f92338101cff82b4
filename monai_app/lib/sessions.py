"""Sessions of MONAI Label's clients: uploaded files under an id, for a while. A restart forgets them."""

from __future__ import annotations

import shutil
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from any2all.errors import Any2allError

from .archive import unpack
from .intake import store_files
from .settings import Limits

MOST_SESSIONS = 64


@dataclass
class Session:
    """Uploaded files of ``size`` bytes. ``folder`` is ours and is never told to a client."""

    id: str
    folder: Path
    expiry: int
    size: int
    created: float = field(default_factory=time.time)
    used: float = field(default_factory=time.time)

    @property
    def files(self) -> list[Path]:
        """Its files, by name. Raises Any2allError where another client has just deleted it."""
        with suppress(FileNotFoundError):
            if found := sorted(self.folder.iterdir()):
                return found
        raise unknown(self.id)

    def told(self) -> dict[str, Any]:
        """What a client may know, in the words of MONAI Label's reply."""
        info = {
            "name": self.id,
            "files": [file.name for file in self.files],
            "create_ts": int(self.created),
            "last_access_ts": int(self.used),
            "expiry": self.expiry,
        }
        return {"session_id": self.id, "session_info": info}


class Sessions:
    """All sessions; every method may be called from any thread."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)

    def add(self, files: Any, uncompress: bool = False, expiry: int = 0) -> Session:
        """Store files, or what one archive holds. Raises Any2allError; nothing is left then.

        Args:
            files: (name, stream) pairs.
            uncompress: the one file is an archive.
            expiry: seconds without use; 0 or too long: the server's own.
        """
        self.expire()
        folder = self.folder / uuid.uuid4().hex
        folder.mkdir(mode=0o700)
        try:
            if uncompress:
                self._unpacked(files, folder)
            else:
                store_files(files, folder, self.limits)
            most = self.limits.result_seconds
            stored = list(folder.iterdir())
            if not stored:
                raise Any2allError("no file was sent", key="files", code="invalid_upload")
            size = sum(file.stat().st_size for file in stored)
            session = Session(folder.name, folder, min(expiry, most) if expiry > 0 else most, size)
            with self._lock:
                self._check_room(size)
                self._sessions[session.id] = session
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return session

    def get(self, session_id: str) -> Session:
        """Raises Any2allError (``unknown_session``)."""
        with self._lock:
            session = self._sessions.get(session_id)
            if session is None or time.time() - session.used > session.expiry:
                raise unknown(session_id)
            session.used = time.time()
            return session

    def remove(self, session_id: str) -> Session:
        session = self.get(session_id)
        with self._lock:
            self._sessions.pop(session_id, None)
        shutil.rmtree(session.folder, ignore_errors=True)
        return session

    def expire(self) -> None:
        """Forget sessions that nobody has used for their time."""
        with self._lock:
            old = [s for s in self._sessions.values() if time.time() - s.used > s.expiry]
            for session in old:
                del self._sessions[session.id]
        for session in old:
            shutil.rmtree(session.folder, ignore_errors=True)

    def _unpacked(self, files: Any, folder: Path) -> None:
        packed = folder.with_name(f"{folder.name}.packed")
        packed.mkdir(mode=0o700)
        try:
            archives = store_files(files, packed, self.limits, archives=True)
            if len(archives) != 1:
                raise Any2allError(
                    "uncompress takes one archive", key="files", value=len(archives), code="invalid_upload"
                )
            unpack(archives[0], folder, self.limits)
        finally:
            shutil.rmtree(packed, ignore_errors=True)

    def _check_room(self, size: int) -> None:
        held = sum(session.size for session in self._sessions.values())
        if len(self._sessions) >= MOST_SESSIONS or held + size > self.limits.kept_bytes:
            raise Any2allError(
                "too many sessions are open", key="session", hint="delete one, or try again later", code="queue_full"
            )


def unknown(session_id: str) -> Any2allError:
    """An error to raise: a session that never was, has expired or was deleted."""
    return Any2allError(
        "there is no such session",
        key="session_id",
        value=session_id[:64],
        hint="it may have expired: upload again",
        code="unknown_session",
    )
