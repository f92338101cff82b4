"""Everything random about a rendered head, drawn before anything is rendered, so that a rendering can be replayed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from .field_strength import TABLE_TESLA, values_at_field
from .signal import draw_sequences, vary_protocols
from .tissues import HEAD_TISSUES, MASS_TISSUES, PROPERTIES, Tissue

MR_RECIPES = ("T1", "T2", "T2FLAIR", "T2star")
# Each kind of variation is drawn from a stream of its own: none shifts another, none can be read off another.
STREAMS = {
    "head": 20,
    "amyloid": 21,
    "field": 22,
    "atrophy": 23,
    "tumour": 24,
    "bleeds": 25,
    "contrast": 26,
    "masses": 27,
}
# Of the share of heads that have it.
LOW_FIELD, ATROPHY, TUMOUR, BLEEDS = 0.3, 0.35, 0.06, 0.2


@dataclass(frozen=True)
class Pose:
    """Rigid, affine and elastic change of the head. Angles in degrees, elastic amplitudes in mm, ``flip``: mirrored."""

    flip: bool
    rotation_deg: tuple[float, float, float]
    scale: tuple[float, float, float]
    shear: tuple[float, float, float]
    elastic_mm: tuple[float, float]


@dataclass(frozen=True)
class Tumour:
    """A mass: mean radius of its core; ``necrosis``, radius of a fluid-like centre as a share of the core's (0: none);
    ``patchiness``, share of the core that such patches break up; how far oedema reaches beyond it."""

    radius_mm: float
    necrosis: float
    patchiness: float
    oedema_mm: float


@dataclass(frozen=True)
class Bleed:
    """What CT and T2star both show. ``kind``: microbleed, haemorrhage or calcification; ``radius_mm`` and ``hu`` of the
    body that CT shows; ``dephasing``, the exponent of T2star's signal loss inside it at 3 T."""

    kind: str
    radius_mm: float
    hu: float
    dephasing: float


@dataclass(frozen=True)
class Lesions:
    """``ms_count`` blobs or a real mask (``ms_mask``, a path), an infarct radius in mm (0: none), CT-only findings,
    a tumour, and bleeds and calcifications that CT and T2star show.

    Each CT finding is (kind, radius in mm, HU); kinds ``blood`` and ``calcification``. No MR channel shows them.
    """

    ms_count: int
    ms_mask: str | None
    ms_severity: float
    caps: float
    infarct_mm: float
    ct_findings: tuple[tuple[str, float, float], ...]
    tumour: Tumour | None = None
    bleeds: tuple[Bleed, ...] = ()


@dataclass(frozen=True)
class HeadParameters:
    """One rendered head. ``tissue_values[name]`` lists t1, t2, t2star, pd, hu, negative, positive in that order, at the
    head's field. ``atrophy_mm``: how deep fluid has replaced tissue around the ventricles and in the sulci, on average.
    """

    seed: int
    amyloid_positive: bool
    skull_stripped: bool
    strip_margin_mm: float
    pose: Pose
    lesions: Lesions
    tissue_values: dict[str, tuple[float, ...]]
    sequences: dict[str, dict[str, float | str]]
    flow: float
    fat_thickness_mm: float
    texture: float
    regional: float
    mr_scale: dict[str, float]
    mr_bias: dict[str, float]
    mr_noise: dict[str, float]
    mr_blur_px: dict[str, float]
    susceptibility: tuple[float, float]
    ct_noise_hu: float
    ct_cupping_hu: float
    ct_blur_px: float
    pet_fwhm_mm: float
    pet_noise: float
    pet_regional: float
    field_tesla: float = TABLE_TESLA
    atrophy_mm: tuple[float, float] = (0.0, 0.0)

    def record(self) -> dict:
        """JSON-able copy; a lesion mask is named, not located."""
        record = asdict(self)
        if self.lesions.ms_mask:
            record["lesions"]["ms_mask"] = Path(self.lesions.ms_mask).name
        return record


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    return (float(values[0]), float(values[1]), float(values[2]))


def _draw_pose(rng: np.random.Generator) -> Pose:
    return Pose(
        flip=bool(rng.random() < 0.5),
        rotation_deg=_triple(np.clip(rng.normal(0, (4.5, 2.5, 3.0)), -10, 10)),
        scale=_triple(rng.uniform(0.93, 1.07) * rng.uniform(0.96, 1.04, 3)),
        shear=_triple(rng.uniform(-0.03, 0.03, 3)),
        elastic_mm=(float(rng.uniform(0.8, 3.2)), float(rng.uniform(0.1, 0.7))),
    )


