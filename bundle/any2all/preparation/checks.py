"""What an image has to be before a prior learns from it. Every refusal is an `Any2allError` with its reason."""

from __future__ import annotations

import numpy as np

from ..errors import Any2allError
from ..geometry import Volume
from ..intensity import HIGHEST_AIR_HU, head_mask
from ..stack import LinearNormalisation, Modality

LEAST_HEAD_ML = 30.0  # a few slices of a head
MOST_NEGATIVE = 0.1  # of the 99.5th percentile: more is no ringing, but a shifted or standardised scale
PEAK = 99.9
TOO_BRIGHT = 3.0  # times the stack's constant
FEW_VALUES = 32  # of a mask or a label map; an image of a head has hundreds
_LOOKED_AT = 200_000


def check_units(modality: Modality, volume: Volume) -> list[str]:
    """Refuse intensities that cannot be the modality's; returns warnings.

    Raises:
        Any2allError: a CT without air (so not in HU), an MR or PET image with negative values.
    """
    low, high = np.percentile(volume.data, (0.5, 99.5))
    if modality.kind == "CT":
        lowest = float(volume.data.min())
        if lowest > HIGHEST_AIR_HU:
            raise _refused(
                "the image does not seem to be in HU",
                modality,
                f"lowest value {lowest:.4g}",
                f"air, below {HIGHEST_AIR_HU:.0f}",
                "was the slope and intercept of the scanner lost, or the skull stripped with a background of 0?",
            )
        return []
    if low < -MOST_NEGATIVE * max(high, 0.0):
        raise _refused(
            f"the image has negative {modality.units}",
            modality,
            f"half a percent of the voxels lie below {low:.4g}",
            "0 for air",
            "was it standardised (z-scores)?",
        )
    return []


def check_values(modality: Modality, volume: Volume) -> None:
    """Refuse a mask or a label map, which a name such as ``T2_lesions.nii.gz`` takes for an image.

    Raises:
        Any2allError: hardly any voxel has a value of its own.
    """
    some = volume.data.ravel()[:: max(1, volume.data.size // _LOOKED_AT)]
    number = np.unique(some).size if np.unique(some).size > FEW_VALUES else np.unique(volume.data).size
    if number <= FEW_VALUES:
        raise _refused(
            "this is a mask or a label map, and no image",
            modality,
            f"{number} different values",
            f"more than {FEW_VALUES}",
            "name it otherwise, or take it out of the subject's folder",
        )


def check_head(modality: Modality, volume: Volume) -> np.ndarray:
    """The head mask (see `head_mask`). Raises Any2allError where there is next to no head."""
    mask = head_mask(volume.data)
    ml = float(mask.sum() * np.prod(volume.grid.spacing_mm) / 1000)
    if ml < LEAST_HEAD_ML:
        raise _refused("no head was found in the image", modality, f"{ml:.1f} ml", f"at least {LEAST_HEAD_ML:.0f} ml")
    return mask


def peak_warnings(modality: Modality, peak: float) -> list[str]:
    """Words where an image's 99.9th percentile is far from the constant by which the stack divides it."""
    scale = modality.normalisation
    if isinstance(scale, LinearNormalisation) and not scale.maximum / TOO_BRIGHT < peak < scale.maximum * TOO_BRIGHT:
        return [
            f"{modality.name}: 99.9th percentile {peak:.5g}, but the stack takes {scale.maximum:g} {modality.units} "
            "for the largest value; is the unit right? (fit_stack takes the cohort's own)"
        ]
    return []


def _refused(message: str, modality: Modality, value: str, allowed: str, hint: str | None = None) -> Any2allError:
    return Any2allError(message, key=modality.name, value=value, allowed=allowed, hint=hint, code="invalid_image")
