"""Head label maps: reading, orientation and the codes that name left and right.

Source of the maps: ``training_label_maps`` of SynthSeg (Billot et al., Med. Image Anal. 2023), FreeSurfer codes inside
the brain and codes from 502 outside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from ..errors import Any2allError

CANONICAL_CODES = ("S", "P", "L")
LEFT_RIGHT_PAIRS = (
    (2, 41), (3, 42), (4, 43), (5, 44), (7, 46), (8, 47), (10, 49), (11, 50), (12, 51), (13, 52), (17, 53), (18, 54),
    (25, 57), (26, 58), (28, 60), (30, 62), (136, 163), (137, 164),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class HeadLabels:
    """One head: ``labels`` int16 (Z, H, W) in canonical order (S, P, L), ``affine`` 4x4 RAS of that index order.

    Compared and hashed by identity, so that what is derived from a head can be cached beside it.
    """

    labels: np.ndarray
    affine: np.ndarray
    name: str

    @property
    def voxel_mm(self) -> np.ndarray:
        """Voxel size along (z, h, w) in mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)


def to_canonical(image: nib.spatialimages.SpatialImage) -> tuple[np.ndarray, np.ndarray]:
    """Array with axes permuted and flipped to (S, P, L), and its affine; no interpolation."""
    orientations = nib.orientations
    target = orientations.axcodes2ornt(CANONICAL_CODES)
    transform = orientations.ornt_transform(nib.io_orientation(image.affine), target)
    data = orientations.apply_orientation(np.asanyarray(image.dataobj), transform)
    return data, image.affine @ orientations.inv_ornt_aff(transform, image.shape)


def load_head_labels(path: str | Path) -> HeadLabels:
    """Read a label map (NIfTI, any orientation, float or int).

    Raises:
        Any2allError: the file is missing or is not 3-D.
    """
    path = Path(path)
    if not path.is_file():
        raise Any2allError("head label map not found", key="head_labels", value=path.name, code="missing_file")
    image = nib.load(path)
    if len(image.shape) != 3:
        raise Any2allError("a head label map is a 3-D volume", key="head_labels", value=image.shape)
    data, affine = to_canonical(image)
    labels = np.ascontiguousarray(np.rint(data).astype(np.int16))
    return HeadLabels(labels, affine, path.name.split(".")[0])


def mirrored_codes(size: int) -> np.ndarray:
    """Lookup (size,) that exchanges left and right codes: a head that is flipped keeps its sides named right."""
    lookup = np.arange(size, dtype=np.int16)
    for left, right in LEFT_RIGHT_PAIRS:
        lookup[left], lookup[right] = right, left
    return lookup
