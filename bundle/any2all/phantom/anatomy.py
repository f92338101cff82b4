"""What is derived from a label map once and kept: tissue classes and distances that place fat, sinuses and lesions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy import ndimage

from ..errors import Any2allError
from .labels import HeadLabels
from .tissues import CLASS_OF_LABEL, INDEX, TISSUES

BELOW_BRAIN_MM = 60.0
DISTANCE_STEPS_PER_MM = 4.0
FACE_REACH_MM = 10.0
PARENCHYMA = tuple(
    i
    for i, t in enumerate(TISSUES)
    if t.intracranial and t.labels and t.name not in ("ventricle", "csf", "perivascular")
)
FEATURES = ("tissue", "surface", "cavity", "ventricle", "bone", "parenchyma", "wall", "sulcus")


@dataclass(frozen=True, eq=False)
class Anatomy:
    """``features`` uint8 (F, Z, H, W) on the label grid, cropped: the class, then distances in 1/4 mm, clipped.

    surface: to the skin or the outside air; cavity: to air inside the head; ventricle, bone, parenchyma: to those
    tissues; wall, sulcus: depth below the nearest face of a ventricle and of the fluid outside the brain, at full
    resolution and up to ``FACE_REACH_MM`` only. ``codes`` int16 (Z, H, W) are the labels of the same crop. ``centre``
    is the head's centre in voxels of the crop, ``voxel_mm`` the voxel size, ``brain_mm`` the brain's lowest and highest
    z offset from the centre.
    """

    features: torch.Tensor
    codes: torch.Tensor
    centre: tuple[float, float, float]
    voxel_mm: tuple[float, float, float]
    brain_mm: tuple[float, float]

    @property
    def shape(self) -> tuple[int, int, int]:
        return tuple(self.codes.shape)

    def volume(self, feature: str) -> np.ndarray:
        return self.features[FEATURES.index(feature)].numpy()


def classes_of(labels: np.ndarray) -> np.ndarray:
    """Class index (uint8) of every label; a code that the tissue table does not know is refused."""
    present = np.unique(labels)
    unknown = [int(code) for code in present if int(code) not in CLASS_OF_LABEL]
    if unknown:
        raise Any2allError("label without a tissue", key="head_labels", value=unknown, allowed=sorted(CLASS_OF_LABEL))
    lookup = np.zeros(int(present.max()) + 1, dtype=np.uint8)
    for code in present:
        lookup[code] = CLASS_OF_LABEL[int(code)]
    return lookup[labels]


def _crop(tissue: np.ndarray, voxel_mm: np.ndarray) -> tuple[tuple[slice, ...], np.ndarray, tuple[int, int]]:
    """Slices of the crop, centre of the head in voxels of the whole array, first and last z of the brain."""
    brain_z = np.flatnonzero(np.isin(tissue, PARENCHYMA).any(axis=(1, 2)))
    if not len(brain_z):
        raise Any2allError("a head label map needs brain labels", key="head_labels")
    low, high = int(brain_z[0]), int(brain_z[-1])
    # In the plane, half-way between the box of everything beside the brain (nose included) and that of the upper half.
    boxes = [
        [np.flatnonzero((tissue[first : high + 1] > 0).any(axis=axes))[[0, -1]].mean() for axes in ((0, 2), (0, 1))]
        for first in (low, (low + high) // 2)
    ]
    centre = np.array([(low + high) / 2, *np.mean(boxes, axis=0)])
    start_z = max(0, int(low - BELOW_BRAIN_MM / voxel_mm[0]))
    filled = tissue[start_z:] > 0
    bounds = [np.flatnonzero(filled.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    slices = [slice(start_z, min(tissue.shape[0], start_z + int(bounds[0][-1]) + 3))]
    slices += [slice(max(0, int(b[0]) - 2), min(n, int(b[-1]) + 3)) for b, n in zip(bounds[1:], tissue.shape[1:])]
    return tuple(slices), centre, (low, high)


def _largest_part(mask: np.ndarray) -> np.ndarray:
    """The largest connected part: some maps hold specks beside the head."""
    parts, count = ndimage.label(mask)
    return mask if count < 2 else parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))


def _distance(mask: np.ndarray, voxel_mm: np.ndarray) -> np.ndarray:
    """Distance to ``mask`` (uint8 in 1/4 mm), computed at every second voxel: a smooth field loses nothing there."""
    coarse = np.zeros([-(-n // 2) for n in mask.shape], dtype=bool)
    for dz in (0, 1):
        for dh in (0, 1):
            part = mask[dz::2, dh::2, :]
            merged = part[..., 0::2].copy()
            merged[..., : part[..., 1::2].shape[-1]] |= part[..., 1::2]
            coarse[: part.shape[0], : part.shape[1]] |= merged
    if not coarse.any():
        return np.full(mask.shape, 255, dtype=np.uint8)
    distance = ndimage.distance_transform_edt(~coarse, sampling=2 * voxel_mm).astype(np.float32)
    fine = torch.nn.functional.interpolate(torch.from_numpy(distance)[None, None], size=mask.shape, mode="trilinear")[
        0, 0
    ]
    return (fine * DISTANCE_STEPS_PER_MM).clamp_(0, 255).to(torch.uint8).numpy()


def _depth_below(mask: np.ndarray, inside: np.ndarray, voxel_mm: np.ndarray) -> np.ndarray:
    """Distance of the voxels ``inside`` to the face of ``mask``: zero in the mask, 255 beyond the reach and elsewhere.

    uint8 in 1/4 mm, at full resolution.
    """
    depth = np.full(mask.shape, 255, dtype=np.uint8)
    spans = [np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if not all(len(span) for span in spans):
        return depth
    reach = np.ceil(FACE_REACH_MM / voxel_mm).astype(int)
    box = tuple(slice(max(0, int(s[0]) - r), int(s[-1]) + r + 1) for s, r in zip(spans, reach))
    distance = ndimage.distance_transform_edt(~mask[box], sampling=voxel_mm) - 0.5 * float(voxel_mm.mean())
    steps = np.clip(distance * DISTANCE_STEPS_PER_MM, 0, 255).astype(np.uint8)
    near = (inside[box] | mask[box]) & (distance < FACE_REACH_MM)
    depth[box] = np.where(near, steps, 255)
    return depth


def _inner_air(tissue: np.ndarray) -> np.ndarray:
    """Air inside the head: air that an opening by about 12 mm separates from the outside."""
    coarse = tissue[::4, ::4, ::4] == 0
    # The lower border cuts through the neck: padding the other sides only keeps the airway inside.
    padded = np.pad(coarse, ((0, 4), (4, 4), (4, 4)), constant_values=True)
    core = ndimage.binary_erosion(padded, iterations=3, border_value=1)
    parts, _ = ndimage.label(core)
    outside = ndimage.binary_dilation(parts == parts[-1, 0, 0], iterations=4)[:-4, 4:-4, 4:-4]
    outside = outside.repeat(4, 0).repeat(4, 1).repeat(4, 2)[tuple(slice(0, n) for n in tissue.shape)]
    return (tissue == 0) & ~outside


def _cavities_and_holes(tissue: np.ndarray, voxel_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sinuses and mastoid cells (inner air of at least 0.15 ml), and holes: smaller gaps that the labelling left."""
    parts, count = ndimage.label(_inner_air(tissue))
    sizes = np.bincount(parts.ravel(), minlength=count + 1) * float(np.prod(voxel_mm))
    sizes[0] = 0
    return (sizes >= 150)[parts], ((sizes > 0) & (sizes < 150))[parts]


