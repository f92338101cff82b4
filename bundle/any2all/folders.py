"""Folders that a long run writes into while it goes on."""

from __future__ import annotations

import tempfile
from pathlib import Path

from .errors import Any2allError


def made_folder(folder: str | Path, key: str) -> Path:
    """The folder of a setting, made where there is none.

    Raises Any2allError (code ``storage``) where it cannot be made or takes no file.
    """
    folder = Path(str(folder))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        message = f"nothing can be written here: {reason}"
        raise Any2allError(message, key=key, value=str(folder), hint="choose another folder", code="storage") from error
    return folder
