"""Lesions as soft volumes on a head's label grid: white matter lesions, infarcts, findings of CT alone, masses."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

import nibabel as nib
import numpy as np
import torch

from .anatomy import DISTANCE_STEPS_PER_MM, PARENCHYMA, Anatomy
from .labels import to_canonical
from .masses import bleed_maps, tumour_maps
from .parameters import HeadParameters
from .shapes import as_fraction, blob, pick
from .tissues import INDEX

# First and last voxel of the MNI 152 brain along (z, h, w) of its canonical 182 x 218 x 182 array, 1 mm.
MNI_BRAIN = ((6, 153), (21, 198), (20, 161))


@dataclass(frozen=True)
class LesionMaps:
    """uint8 fractions (255 = whole voxel) on the anatomy's grid, or None where the head has none; ``*_hu`` in HU.

    ``ct_*`` are the findings that only CT shows, ``bleed_*`` those that T2star shows too: ``bleed_dephasing`` is the
    exponent of its loss at 3 T in steps of 1/``DEPHASING_STEPS``, ``bleed_spin_echo`` the share that spin echoes lose.
    """

    white_lesion: np.ndarray | None
    infarct: np.ndarray | None
    gliosis: np.ndarray | None
    ct_fraction: np.ndarray | None
    ct_hu: np.ndarray | None
    oedema: np.ndarray | None
    tumour: np.ndarray | None
    necrosis: np.ndarray | None
    bleed_fraction: np.ndarray | None
    bleed_hu: np.ndarray | None
    bleed_dephasing: np.ndarray | None
    bleed_spin_echo: np.ndarray | None

    def flat(self, device: torch.device) -> dict[str, torch.Tensor]:
        """The maps that this head has, flattened, on a device."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: torch.from_numpy(v).to(device).flatten() for name, v in named.items() if v is not None}


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
            centre = pick(rng, near if rng.random() < 0.75 else white)
            if centre is not None:
                radius = np.exp(rng.normal(np.log(2.8), 0.45)) * rng.uniform(0.7, 1.4, 3)
                blob(volume, rng, centre, np.clip(radius, 1.2, 9) / voxel, 0.18)
    if lesions.caps:
        caps = lesions.caps * np.exp(-to_ventricle.astype(np.float32) / (2.0 * DISTANCE_STEPS_PER_MM))
        volume = np.maximum(volume, caps)
    return as_fraction(volume * white * lesions.ms_severity)


def _infarct(
    anatomy: Anatomy, parameters: HeadParameters, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """Cavity (fluid-like) and its bright rim, inside the cerebrum."""
    radius = parameters.lesions.infarct_mm
    if not radius:
        return None
    tissue = anatomy.volume("tissue")
    cerebrum = np.isin(tissue, [INDEX[n] for n in ("white_matter", "cortex", "caudate", "putamen", "thalamus")])
    centre = pick(rng, cerebrum)
    if centre is None:
        return None
    radii = radius * rng.uniform(0.6, 1.3, 3) / np.array(anatomy.voxel_mm)
    core, whole = np.zeros(anatomy.shape, np.float32), np.zeros(anatomy.shape, np.float32)
    blob(whole, rng, centre, radii, 0.25)
    blob(core, rng, centre, radii * rng.uniform(0.3, 0.85), 0.25)
    core *= cerebrum
    return as_fraction(core), as_fraction(np.clip(whole * cerebrum - core, 0, 1))


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
        centre = pick(rng, sites[kind])
        if centre is None:
            continue
        one = np.zeros(anatomy.shape, np.float32)
        blob(one, rng, centre, radius * rng.uniform(0.7, 1.4, 3) / np.array(anatomy.voxel_mm), 0.2)
        hu = np.where(one > fraction, np.float32(value), hu)
        fraction = np.maximum(fraction, one)
    inside = np.isin(tissue, PARENCHYMA) | (tissue == INDEX["csf"]) | (tissue == INDEX["ventricle"])
    return as_fraction(fraction * inside), hu.astype(np.int16)


def lesion_maps(anatomy: Anatomy, parameters: HeadParameters) -> LesionMaps:
    """Place the drawn lesions in a head. CT-only findings, tumour and bleeds have streams of their own."""
    rng, ct_rng, tumour_rng, bleed_rng = (np.random.default_rng([parameters.seed, n]) for n in (30, 31, 32, 33))
    lesions = parameters.lesions
    white = _white_lesions(anatomy, parameters, rng)
    infarct = _infarct(anatomy, parameters, rng)
    findings = _ct_findings(anatomy, parameters, ct_rng)
    tumour = tumour_maps(anatomy, lesions.tumour, tumour_rng) if lesions.tumour else None
    bleeds = bleed_maps(anatomy, lesions.bleeds, bleed_rng) if lesions.bleeds else None
    return LesionMaps(
        white, *(infarct or (None,) * 2), *(findings or (None,) * 2), *(tumour or (None,) * 3), *(bleeds or (None,) * 4)
    )
