"""The planes of a series become a grid: sorted along their normal, evenly spaced, none missing (DICOM PS3.3 C.7.6.2).

Spacing comes from the positions, never from Slice Thickness or Spacing Between Slices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import Any2allError
from ..geometry import Grid
from ..geometry.reading import SPACING_RANGE_MM
from .header import number
from .series import Frame, Series

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_UNEVEN_QUIET, _UNEVEN_LIMIT = 0.01, 0.05  # of the slice spacing
_TILT_QUIET_DEG, _TILT_LIMIT_DEG = 0.05, 0.5
_WHOLE_STEPS = 0.1
_DUPLICATE_MM = 1e-3


@dataclass(frozen=True, eq=False)
class Planes:
    """Planes in the order of the grid's third axis; the array's axes are (column, row, slice)."""

    frames: tuple[Frame, ...]
    grid: Grid
    warnings: tuple[str, ...] = ()


def refused(message: str, value: object = None, allowed: object = None, hint: str | None = None) -> Any2allError:
    """An image of a series that cannot be used, in words."""
    return Any2allError(message, value=value, allowed=allowed, hint=hint, code="invalid_image")


def lay_planes(series: Series) -> Planes:
    """Sort the planes of a volume and find its grid.

    Raises:
        Any2allError: geometry is missing or contradictory, a slice is missing or there twice, the spacing changes,
            the gantry was tilted, or there is one slice only.
    """
    frames = series.frames
    rows, columns = _one_size(frames)
    spacing, orientation = _one_plane(frames)
    if len(frames) < 2:
        raise refused("the series has a single slice", 1, "at least 2 slices", "is it a localizer or a summary image?")
    along = np.array([float(frame.position @ frames[0].normal) for frame in frames])
    order = np.argsort(along, kind="stable")
    ordered = tuple(frames[i] for i in order)
    steps = np.diff(along[order])
    warnings = _check_steps(steps)
    positions = np.array([frame.position for frame in ordered])
    step = (positions[-1] - positions[0]) / (len(ordered) - 1)
    warnings += _check_tilt(step, positions, ordered[0])
    affine = np.eye(4)
    affine[:3, 0] = orientation[:3] * spacing[1]
    affine[:3, 1] = orientation[3:] * spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    return Planes(ordered, Grid((columns, rows, len(ordered)), LPS_TO_RAS @ affine), tuple(warnings))


def _one_size(frames: tuple[Frame, ...]) -> tuple[int, int]:
    sizes = {(int(number(f.header, "Rows") or 0), int(number(f.header, "Columns") or 0)) for f in frames}
    if len(sizes) > 1:
        shown = ", ".join(f"{rows} x {columns}" for rows, columns in sorted(sizes))
        raise refused("the slices have different numbers of rows and columns", shown, "one matrix for all slices")
    return sizes.pop()


def _one_plane(frames: tuple[Frame, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Pixel spacing and direction cosines that all planes share."""
    needed = {
        "Image Position (Patient)": [f.position for f in frames],
        "Image Orientation (Patient)": [f.orientation for f in frames],
        "Pixel Spacing": [f.spacing for f in frames],
    }
    for name, values in needed.items():
        missing = sum(value is None for value in values)
        if missing:
            raise refused(
                f"{name} is missing, so the place of the image is unknown", f"{missing} of {len(values)} slices"
            )
    spacing = np.array([f.spacing for f in frames])
    lowest, highest = SPACING_RANGE_MM
    if not ((spacing >= lowest) & (spacing <= highest)).all():
        raise refused("the Pixel Spacing cannot be used", spacing.min(), f"{lowest} to {highest} mm")
    if np.ptp(spacing, axis=0).max() > 1e-3 * spacing.min():
        shown = ", ".join(sorted({f"{a:g} x {b:g} mm" for a, b in spacing}))
        raise refused("the slices have different pixel spacings", shown, "one spacing for all slices")
    orientation = np.array([f.orientation for f in frames])
    if np.ptp(orientation, axis=0).max() > 1e-3:
        raise refused("the slices have different orientations", f"{len(frames)} slices", "parallel slices")
    row, column = orientation[0][:3], orientation[0][3:]
    if abs(np.linalg.norm(row) - 1) > 1e-3 or abs(np.linalg.norm(column) - 1) > 1e-3 or abs(row @ column) > 1e-3:
        raise refused("the Image Orientation (Patient) is not two unit vectors at a right angle", f"{orientation[0]}")
    return spacing[0], orientation[0]


def _check_steps(steps: np.ndarray) -> list[str]:
    twice = int((steps < _DUPLICATE_MM).sum())
    if twice:
        raise refused(
            "slices share a position, and nothing in the header tells their volumes apart",
            f"{twice} of {len(steps) + 1} slices",
            "every position once",
        )
    usual, least = float(np.median(steps)), float(steps.min())
    if np.abs(steps / least - np.round(steps / least)).max() < _WHOLE_STEPS:
        usual = least  # all others are gaps of whole slices, however many there are
    uneven = np.abs(steps / usual - 1)
    if uneven.max() > _UNEVEN_LIMIT:
        times = np.round(steps / usual)
        whole = np.abs(steps / usual - times) < _WHOLE_STEPS
        if whole.all() and times.min() >= 1:
            gaps = [i for i in range(len(steps)) if times[i] > 1]
            lost = int(times.sum()) - len(steps)
            raise refused(
                f"{lost} slice{'s are' if lost > 1 else ' is'} missing",
                f"after slice {', '.join(str(i + 1) for i in gaps[:6])} of {len(steps) + 1}",
                f"a slice every {usual:.4g} mm",
                "was the transfer complete?",
            )
        raise refused(
            "the distance between slices changes",
            f"{steps.min():.4g} to {steps.max():.4g} mm",
            "one spacing throughout",
        )
    if uneven.max() > _UNEVEN_QUIET:
        return [
            f"the distance between slices varies from {steps.min():.4g} to {steps.max():.4g} mm; their mean is taken"
        ]
    return []


def _check_tilt(step: np.ndarray, positions: np.ndarray, frame: Frame) -> list[str]:
    """Slices stacked along another direction than their normal are a sheared volume."""
    cosine = float(abs(step @ frame.normal) / np.linalg.norm(step))
    angle = math.degrees(math.acos(min(1.0, cosine)))
    if angle > _TILT_LIMIT_DEG:
        said = number(frame.header, "GantryDetectorTilt")
        tag = f"; the header says a gantry tilt of {said:g}" if said else ""
        raise refused(
            "the slices are stacked at an angle (gantry tilt), so the volume is sheared",
            f"{angle:.1f} degrees{tag}",
            f"at most {_TILT_LIMIT_DEG} degrees",
            "correct the tilt by resampling first",
        )
    straight = positions[0] + np.arange(len(positions))[:, None] * step
    away = float(
        np.linalg.norm(
            (positions - straight) - np.outer((positions - straight) @ frame.normal, frame.normal), axis=1
        ).max()
    )
    if away > 0.1:
        raise refused("the slices do not lie in one line", f"up to {away:.2f} mm beside it", "at most 0.1 mm")
    if angle > _TILT_QUIET_DEG:
        return [f"the slices are stacked {angle:.2f} degrees off their normal; the grid is sheared by it"]
    return []
