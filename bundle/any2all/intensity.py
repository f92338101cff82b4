"""To and from the physical range ``u`` in [0, 1], per modality (METHOD section 5, "Normalisation").

MR: ``u = value / scale`` with one scale per SUBJECT (the percentile of the head over the stack's ``target``).
CT: a piecewise linear map of HU. PET: ``u = SUVr / maximum``. Air is ``u = 0``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
from scipy import ndimage

from .errors import Any2allError
from .stack import LinearNormalisation, Modality, Normalisation, PercentileNormalisation, PiecewiseNormalisation

if TYPE_CHECKING:
    import torch

    Array = TypeVar("Array", np.ndarray, "torch.Tensor")
else:
    Array = TypeVar("Array")

AIR_HU = -1000.0
HIGHEST_AIR_HU = -500.0
DARKEST_HEAD = 1 / 30  # 99th percentile of a head over the stack's largest value, of an image in its units
_BINS = 256
_SAMPLES = 2_000_000


def head_mask(data: np.ndarray, least_part: float = 1.0) -> np.ndarray:
    """Voxels of the head (or of the brain, where the skull was stripped) of one 3-D image.

    A threshold well above the background's own spread, at most half-way to Otsu's (the dark scalp of a FLAIR and CSF
    stay inside); the largest connected component after a small opening; holes filled slice by slice.

    Args:
        data: (Z, H, W) in any units; slices along axis 0.
        least_part: how large beside the largest component others must be to count as well; 1: it stands alone.

    Returns:
        bool (Z, H, W); all False when the image has no contrast.
    """
    # scanners pad CT outside the bore with -3024: below air there is nothing to tell apart
    image = np.maximum(np.nan_to_num(np.asarray(data, dtype=np.float32)), AIR_HU)
    low = float(image.min())
    if float(image.max()) <= low:
        return np.zeros(image.shape, dtype=bool)
    return _solid(image > _threshold(image.ravel()[:: max(1, image.size // _SAMPLES)], low), least_part)


def _threshold(values: np.ndarray, low: float) -> float:
    """Six robust standard deviations above the background, within 15 % to 50 % of the way to Otsu's threshold."""
    otsu = _otsu(values, low)
    highest = 0.5 * (low + otsu)
    background = values[values <= highest]
    centre = float(np.median(background))
    spread = 1.4826 * float(np.median(np.abs(background - centre)))
    return min(highest, centre + max(6.0 * spread, 0.15 * (otsu - centre)))


