"""One server for one work folder: two would call each other's jobs lost."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TextIO

from any2all.errors import Any2allError


def take_folder(folder: Path) -> TextIO:
    """Make the folder and lock it until the returned file is closed or the process ends, however it ends.

    Raises:
        Any2allError: it cannot be written, or another server holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        stream = open(folder / "lock", "w", encoding="ascii")
    except OSError as error:
        raise Any2allError(
            f"the work folder cannot be used ({error.strerror})",
            key="conf.work_dir",
            value=str(folder),
            code="invalid_setting",
        ) from None
    try:
        _lock(stream)
    except OSError as error:
        stream.close()
        if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            raise
        raise Any2allError(
            "another server works in this folder",
            key="conf.work_dir",
            value=str(folder),
            hint="give each server its own: --conf work_dir FOLDER",
            code="invalid_setting",
        ) from None
    return stream


def _lock(stream: TextIO) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
