"""One file of a study at the door: what it may hold, and the words that refuse it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from any2all.errors import Any2allError

from .settings import Limits


@dataclass(frozen=True)
class StudyFile:
    """A file with the study key that names it.

    Attributes:
        path: the file; its readers trust nothing in it.
        key: such as ``modalities.T1.file``.
        limits: see `Limits`.
        room: bytes that it may still unpack to.
    """

    path: Path
    key: str
    limits: Limits
    room: int

    def refused(
        self, message: str, value: object = None, allowed: object = None, hint: str | None = None
    ) -> Any2allError:
        """An error to raise: a file that cannot be used."""
        return Any2allError(message, key=self.key, value=value, allowed=allowed, hint=hint, code="invalid_image")

    def too_large(self) -> Any2allError:
        """An error to raise: with this file the study unpacks to more than the server takes."""
        return Any2allError(
            "the study's files are too large when unpacked",
            key=self.key,
            value=self.path.name,
            allowed=f"at most {self.limits.unpacked_bytes} bytes in all files of a study",
            code="too_large",
        )

    def check_bytes(self, count: int) -> int:
        """Refuse what says of itself that it does not fit."""
        if count > self.room:
            raise self.too_large()
        return count

    def check_shape(self, shape: Sequence[int], what: str = "the image has too many voxels") -> None:
        """Refuse an empty shape, and one of more voxels than the server takes."""
        text = " x ".join(str(n)[:20] for n in shape[:8])
        if not shape or min(shape) < 1:
            raise self.refused("the file holds no data", text)
        if math.prod(shape) > self.limits.voxels:
            raise Any2allError(
                what, key=self.key, value=text, allowed=f"at most {self.limits.voxels}", code="too_large"
            )

    def check_long_enough(self, length: int, needed: int) -> int:
        """Refuse a file that ends before its data do."""
        if length < needed:
            raise self.refused("the file ends before its data do", self.path.name, hint="send the file again")
        return length
