"""Lesions as soft volumes on a head's label grid: white matter lesions, infarcts, and findings that only CT shows."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage

from .anatomy import DISTANCE_STEPS_PER_MM, PARENCHYMA, Anatomy
from .labels import to_canonical
from .parameters import HeadParameters
from .tissues import INDEX

# First and last voxel of the MNI 152 brain along (z, h, w) of its canonical 182 x 218 x 182 array, 1 mm.
MNI_BRAIN = ((6, 153), (21, 198), (20, 161))


@dataclass(frozen=True)
class LesionMaps:
    """uint8 fractions (255 = whole voxel) on the anatomy's grid, or None where the head has none; CT findings in HU."""

    white_lesion: np.ndarray | None
    infarct: np.ndarray | None
    gliosis: np.ndarray | None
    ct_fraction: np.ndarray | None
    ct_hu: np.ndarray | None

    def flat(self, device: torch.device) -> dict[str, torch.Tensor]:
        """The maps that this head has, flattened, on a device."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: torch.from_numpy(v).to(device).flatten() for name, v in named.items() if v is not None}


def _blob(
    volume: np.ndarray, rng: np.random.Generator, centre: np.ndarray, radii_vox: np.ndarray, roughness: float
) -> None:
    """Merge one soft, irregular ellipsoid into ``volume`` (float32 in [0, 1]) by maximum."""
    reach = int(np.ceil(radii_vox.max() * 1.8)) + 2
    starts = np.maximum(centre.astype(int) - reach, 0)
    stops = np.minimum(centre.astype(int) + reach + 1, volume.shape)
    axes = np.ogrid[tuple(slice(a, b) for a, b in zip(starts, stops))]
    radius = np.sqrt(sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, radii_vox)))
    noise = ndimage.gaussian_filter(rng.normal(size=radius.shape), max(1.0, radii_vox.mean() / 2.5))
    noise *= roughness / (noise.std() + 1e-9)
    edge = max(0.12, 0.6 / radii_vox.mean())
    soft = 1 / (1 + np.exp(np.clip((radius + noise - 1) / edge * 2.0, -30, 30)))
    part = volume[tuple(slice(a, b) for a, b in zip(starts, stops))]
    np.maximum(part, soft, out=part)


def _pick(rng: np.random.Generator, candidates: np.ndarray) -> np.ndarray | None:
    """A random voxel where ``candidates`` (bool) holds: rejection sampling, far cheaper than listing them."""
    for _ in range(20000):
        at = tuple(int(rng.integers(n)) for n in candidates.shape)
        if candidates[at]:
            return np.array(at, dtype=float)
    return None


def _as_fraction(volume: np.ndarray) -> np.ndarray:
    return (volume * 255).astype(np.uint8)


@lru_cache(maxsize=64)
def _mni_mask(path: str) -> np.ndarray:
    data, _ = to_canonical(nib.load(path))
    return np.asarray(data) > 0


def _fit_mni(path: str, anatomy: Anatomy) -> np.ndarray:
    """A mask in MNI space, carried to the head by matching the brains' bounding boxes (shapes matter, not places)."""
    mask = _mni_mask(path)
    brain = np.isin(anatomy.volume("tissue"), PARENCHYMA)
    indices = []
    for axis, (low, high) in enumerate(MNI_BRAIN):
        others = tuple(a for a in range(3) if a != axis)
        span = np.flatnonzero(brain.any(axis=others))
        position = (np.arange(brain.shape[axis]) - span[0]) / max(1, span[-1] - span[0])
        indices.append(np.clip(np.rint(low + position * (high - low)), 0, mask.shape[axis] - 1).astype(int))
    return mask[np.ix_(*indices)].astype(np.float32)


