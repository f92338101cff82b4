"""Tumours with their oedema, and bleeds and calcifications that CT and T2star both show, on a head's label grid."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .anatomy import DISTANCE_STEPS_PER_MM, PARENCHYMA, Anatomy
from .parameters import Bleed, Tumour
from .shapes import as_fraction, blob, irregular_radius, pick, soft_inside
from .tissues import INDEX, TISSUES

# Vasogenic oedema follows white matter and spares the cortex.
OEDEMA_SHARE = {"white_matter": 0.9, "thalamus": 0.3, "putamen": 0.25, "caudate": 0.25, "pallidum": 0.4, "cortex": 0.08}
# A mass fills the sulci that it meets, but not the space between brain and skull.
SULCUS_TO_BONE_MM = 7.0
LOBES = 3
PATCH_MM = 2.2
DEPHASING_STEPS = 40
# The field of a susceptible body reaches beyond it: T2star shows it larger than CT does.
BLOOM_MM = 1.2
SPIN_ECHO_LOSS, SPIN_ECHO_RADIUS_MM = 0.55, 2.5
BLEED_SITES = {
    "microbleed": ("white_matter", "cortex", "thalamus", "putamen", "cerebellar_cortex", "brain_stem"),
    "haemorrhage": ("white_matter", "putamen", "thalamus", "cerebellar_white"),
    "calcification": ("pallidum", "ventricle", "cortex", "white_matter"),
}


def _noise(rng: np.random.Generator, shape: tuple[int, ...], sigma_vox: float) -> np.ndarray:
    """Smooth noise of unit variance."""
    noise = ndimage.gaussian_filter(rng.normal(size=shape), sigma_vox)
    return noise / (noise.std() + 1e-9)


def _box(shape: tuple[int, ...], centre: np.ndarray, reach_vox: np.ndarray) -> tuple[slice, ...]:
    starts = np.maximum((centre - reach_vox).astype(int), 0)
    stops = np.minimum((centre + reach_vox).astype(int) + 2, shape)
    return tuple(slice(a, b) for a, b in zip(starts, stops))


def _core(
    tissue: np.ndarray, to_bone: np.ndarray, rng: np.random.Generator, centre: np.ndarray, radius_vox: np.ndarray
) -> np.ndarray:
    """A lobed mass inside the brain (float32 in [0, 1])."""
    core = np.zeros(tissue.shape, np.float32)
    blob(core, rng, centre, radius_vox * rng.uniform(0.75, 1.15, 3), 0.22)
    for _ in range(LOBES):
        blob(core, rng, centre + rng.normal(0, 0.5, 3) * radius_vox, radius_vox * rng.uniform(0.4, 0.7), 0.2)
    sulcus = (tissue == INDEX["csf"]) & (to_bone > SULCUS_TO_BONE_MM * DISTANCE_STEPS_PER_MM)
    return core * (np.isin(tissue, PARENCHYMA) | sulcus)


def tumour_maps(
    anatomy: Anatomy, tumour: Tumour, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Fractions (uint8) of oedema, tumour and necrosis; None in a head without white matter."""
    whole, voxel = anatomy.volume("tissue"), np.array(anatomy.voxel_mm)
    centre = pick(rng, whole == INDEX["white_matter"])
    if centre is None:
        return None
    box = _box(whole.shape, centre, (2.2 * tumour.radius_mm + 1.8 * tumour.oedema_mm + 4) / voxel)
    tissue, radius_vox = whole[box], tumour.radius_mm / voxel
    local = centre - [s.start for s in box]
    core = _core(tissue, anatomy.volume("bone")[box], rng, local, radius_vox)
    necrosis = np.zeros(tissue.shape, np.float32)
    if tumour.necrosis:
        blob(necrosis, rng, local, radius_vox * tumour.necrosis, 0.25)
    if tumour.patchiness and (core > 0.5).any():
        noise = _noise(rng, tissue.shape, PATCH_MM / voxel.mean())
        level = np.quantile(noise[core > 0.5], 1 - tumour.patchiness)
        necrosis = np.maximum(necrosis, 1 / (1 + np.exp(np.clip((level - noise) * 6, -30, 30))))
    away_mm = ndimage.distance_transform_edt(core < 0.5, sampling=voxel)
    reach_mm = tumour.oedema_mm * (1 + 0.4 * _noise(rng, tissue.shape, 6.0 / voxel.mean()))
    allowed = np.array([OEDEMA_SHARE.get(t.name, 0.0) for t in TISSUES], np.float32)[tissue]
    oedema = allowed / (1 + np.exp(np.clip((away_mm - reach_mm) / 1.2, -30, 30)))
    maps = []
    for part in (oedema, core, necrosis * core):
        volume = np.zeros(whole.shape, np.uint8)
        volume[box] = as_fraction(part)
        maps.append(volume)
    return tuple(maps)


def _merge(target: np.ndarray, box: tuple[slice, ...], values: np.ndarray) -> None:
    np.maximum(target[box], values.astype(target.dtype), out=target[box])


def bleed_maps(
    anatomy: Anatomy, bleeds: tuple[Bleed, ...], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The bodies' fraction (uint8) and HU (int16), T2star's dephasing and the spin echoes' loss (uint8)."""
    tissue, voxel = anatomy.volume("tissue"), np.array(anatomy.voxel_mm)
    inside = np.isin(tissue, (*PARENCHYMA, INDEX["csf"], INDEX["ventricle"]))
    fraction, dephasing, spin_echo = (np.zeros(tissue.shape, np.uint8) for _ in range(3))
    hu = np.zeros(tissue.shape, np.int16)
    for bleed in bleeds:
        sites = rng.permutation(BLEED_SITES[bleed.kind])
        centre = next((c for site in sites if (c := pick(rng, tissue == INDEX[site])) is not None), None)
        if centre is None:
            continue
        radii_vox = bleed.radius_mm * rng.uniform(0.75, 1.3, 3) / voxel
        reach_vox = radii_vox.max() * 1.8 + 5 * BLOOM_MM / voxel.min()
        box, radius = irregular_radius(tissue.shape, rng, centre, radii_vox, 0.15, reach_vox)
        body = as_fraction(soft_inside(radius, radii_vox) * inside[box])
        hu[box] = np.where(body > fraction[box], np.int16(round(bleed.hu)), hu[box])
        _merge(fraction, box, body)
        beyond_mm = np.clip(radius - 1, 0, None) * bleed.radius_mm
        loss = bleed.dephasing * np.exp(-beyond_mm / BLOOM_MM)
        _merge(dephasing, box, np.clip(loss * DEPHASING_STEPS, 0, 255))
        if bleed.radius_mm >= SPIN_ECHO_RADIUS_MM:
            _merge(spin_echo, box, SPIN_ECHO_LOSS * body)
    return fraction, hu, dephasing, spin_echo
