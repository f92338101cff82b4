"""The files of a study as they are given: none of them a result of ours, and none exchanged while it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .diffusion.prior import file_sha256
from .errors import Any2allError
from .output.volumes import is_result
from .study import StudySpec


@dataclass(frozen=True)
class GivenFiles:
    """SHA-256 of every file that a study names, and what the file system said of it before."""

    folder: Path
    sha256: Mapping[Path, str]
    stamps: Mapping[Path, tuple[int, ...]]

    @classmethod
    def of(cls, spec: StudySpec) -> GivenFiles:
        """Look at all files of a study.

        Raises:
            Any2allError: a file is gone, cannot be read, or is a result of Any2all.
        """
        sha256, stamps = {}, {}
        for name, modality in spec.modalities.items():
            if modality.file is not None:
                check_acquired(modality.file, f"modalities.{name}.file")
            for file in modality.paths:
                stamps[file] = _stamp(file)
                sha256[file] = _checksum(file, name)
        return cls(spec.folder.resolve(), dict(sorted(sha256.items())), stamps)

    def check_unchanged(self) -> None:
        """Raise Any2allError where a file is no longer the one whose checksum was taken."""
        for file, stamp in self.stamps.items():
            if _stamp(file) != stamp:
                raise _changed(file)

    def by_name(self) -> dict[str, str]:
        """Path in the study's folder → SHA-256."""
        return {file.relative_to(self.folder).as_posix(): sha256 for file, sha256 in self.sha256.items()}


def check_acquired(file: Path, key: str) -> None:
    """Raise Any2allError for a result of Any2all, as its header says: it must not pass for an acquired image."""
    if is_result(file):
        message, hint = "this is a result of Any2all, not an acquired image", "give the acquired image, or none"
        raise Any2allError(message, key=key, value=file.name, hint=hint)


def _checksum(file: Path, name: str) -> str:
    try:
        return file_sha256(file)
    except OSError as error:
        message = f"the file cannot be read: {error.strerror or error}"
        raise Any2allError(message, key=f"modalities.{name}", value=file.name, code="invalid_image") from None


def _stamp(file: Path) -> tuple[int, ...]:
    try:
        seen = file.stat()
    except OSError:
        raise _changed(file) from None
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns


def _changed(file: Path) -> Any2allError:
    return Any2allError(
        "this file was changed or removed while the study was read",
        key="modalities",
        value=file.name,
        hint="run the study again once its files are complete",
        code="changed",
    )