def _otsu(values: np.ndarray, low: float) -> float:
    """Otsu's threshold (1979) of values clipped at the 99th percentile of what is above the background."""
    above = values[values > low]
    if above.size == 0:
        return low
    high = float(np.percentile(above, 99))
    counts, edges = np.histogram(np.minimum(values, high), bins=_BINS, range=(low, max(high, low + 1e-6)))
    centres = 0.5 * (edges[1:] + edges[:-1])
    weight = np.cumsum(counts, dtype=np.float64)
    first = np.cumsum(counts * centres, dtype=np.float64)
    below, over = weight[:-1], weight[-1] - weight[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * over * (first[:-1] / below - (first[-1] - first[:-1]) / over) ** 2
    return float(edges[1 + int(np.argmax(np.nan_to_num(between)))])


def _solid(mask: np.ndarray, least_part: float) -> np.ndarray:
    """Largest component without thin bridges to the coil or the head rest, and large others; filled slice by slice."""
    in_plane = np.ones((1, 3, 3), dtype=bool)
    opened = ndimage.binary_opening(mask, in_plane) if min(mask.shape[1:]) >= 16 else mask
    labels, count = ndimage.label(opened if opened.any() else mask)
    if count > 1:
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        largest = int(np.argmax(sizes))
        core = (labels == largest) | (sizes > least_part * sizes[largest])[labels]
    else:
        core = labels > 0
    core = ndimage.binary_dilation(core, in_plane) & mask | core
    return np.stack([ndimage.binary_fill_holes(plane) for plane in core])


def scale_of(data: np.ndarray, mask: np.ndarray, normalisation: Normalisation) -> float:
    """Units per ``u`` of one subject's image.

    MR: ``percentile(data[mask]) / target``; PET: the stack's ``maximum``; CT: 1 (its map bends and needs no scale).

    Raises:
        Any2allError: an MR image whose head is empty or not positive.
    """
    if isinstance(normalisation, LinearNormalisation):
        return normalisation.maximum
    if isinstance(normalisation, PiecewiseNormalisation):
        return 1.0
    inside = np.asarray(data)[np.asarray(mask, dtype=bool)]
    value = float(np.percentile(inside, normalisation.percentile)) if inside.size else 0.0
    if not np.isfinite(value) or value <= 0:
        raise Any2allError(
            "no head was found in the image, so its intensity scale is unknown",
            hint="is it an image of a head with a dark background?",
            code="invalid_image",
        )
    return value / normalisation.target


def unit_doubts(data: np.ndarray, mask: np.ndarray, modality: Modality) -> list[str]:
    """Words where an image can hardly be in its modality's units; those of MR are arbitrary and raise no doubt.

    Args:
        data: (Z, H, W), noisy or not.
        mask: its head, bool.
        modality: CT without air, or PET whose head is far from the stack's largest value, is doubted.
    """
    if isinstance(modality.normalisation, PiecewiseNormalisation):
        lowest = float(data.min())
        if lowest > HIGHEST_AIR_HU:
            return [f"{modality.name}: no value lies below {lowest:.4g}: is it in {modality.units}, with air about it?"]
    if isinstance(modality.normalisation, LinearNormalisation):
        largest = modality.normalisation.maximum
        median, peak = np.percentile(data[mask], (50, 99)) if mask.any() else (0.0, 0.0)  # a mask may leak into noise
        if median > largest or peak < DARKEST_HEAD * largest:
            return [
                f"{modality.name}: its head has a median of {median:.4g} and reaches {peak:.4g}, but the stack takes "
                f"{largest:g} {modality.units} for the largest value: is it in {modality.units}?"
            ]
    return []


def to_u(data: Array, normalisation: Normalisation, scale: float | None = None) -> Array:
    """Units to ``u``, unclipped; numpy or torch, any shape. ``scale`` (MR only) comes from `scale_of`."""
    data = _floating(data)
    if isinstance(normalisation, PiecewiseNormalisation):
        return _bend(data, normalisation.values, normalisation.u)
    return data / _units_per_u(normalisation, scale)


def from_u(u: Array, normalisation: Normalisation, scale: float | None = None) -> Array:
    """``u`` to units, the inverse of `to_u`; an MR image that was never acquired has ``scale=None``."""
    u = _floating(u)
    if isinstance(normalisation, PiecewiseNormalisation):
        return _bend(u, normalisation.u, normalisation.values)
    return u * _units_per_u(normalisation, scale)


def _units_per_u(normalisation: PercentileNormalisation | LinearNormalisation, scale: float | None) -> float:
    if isinstance(normalisation, LinearNormalisation):
        return normalisation.maximum
    return normalisation.scale_when_missing if scale is None else scale


def _floating(data: Array) -> Array:
    """Integer numpy images as float32; everything else as it is."""
    if isinstance(data, np.ndarray) and not np.issubdtype(data.dtype, np.floating):
        return data.astype(np.float32)
    return data


def _bend(values: Array, knots_from: tuple[float, ...], knots_to: tuple[float, ...]) -> Array:
    """Piecewise linear map through the knots; the end segments go on (sum of hinges, differentiable in torch)."""
    slopes = [(b1 - b0) / (a1 - a0) for a0, a1, b0, b1 in zip(knots_from, knots_from[1:], knots_to, knots_to[1:])]
    result = knots_to[0] + slopes[0] * (values - knots_from[0])
    for knot, before, after in zip(knots_from[1:-1], slopes, slopes[1:]):
        result = result + (after - before) * (values - knot).clip(min=0)
    return result


def display_window_u(modality: Modality) -> tuple[float, float]:
    """The window in which a modality is shown, in u."""
    if modality.display.window_in == "u":
        return modality.display.window
    low, high = (float(to_u(np.float32(value), modality.normalisation)) for value in modality.display.window)
    return low, high