def _draw_lesions(rng: np.random.Generator, masks: list[str]) -> Lesions:
    count = int(rng.integers(2, 25)) if rng.random() < 0.45 else 0
    use_mask = bool(masks) and rng.random() < 0.6
    chosen = masks[int(rng.integers(len(masks)))] if masks else None
    findings: list[tuple[str, float, float]] = []
    if rng.random() < 0.12:
        findings.append(("blood", float(rng.uniform(3, 12)), float(rng.uniform(55, 78))))
    for _ in range(int(rng.integers(0, 4)) if rng.random() < 0.5 else 0):
        findings.append(("calcification", float(rng.uniform(1.0, 2.8)), float(rng.uniform(100, 400))))
    return Lesions(
        ms_count=count,
        ms_mask=chosen if count and use_mask else None,
        ms_severity=float(rng.uniform(0.55, 1.0)),
        caps=float(rng.uniform(0, 0.5) if rng.random() < 0.5 else 0.0),
        infarct_mm=float(rng.uniform(6, 26)) if rng.random() < 0.12 else 0.0,
        ct_findings=tuple(findings),
    )


def _draw_tissues(rng: np.random.Generator, tissues: tuple[Tissue, ...]) -> dict[str, tuple[float, ...]]:
    """Values of classes. Relaxation varies between heads jointly (age) and per tissue; SUVr per tissue."""
    shared = rng.normal(0, 0.02)
    uptake = rng.normal(0, 0.05, 2)
    drawn = {}
    for tissue in tissues:
        relaxation = np.exp(shared + tissue.spread * rng.normal(0, 1, 3))
        times = np.array([tissue.t1, tissue.t2, tissue.t2star]) * relaxation
        density = tissue.pd * float(np.exp(0.015 * rng.normal()))
        hu = tissue.hu + tissue.hu_spread * float(rng.normal())
        level = np.array([tissue.negative, tissue.positive]) * np.exp(uptake + 0.05 * rng.normal(0, 1))
        drawn[tissue.name] = tuple(float(v) for v in (*times, density, hu, *level))
    return drawn


def _draw_head_tissues(rng: np.random.Generator) -> dict[str, tuple[float, ...]]:
    drawn = _draw_tissues(rng, HEAD_TISSUES)
    load = float(rng.normal(0, 0.12))
    cortex = list(drawn["cortex"])
    # The amyloid load itself varies between positive heads, from hardly to heavily positive.
    cortex[PROPERTIES.index("positive")] *= float(np.exp(load))
    return drawn | {"cortex": tuple(cortex)}


def _draw_tumour(rng: np.random.Generator) -> Tumour | None:
    if rng.random() >= TUMOUR:
        return None
    form = rng.choice(["solid", "heterogeneous", "necrotic"])
    return Tumour(
        radius_mm=float(rng.uniform(6, 20)),
        necrosis=float(rng.uniform(0.45, 0.8)) if form == "necrotic" else 0.0,
        patchiness=float(rng.uniform(0.15, 0.45)) if form == "heterogeneous" else 0.0,
        oedema_mm=float(rng.uniform(3, 22)),
    )


def _draw_bleeds(rng: np.random.Generator) -> tuple[Bleed, ...]:
    if rng.random() >= BLEEDS:
        return ()

    def one() -> Bleed:
        kind = str(rng.choice(["microbleed", "haemorrhage", "calcification"], p=[0.5, 0.2, 0.3]))
        radius, hu, dephasing = {
            "microbleed": ((0.7, 1.3), (48, 60), (3.0, 6.0)),
            "haemorrhage": ((2.5, 9.0), (52, 78), (2.0, 5.0)),
            "calcification": ((1.2, 4.0), (90, 450), (1.5, 3.5)),
        }[kind]
        return Bleed(kind, *(float(rng.uniform(*span)) for span in (radius, hu, dephasing)))

    return tuple(one() for _ in range(int(rng.integers(1, 7))))


def _draw_atrophy(rng: np.random.Generator) -> tuple[float, float]:
    """Around the ventricles and in the sulci, mm; both banks of a sulcus give way."""
    if rng.random() >= ATROPHY:
        return (0.0, 0.0)
    severity = rng.uniform(0.15, 1.0)
    return (float(2.5 * severity * rng.uniform(0.6, 1.0)), float(1.2 * severity * rng.uniform(0.5, 1.0)))


