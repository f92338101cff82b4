"""One series becomes a volume: planes → grid, stored values → the units of its kind (HU, SUV, the scanner's own)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..geometry import Volume
from ..geometry.reading import MOST_VOXELS
from ..intensity import AIR_HU
from .header import PHILIPS_SCALE_SLOPE, number, numbers, of_frame, private, text
from .pixels import stored_values
from .planes import Planes, lay_planes, refused
from .series import Frame, Series
from .suv import suv_factor

UNITS = {"CT": "HU", "PT": "SUV", "MR": "a.u."}


@dataclass(frozen=True, eq=False)
class SeriesImage:
    """A series as a volume. The array's axes are (column, row, slice); ``planes`` are the slices in that order.

    ``units``: HU, SUV (by body weight, g/ml) or a.u. (the scanner's own).
    """

    volume: Volume
    units: str
    planes: tuple[Frame, ...]
    warnings: tuple[str, ...] = ()


def read_series(series: Series) -> Volume:
    """The volume of a series, see `read_image`."""
    return read_image(series).volume


def read_image(series: Series) -> SeriesImage:
    """Read a series with its geometry and units kept.

    MR has the rescale slope and intercept of each slice applied, and nothing else (Philips' private scale slope would
    make it another unit: it is warned about). CT is in HU, padding is air. PET is in SUV, see `suv.suv_factor`.

    Raises:
        Any2allError: it cannot be used, in words: geometry (`planes.lay_planes`), pixels (`pixels.stored_values`),
            units, or an image without contrast.
    """
    if series.skip is not None:
        raise refused(series.skip)
    planes = lay_planes(series)
    if np.prod(planes.grid.shape, dtype=np.float64) > MOST_VOXELS or min(planes.grid.shape) < 2:
        raise refused("the series has too few or too many voxels", " x ".join(map(str, planes.grid.shape)))
    modality, warnings = text(series.header, "Modality").upper(), list(planes.warnings)
    factor = 1.0
    if modality == "PT":
        factor, notes = suv_factor(series)
        warnings += notes
    data, notes = _rescaled(planes, modality)
    data *= factor
    if not np.isfinite(data).all():
        raise refused("the image holds NaN or infinite values after rescaling")
    if float(data.min()) == float(data.max()):
        raise refused("the image is constant", float(data.min()))
    warnings += notes + _notes(series, modality)
    return SeriesImage(Volume(data, planes.grid), UNITS[modality], planes.frames, tuple(warnings))


def _rescaled(planes: Planes, modality: str) -> tuple[np.ndarray, list[str]]:
    """Values (column, row, slice) after each frame's own slope and intercept; float32."""
    data = np.empty(planes.grid.shape, dtype=np.float32)
    padded, slopes, file, stored = 0, set(), None, None
    for k, frame in sorted(enumerate(planes.frames), key=lambda pair: (str(pair[1].file), pair[1].number)):
        if frame.file != file:
            file, stored = frame.file, stored_values(frame.file)
        slope, intercept = _slope(frame, modality)
        slopes.add((slope, intercept))
        plane = stored[frame.number]
        values = plane.astype(np.float64) * slope + intercept
        padding = _padding(frame, plane)
        if padding is not None and padding.any():
            padded += int(padding.sum())
            values[padding] = AIR_HU if modality == "CT" else 0.0
        data[:, :, k] = values.T
    if modality == "CT":
        np.maximum(data, AIR_HU, out=data, where=data < -1500)  # what a scanner fills in beyond its bore, untagged
    return data, [f"{padded} padding voxels were set to air"] * bool(padded)


def _slope(frame: Frame, modality: str) -> tuple[float, float]:
    slope = numbers(of_frame(frame.header, frame.number, "RescaleSlope"))
    intercept = numbers(of_frame(frame.header, frame.number, "RescaleIntercept"))
    if modality != "MR" and slope is None:
        raise refused("Rescale Slope is missing, so the units are unknown", frame.file.name)
    if slope is not None and slope[0] == 0:
        raise refused("Rescale Slope is 0", frame.file.name)
    return (slope[0] if slope else 1.0), (intercept[0] if intercept else 0.0)


def _padding(frame: Frame, plane: np.ndarray) -> np.ndarray | None:
    """Where Pixel Padding Value (or its range) says that nothing was measured."""
    first, last = number(frame.header, "PixelPaddingValue"), number(frame.header, "PixelPaddingRangeLimit")
    if first is None:
        return None
    first, last = (int(first), int(first if last is None else last))
    if number(frame.header, "PixelRepresentation") == 1:
        first, last = (v - 65536 if v > 32767 else v for v in (first, last))
    return (plane >= min(first, last)) & (plane <= max(first, last))


def _notes(series: Series, modality: str) -> list[str]:
    notes = []
    scale = numbers(private(series.header, PHILIPS_SCALE_SLOPE))
    if modality == "MR" and scale and scale[0] not in (0.0, 1.0):
        notes.append(
            "Philips' private scale slope is not applied: intensities compare within this series, not between series"
        )
    if text(series.header, "BurnedInAnnotation").upper() == "YES":
        notes.append("the header says that text is burned into the pixels: it may name the patient")
    if text(series.header, "LossyImageCompression") == "01":
        notes.append("the images were once compressed with loss: fine detail is not the scanner's")
    kind = text(series.header, "RescaleType").upper()
    if modality == "CT" and kind not in ("", "HU", "US"):
        raise refused("the CT is not in HU", f"Rescale Type {kind}", "HU")
    return notes
