"""Units to 16-bit stored values with a slope and intercept, and a volume to planes that DICOM can hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nibabel import orientations

from ..geometry import Grid, Volume
from .planes import LPS_TO_RAS

_DS_LENGTH = 16
_ANISOTROPIC = 1.2
_DISPLAY = {0: "PIL", 1: "LIP", 2: "LPS"}  # nibabel codes of (column, row, slice) for each slice axis in R, A, S order


@dataclass(frozen=True, eq=False)
class Stored:
    """``stored * slope + intercept`` is the value, to half a slope; slope and intercept are exact decimal strings."""

    stored: np.ndarray
    slope: str
    intercept: str


@dataclass(frozen=True, eq=False)
class Slices:
    """Data (column, row, slice) with LPS geometry: positions (slice, 3), orientation (6,), spacing (row, column)."""

    data: np.ndarray
    positions: np.ndarray
    orientation: np.ndarray
    spacing: np.ndarray
    between_mm: float

    def centre(self, k: int) -> np.ndarray:
        """LPS mm of the middle of slice k."""
        columns, rows = (np.array(self.data.shape[:2]) - 1) / 2
        across = columns * self.spacing[1] * self.orientation[:3] + rows * self.spacing[0] * self.orientation[3:]
        return self.positions[k] + across


def decimal(value: float) -> str:
    """A decimal string of at most 16 characters, to as many digits as fit."""
    for digits in range(15, 0, -1):
        text = f"{value:.{digits}g}"
        if len(text) <= _DS_LENGTH:
            return text
    raise ValueError(f"{value} has no decimal string")


def to_stored(data: np.ndarray, units: str, keep_zero: bool = False) -> Stored:
    """16-bit values of an image.

    HU are whole numbers from -1024 where they fit. PET (``keep_zero``) has intercept 0, as its IOD demands. All else
    takes the whole 16 bits.
    """
    data = data.astype(np.float64)
    low, high = float(data.min()), float(data.max())
    if units == "HU" and low >= -1024.5 and high <= 64510 and high - low > 100:
        return Stored(np.rint(data + 1024.0).astype(np.uint16), "1", "-1024")
    if keep_zero:
        signed = low < 0
        slope = decimal(max(abs(low), abs(high), 1e-12) / (32767 if signed else 65535) * (1 + 1e-9))
        return Stored(np.rint(data / float(slope)).astype(np.int16 if signed else np.uint16), slope, "0")
    slope = decimal(max(high - low, 1e-12) / 65535 * (1 + 1e-6))
    intercept = decimal(low)
    stored = np.rint((data - float(intercept)) / float(slope))
    return Stored(np.clip(stored, 0, 65535).astype(np.uint16), slope, intercept)


def as_slices(volume: Volume) -> Slices:
    """A volume's voxels in DICOM's usual display order; axes are permuted and flipped, nothing is interpolated.

    Slices run along the axis with the largest spacing where one is clearly larger, else along superior–inferior.
    """
    grid = volume.grid
    here = orientations.io_orientation(grid.affine)
    spacing = np.array(grid.spacing_mm)
    widest = int(spacing.argmax())
    anisotropic = spacing[widest] > _ANISOTROPIC * np.sort(spacing)[-2]
    world = int(here[widest, 0]) if anisotropic else 2
    change = orientations.ornt_transform(here, orientations.axcodes2ornt(_DISPLAY[world]))
    data = orientations.apply_orientation(volume.data, change)
    return own_slices(Volume(data, Grid(data.shape, grid.affine @ orientations.inv_ornt_aff(change, grid.shape))))


def own_slices(volume: Volume) -> Slices:
    """A volume whose axes are (column, row, slice) already."""
    to_lps = LPS_TO_RAS @ volume.grid.affine
    spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
    cosines = to_lps[:3, :2] / spacing[:2]
    positions = to_lps[:3, 3] + np.arange(volume.grid.shape[2])[:, None] * to_lps[:3, 2]
    return Slices(volume.data, positions, cosines.T.ravel(), spacing[[1, 0]], float(spacing[2]))
