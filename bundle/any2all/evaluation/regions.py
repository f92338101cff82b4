"""Errors in the units that readers of CT and PET know: HU inside the head, Dice of bone, SUVr of regions, amyloid.

Images are (Z, H, W) in u and are clipped to [0, 1] before they become units, truth and estimate alike. What cannot be
measured (a region that a slice does not hold) is None, left out of every mean, and counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..intensity import from_u
from ..phantom.tissues import INDEX, TISSUES
from ..scores.statistics import Groups
from ..stack import Normalisation

BONE_HU = 250.0  # more is bone
SOFT_HU = -200.0  # less is air; soft tissue, fat included, lies between the two
LEAST_PIXELS = 50  # of a region in a group; the mean of fewer says little
Z_90 = 1.645  # mean ± so many standard deviations hold 90 % of a normal distribution

REFERENCE_REGION = "cerebellar_cortex"
REGION_TISSUES: dict[str, tuple[str, ...]] = {  # the small labels of unverified meaning belong to no region
    "cerebral_cortex": ("cortex",),
    "cerebral_white_matter": ("white_matter",),
    "deep_grey": ("thalamus", "caudate", "putamen", "pallidum", "accumbens"),
    REFERENCE_REGION: ("cerebellar_cortex",),
    "brain_stem": ("brain_stem",),
    "hippocampus_amygdala": ("hippocampus", "amygdala"),
}
REGIONS: dict[str, tuple[int, ...]] = {
    region: tuple(code for name in names for code in TISSUES[INDEX[name]].labels)
    for region, names in REGION_TISSUES.items()
}


@dataclass(frozen=True)
class CTScores:
    """Errors of a CT.

    Attributes:
        mae_hu: mean absolute error inside the head, HU.
        mae_soft_hu, mae_bone_hu: the same where the truth is soft tissue (-200 to 250 HU) or bone (more).
        bone_dice: 2 |A ∩ B| / (|A| + |B|) of the pixels of the head above 250 HU.
        mae_hu_per_slice, bone_dice_per_slice: slice by slice.
        slices_without_head, slices_without_bone: where the lists hold None; bone is in neither image there.
    """

    mae_hu: float | None
    mae_soft_hu: float | None
    mae_bone_hu: float | None
    bone_dice: float | None
    mae_hu_per_slice: list[float | None]
    bone_dice_per_slice: list[float | None]
    slices_without_head: int
    slices_without_bone: int


def head_of_labels(labels: np.ndarray) -> np.ndarray:
    """The head (Z, H, W): every label but air, its holes (sinuses, airways) filled slice by slice."""
    return np.stack([ndimage.binary_fill_holes(plane) for plane in np.asarray(labels) > 0])


def ct_scores(
    estimate_u: np.ndarray, truth_u: np.ndarray, normalisation: Normalisation, head_mask: np.ndarray
) -> CTScores:
    """Errors of a CT (Z, H, W) in u inside a head (Z, H, W): `head_of_labels`, or `intensity.head_mask` of a scan."""
    head = np.asarray(head_mask, bool)
    estimate, truth = _in_units(estimate_u, normalisation), _in_units(truth_u, normalisation)
    error = np.abs(estimate - truth)
    bone_estimate, bone_truth = head & (estimate > BONE_HU), head & (truth > BONE_HU)
    maes = [_mean(error[z], head[z]) for z in range(len(head))]
    dices = [dice(bone_estimate[z], bone_truth[z]) for z in range(len(head))]
    return CTScores(
        mae_hu=_mean(error, head),
        mae_soft_hu=_mean(error, head & (truth >= SOFT_HU) & (truth <= BONE_HU)),
        mae_bone_hu=_mean(error, bone_truth),
        bone_dice=dice(bone_estimate, bone_truth),
        mae_hu_per_slice=maes,
        bone_dice_per_slice=dices,
        slices_without_head=maes.count(None),
        slices_without_bone=dices.count(None),
    )


def dice(a: np.ndarray, b: np.ndarray) -> float | None:
    """Dice's coefficient (1945) of two masks; None when both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else None


@dataclass(frozen=True)
class RegionScore:
    """Mean SUVr of one region in one group. ``referred``: relative to the image's own cerebellar cortex."""

    group: str | int
    region: str
    pixels: int
    truth: float
    estimate: float
    referred: bool

    @property
    def error(self) -> float:
        """Signed: estimate - truth."""
        return self.estimate - self.truth


@dataclass(frozen=True)
class PETScores:
    """What was measured, and how many pairs of group and region were too small for it."""

    regions: tuple[RegionScore, ...]
    skipped: int

    @property
    def absolute_error(self) -> float | None:
        """Mean over groups and regions of |error|, SUVr."""
        return _average([abs(score.error) for score in self.regions])

    @property
    def signed_error(self) -> float | None:
        """Mean over groups and regions of the error, SUVr; a bias shows here."""
        return _average([score.error for score in self.regions])

    def of(self, region: str) -> PETScores:
        """One region alone, all groups; ``skipped`` is not told apart by region and stays 0."""
        return PETScores(tuple(score for score in self.regions if score.region == region), 0)

    def groups_referred(self) -> tuple[int, int]:
        """How many groups are relative to their cerebellar cortex, and how many in the image's own units."""
        referred = {score.group: score.referred for score in self.regions}
        return sum(referred.values()), len(referred) - sum(referred.values())


