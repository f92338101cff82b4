"""How far an image is from looking real: the second axis beside distortion (Blau and Michaeli, 2018)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .records import Record


@dataclass(frozen=True)
class Perception:
    """A measure that is better when lower.

    Attributes:
        name: for an axis, such as ``KID × 1000``.
        of: its value for a record's single samples; None where it cannot be said, as on too few slices.
        note: how it is computed and what it is not, in one or two sentences.
    """

    name: str
    of: Callable[[Record], float | None]
    note: str


def _structure(record: Record) -> float | None:
    value = 1 - float(np.mean(record.ssim))
    return None if math.isnan(value) else value


STRUCTURE = Perception(
    "1 − SSIM of one sample",
    _structure,
    "It stands in where no distance of distributions (KID, FID) is known; it compares each sample with its own truth, "
    "and so is a measure of structure, not of how real images look.",
)