def at_field(parameters: HeadParameters, tesla: float) -> HeadParameters:
    """The same head, drawn at 3 T, in a scanner of another field: relaxation times and susceptibility loss change."""
    strength, reach_mm = parameters.susceptibility
    return replace(
        parameters,
        field_tesla=tesla,
        tissue_values=values_at_field(parameters.tissue_values, tesla),
        susceptibility=(strength * tesla / TABLE_TESLA, reach_mm),
    )


def draw_parameters(seed: int, lesion_masks: str | Path | None = None) -> HeadParameters:
    """Draw one head's parameters: those of ``draw_ordinary``, then field strength, protocol, atrophy and masses.

    Args:
        seed: the head's seed; equal seeds (and folders) give equal parameters.
        lesion_masks: a folder with real lesion masks (``**/*.nii.gz`` in MNI space); None: random blobs alone.
    """
    streams = {name: np.random.default_rng([int(seed), number]) for name, number in STREAMS.items()}
    ordinary = draw_ordinary(seed, lesion_masks)
    contrast = streams["contrast"]
    drawn = replace(
        ordinary,
        sequences=vary_protocols(ordinary.sequences, contrast),
        texture=float(np.exp(contrast.uniform(np.log(0.5), np.log(2.0)))),
        mr_noise={name: float(np.exp(contrast.uniform(np.log(0.004), np.log(0.05)))) for name in MR_RECIPES},
        atrophy_mm=_draw_atrophy(streams["atrophy"]),
        lesions=replace(
            ordinary.lesions, tumour=_draw_tumour(streams["tumour"]), bleeds=_draw_bleeds(streams["bleeds"])
        ),
    )
    return at_field(drawn, 1.5) if streams["field"].random() < LOW_FIELD else drawn


def draw_ordinary(seed: int, lesion_masks: str | Path | None = None) -> HeadParameters:
    """Parameters of a head at 3 T with common protocols, without atrophy, tumour and bleeds; as ``draw_parameters``."""
    rng = np.random.default_rng([int(seed), STREAMS["head"]])
    masks = sorted(str(p) for p in Path(lesion_masks).rglob("*.nii.gz")) if lesion_masks else []
    # Amyloid status has a stream of its own: nothing that MR shows can be derived from the draw.
    status = np.random.default_rng([int(seed), STREAMS["amyloid"]]).random() < 0.5

    masses = _draw_tissues(np.random.default_rng([int(seed), STREAMS["masses"]]), MASS_TISSUES)

    def per_modality(low: float, high: float) -> dict[str, float]:
        return {name: float(rng.uniform(low, high)) for name in MR_RECIPES}

    return HeadParameters(
        seed=int(seed),
        amyloid_positive=bool(status),
        skull_stripped=bool(rng.random() < 0.2),
        strip_margin_mm=float(rng.uniform(1.5, 8.0)),
        pose=_draw_pose(rng),
        lesions=_draw_lesions(rng, masks),
        tissue_values=_draw_head_tissues(rng) | masses,
        sequences=draw_sequences(rng),
        flow=float(rng.uniform(0.6, 1.4)),
        fat_thickness_mm=float(rng.uniform(3.0, 8.0)),
        texture=float(rng.uniform(0.7, 1.4)),
        regional=float(rng.uniform(0.5, 1.5)),
        mr_scale={name: float(np.exp(rng.uniform(np.log(150), np.log(2000)))) for name in MR_RECIPES},
        mr_bias=per_modality(0.02, 0.14),
        mr_noise=per_modality(0.006, 0.04),
        mr_blur_px=per_modality(0.15, 0.5),
        susceptibility=(float(rng.uniform(1.2, 3.0)), float(rng.uniform(3.0, 6.0))),
        ct_noise_hu=float(rng.uniform(1.5, 5.0)),
        ct_cupping_hu=float(rng.uniform(2.0, 8.0)),
        ct_blur_px=float(rng.uniform(0.25, 0.5)),
        pet_fwhm_mm=float(rng.uniform(6.0, 8.0)),
        pet_noise=float(rng.uniform(0.03, 0.09)),
        pet_regional=float(rng.uniform(0.06, 0.16)),
    )