def pet_scores(
    estimate_u: np.ndarray,
    truth_u: np.ndarray,
    normalisation: Normalisation,
    labels: np.ndarray,
    groups: Groups,
) -> PETScores:
    """Mean SUVr of `REGIONS`, estimate and truth, for each group of slices.

    Where a group holds at least 50 pixels of the cerebellar cortex, each image is divided by its own mean there (and
    that region, 1 by construction, is left out); elsewhere its own units stand.

    Args:
        estimate_u, truth_u: (Z, H, W) in u.
        normalisation: of PET.
        labels: (Z, H, W) FreeSurfer codes.
        groups: (Z,) the rendering that each slice belongs to, by name or number.
    """
    images = np.stack([_in_units(truth_u, normalisation), _in_units(estimate_u, normalisation)])
    scores, skipped = [], 0
    for group, chosen in _groups(groups):
        values, inside = images[:, chosen], np.asarray(labels)[chosen]
        reference = _reference(values, inside)
        for region in REGIONS:
            if reference is not None and region == REFERENCE_REGION:
                continue
            mask = _region(inside, region)
            if mask.sum() < LEAST_PIXELS:
                skipped += 1
                continue
            truth, estimate = _suvr(values, mask, reference)
            pixels = int(mask.sum())
            scores.append(RegionScore(group, region, pixels, truth, estimate, reference is not None))
    return PETScores(tuple(scores), skipped)


@dataclass(frozen=True)
class CorticalSUVr:
    """Mean SUVr of the cerebral cortex in every sample of one group, and in its truth.

    Attributes:
        group: which rendering.
        samples: (K,) cortical SUVr of each sample.
        truth: of the true image.
        referred: relative to each image's own cerebellar cortex.
        positive: amyloid status of the truth.
    """

    group: str | int
    samples: tuple[float, ...]
    truth: float
    referred: bool
    positive: bool

    @property
    def mean(self) -> float:
        return float(np.mean(self.samples))

    @property
    def std(self) -> float:
        """Over samples (n - 1); 0 of a single one."""
        return float(np.std(self.samples, ddof=1)) if len(self.samples) > 1 else 0.0

    @property
    def range(self) -> tuple[float, float]:
        """The least and the largest sample."""
        return min(self.samples), max(self.samples)

    @property
    def normal_interval(self) -> tuple[float, float]:
        """Mean ± 1.645 standard deviations."""
        return self.mean - Z_90 * self.std, self.mean + Z_90 * self.std

    def covers(self, *values: float) -> dict[str, bool]:
        """Whether each interval (``normal`` and ``range``) holds all values, such as both states' typical ones."""
        intervals = {"normal": self.normal_interval, "range": self.range}
        return {name: all(low <= value <= high for value in values) for name, (low, high) in intervals.items()}


def cortical_suvr(
    samples_u: np.ndarray,
    truth_u: np.ndarray,
    normalisation: Normalisation,
    labels: np.ndarray,
    groups: Groups,
    positive: Mapping[str, bool] | Mapping[int, bool],
) -> tuple[CorticalSUVr, ...]:
    """Cortical SUVr of samples (K, Z, H, W) in u, group by group; groups with too little cortex are left out.

    Args:
        samples_u, truth_u, normalisation, labels, groups: as in `pet_scores`.
        positive: amyloid status of each group's truth.
    """
    images = np.concatenate([_in_units(truth_u, normalisation)[None], _in_units(samples_u, normalisation)])
    found = []
    for group, chosen in _groups(groups):
        values, inside = images[:, chosen], np.asarray(labels)[chosen]
        cortex = _region(inside, "cerebral_cortex")
        if cortex.sum() < LEAST_PIXELS:
            continue
        reference = _reference(values, inside)
        truth, *samples = _suvr(values, cortex, reference)
        found.append(CorticalSUVr(group, tuple(samples), truth, reference is not None, bool(positive[group])))
    return tuple(found)


@dataclass(frozen=True)
class AmyloidCoverage:
    """In how many of ``groups`` the samples leave amyloid status open, as MR does: by each interval of `covers`."""

    normal: int
    range: int
    groups: int


def amyloid_coverage(
    found: Sequence[CorticalSUVr], states: Mapping[str, tuple[float, float]] | Mapping[int, tuple[float, float]]
) -> AmyloidCoverage:
    """How often the samples' intervals hold both states' typical cortical SUVr.

    Args:
        found: by `cortical_suvr`.
        states: of each group, the (negative, positive) cortical SUVr of such a head, blurred like the images: partial
            volume moves it away from the tissue's own. Two renderings that differ in status alone, given to
            `cortical_suvr` as samples, have it.
    """
    covered = [group.covers(*states[group.group]) for group in found]
    return AmyloidCoverage(sum(c["normal"] for c in covered), sum(c["range"] for c in covered), len(covered))


def _in_units(u: np.ndarray, normalisation: Normalisation) -> np.ndarray:
    return from_u(np.asarray(u, np.float64).clip(0, 1), normalisation)


def _groups(groups: Groups) -> Iterator[tuple[str | int, np.ndarray]]:
    """Every group and which slices (Z,) are its own."""
    names = np.asarray(groups)
    for group in dict.fromkeys(names.tolist()):
        yield group, names == group


def _region(labels: np.ndarray, region: str) -> np.ndarray:
    return np.isin(labels, REGIONS[region])


def _reference(images: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    """Mean (N,) of images (N, Z, H, W) in the cerebellar cortex; None where it is too small or dark."""
    mask = _region(labels, REFERENCE_REGION)
    if mask.sum() < LEAST_PIXELS:
        return None
    means = images[:, mask].mean(axis=1)
    return means if (means > 0).all() else None


def _suvr(images: np.ndarray, mask: np.ndarray, reference: np.ndarray | None) -> list[float]:
    """Mean of every image (N, Z, H, W) in a mask, relative to its reference (N,) where there is one."""
    means = images[:, mask].mean(axis=1)
    return (means if reference is None else means / reference).tolist()


def _mean(values: np.ndarray, mask: np.ndarray) -> float | None:
    return float(values[mask].mean()) if mask.any() else None


def _average(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