@lru_cache(maxsize=64)
def anatomy_of(head: HeadLabels) -> Anatomy:
    """Derive and keep what rendering needs (a few seconds per head)."""
    voxel_mm = head.voxel_mm
    whole = classes_of(head.labels)
    slices, centre, (low, high) = _crop(whole, voxel_mm)
    one_piece = _largest_part(whole[slices] > 0)
    tissue, codes = whole[slices] * one_piece, head.labels[slices] * one_piece
    cavities, holes = _cavities_and_holes(tissue, voxel_mm)
    bone = np.isin(tissue, [INDEX["cortical_bone"], INDEX["cancellous_bone"]])
    orbit = np.isin(tissue, [INDEX[n] for n in ("eyeball", "eye_muscle", "optic_nerve")])
    outside = ((tissue == 0) & ~cavities) | (tissue == INDEX["skin"])
    distances = [
        _distance(mask, voxel_mm)
        for mask in (outside, cavities, tissue == INDEX["ventricle"], bone, np.isin(tissue, PARENCHYMA))
    ]
    beside_brain = distances[-1][holes] < 6 * DISTANCE_STEPS_PER_MM
    tissue[holes] = np.where(beside_brain, INDEX["csf"], INDEX["muscle"])
    near_eye = _distance(orbit, voxel_mm) < 9 * DISTANCE_STEPS_PER_MM
    tissue[(tissue == INDEX["muscle"]) & near_eye & (distances[0] > 4 * DISTANCE_STEPS_PER_MM)] = INDEX["orbital_fat"]
    depth = max(1, round(2.0 / float(voxel_mm.min())))
    inner_bone = ndimage.binary_erosion(bone, iterations=depth) & (tissue == INDEX["cortical_bone"])
    tissue[inner_bone] = INDEX["diploe"]
    brain = np.isin(tissue, PARENCHYMA)
    distances += [_depth_below(tissue == INDEX[fluid], brain, voxel_mm) for fluid in ("ventricle", "csf")]
    offset = np.array([s.start for s in slices])
    z_centre = (low + high) / 2
    return Anatomy(
        features=torch.from_numpy(np.stack([tissue, *distances])),
        codes=torch.from_numpy(codes),
        centre=tuple(float(v) for v in centre - offset),
        voxel_mm=tuple(float(v) for v in voxel_mm),
        brain_mm=(float((low - z_centre) * voxel_mm[0]), float((high - z_centre) * voxel_mm[0])),
    )


def brain_extent_mm(head: HeadLabels) -> tuple[float, float]:
    """Lowest and highest z offset (mm from the head's centre) that hold brain: cerebellum's foot to vertex."""
    return anatomy_of(head).brain_mm