def _white_lesions(anatomy: Anatomy, parameters: HeadParameters, rng: np.random.Generator) -> np.ndarray | None:
    lesions = parameters.lesions
    if not lesions.ms_count and not lesions.caps:
        return None
    tissue, to_ventricle = anatomy.volume("tissue"), anatomy.volume("ventricle")
    white = tissue == INDEX["white_matter"]
    volume = np.zeros(anatomy.shape, dtype=np.float32)
    if lesions.ms_mask:
        volume = _fit_mni(lesions.ms_mask, anatomy)
    elif lesions.ms_count:
        near = white & (to_ventricle < 14 * DISTANCE_STEPS_PER_MM)
        voxel = np.array(anatomy.voxel_mm)
        for _ in range(lesions.ms_count):
            centre = _pick(rng, near if rng.random() < 0.75 else white)
            if centre is not None:
                radius = np.exp(rng.normal(np.log(2.8), 0.45)) * rng.uniform(0.7, 1.4, 3)
                _blob(volume, rng, centre, np.clip(radius, 1.2, 9) / voxel, 0.18)
    if lesions.caps:
        caps = lesions.caps * np.exp(-to_ventricle.astype(np.float32) / (2.0 * DISTANCE_STEPS_PER_MM))
        volume = np.maximum(volume, caps)
    return _as_fraction(volume * white * lesions.ms_severity)


def _infarct(
    anatomy: Anatomy, parameters: HeadParameters, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """Cavity (fluid-like) and its bright rim, inside the cerebrum."""
    radius = parameters.lesions.infarct_mm
    if not radius:
        return None
    tissue = anatomy.volume("tissue")
    cerebrum = np.isin(tissue, [INDEX[n] for n in ("white_matter", "cortex", "caudate", "putamen", "thalamus")])
    centre = _pick(rng, cerebrum)
    if centre is None:
        return None
    radii = radius * rng.uniform(0.6, 1.3, 3) / np.array(anatomy.voxel_mm)
    core, whole = np.zeros(anatomy.shape, np.float32), np.zeros(anatomy.shape, np.float32)
    _blob(whole, rng, centre, radii, 0.25)
    _blob(core, rng, centre, radii * rng.uniform(0.3, 0.85), 0.25)
    core *= cerebrum
    return _as_fraction(core), _as_fraction(np.clip(whole * cerebrum - core, 0, 1))


def _ct_findings(
    anatomy: Anatomy, parameters: HeadParameters, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    if not parameters.lesions.ct_findings:
        return None
    tissue = anatomy.volume("tissue")
    fraction, hu = np.zeros(anatomy.shape, np.float32), np.zeros(anatomy.shape, np.float32)
    sites = {
        "blood": np.isin(tissue, [INDEX[n] for n in ("white_matter", "cortex", "putamen", "thalamus", "csf")]),
        "calcification": np.isin(tissue, [INDEX[n] for n in ("ventricle", "pallidum", "csf")])
        & (anatomy.volume("ventricle") < 25 * DISTANCE_STEPS_PER_MM),
    }
    for kind, radius, value in parameters.lesions.ct_findings:
        centre = _pick(rng, sites[kind])
        if centre is None:
            continue
        one = np.zeros(anatomy.shape, np.float32)
        _blob(one, rng, centre, radius * rng.uniform(0.7, 1.4, 3) / np.array(anatomy.voxel_mm), 0.2)
        hu = np.where(one > fraction, np.float32(value), hu)
        fraction = np.maximum(fraction, one)
    inside = np.isin(tissue, PARENCHYMA) | (tissue == INDEX["csf"]) | (tissue == INDEX["ventricle"])
    return _as_fraction(fraction * inside), hu.astype(np.int16)


def lesion_maps(anatomy: Anatomy, parameters: HeadParameters) -> LesionMaps:
    """Place the drawn lesions in a head. The CT-only findings have a stream of their own."""
    rng = np.random.default_rng([parameters.seed, 30])
    white = _white_lesions(anatomy, parameters, rng)
    infarct = _infarct(anatomy, parameters, rng)
    findings = _ct_findings(anatomy, parameters, np.random.default_rng([parameters.seed, 31]))
    return LesionMaps(white, *(infarct or (None, None)), *(findings or (None, None)))
