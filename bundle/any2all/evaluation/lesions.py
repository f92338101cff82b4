"""Whether lesions survive: the error inside them, and their contrast to the brain around them.

Lesions are told apart and surrounded in the plane of a slice, so that any set of slices can be scored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

RING_PX = (2.0, 5.0)  # in-plane distance to the lesion, in pixels; its blurred rim belongs to neither
LEAST_PIXELS = 4  # of a lesion in a slice that is scored by itself
LEAST_CONTRAST_U = 0.03  # of the truth, either sign; a fainter lesion cannot be said to be lost
DETECTED_FROM = 0.5  # of the truth's contrast


@dataclass(frozen=True)
class Component:
    """One lesion in one slice: contrasts in u (mean inside minus mean of its ring)."""

    slice: int
    pixels: int
    contrast_truth: float
    contrast_estimate: float

    @property
    def visible(self) -> bool:
        """Whether the truth shows it."""
        return abs(self.contrast_truth) >= LEAST_CONTRAST_U

    @property
    def detected(self) -> bool:
        """Whether the estimate keeps at least half of the truth's contrast, with its sign."""
        return self.contrast_estimate * np.sign(self.contrast_truth) >= DETECTED_FROM * abs(self.contrast_truth)


@dataclass(frozen=True)
class LesionScores:
    """Errors and contrasts in u; None where there is nothing to measure.

    Attributes:
        rmse_lesion, rmse_rest: root mean square error in the lesions and in the rest of the brain.
        contrast_truth, contrast_estimate: mean in all lesions minus mean in the ring around them.
        contrast_ratio: estimate's over truth's; None when the truth's is below 0.03.
        n_lesion_voxels: pixels of lesion inside the brain.
        components: lesions of at least 4 pixels in a slice, with a ring.
        skipped: lesions that are smaller or have no ring.
    """

    rmse_lesion: float | None
    rmse_rest: float | None
    contrast_truth: float | None
    contrast_estimate: float | None
    contrast_ratio: float | None
    n_lesion_voxels: int
    components: tuple[Component, ...]
    skipped: int

    @property
    def n_visible(self) -> int:
        """Components that the truth shows: what `detection` is a fraction of."""
        return sum(c.visible for c in self.components)

    @property
    def detection(self) -> float | None:
        """Fraction of the visible components that the estimate keeps."""
        found = [c.detected for c in self.components if c.visible]
        return float(np.mean(found)) if found else None


def lesion_scores(
    estimate_u: np.ndarray,
    truth_u: np.ndarray,
    lesion_mask: np.ndarray,
    brain_mask: np.ndarray,
    least_pixels: int = LEAST_PIXELS,
) -> LesionScores:
    """Scores of an estimate (Z, H, W) in u, not clipped here, against its truth.

    Args:
        estimate_u, truth_u: (Z, H, W) in u.
        lesion_mask, brain_mask: bool (Z, H, W); lesion outside the brain is ignored.
        least_pixels: smaller lesions of a slice count overall only.
    """
    estimate, truth = np.asarray(estimate_u, np.float64), np.asarray(truth_u, np.float64)
    brain = np.asarray(brain_mask, bool)
    lesion = np.asarray(lesion_mask, bool) & brain
    distance = np.stack([_distance(plane) for plane in lesion])
    ring = brain & _in_ring(distance)
    contrasts = [_contrast(image, lesion, ring) for image in (truth, estimate)]
    ratio = None if None in contrasts or abs(contrasts[0]) < LEAST_CONTRAST_U else contrasts[1] / contrasts[0]
    components, skipped = _components(estimate, truth, lesion, brain, distance, least_pixels)
    return LesionScores(
        rmse_lesion=_rmse(estimate, truth, lesion),
        rmse_rest=_rmse(estimate, truth, brain & ~lesion),
        contrast_truth=contrasts[0],
        contrast_estimate=contrasts[1],
        contrast_ratio=ratio,
        n_lesion_voxels=int(lesion.sum()),
        components=tuple(components),
        skipped=skipped,
    )


def _components(
    estimate: np.ndarray,
    truth: np.ndarray,
    lesion: np.ndarray,
    brain: np.ndarray,
    distance: np.ndarray,
    least_pixels: int,
) -> tuple[list[Component], int]:
    """Lesions of every slice (neighbours touch by edge or corner), and how many could not be scored."""
    found, skipped = [], 0
    for z in range(len(lesion)):
        labels, count = ndimage.label(lesion[z], np.ones((3, 3)))
        clear = brain[z] & (distance[z] >= RING_PX[0])  # of every lesion of the slice
        for number in range(1, count + 1):
            inside = labels == number
            ring = clear & _in_ring(_distance(inside))
            if inside.sum() < least_pixels or not ring.any():
                skipped += 1
                continue
            contrasts = [_contrast(image[z], inside, ring) for image in (truth, estimate)]
            found.append(Component(z, int(inside.sum()), *contrasts))
    return found, skipped


def _distance(plane: np.ndarray) -> np.ndarray:
    """Pixels to the nearest lesion pixel of a slice; infinite where the slice has none."""
    return ndimage.distance_transform_edt(~plane) if plane.any() else np.full(plane.shape, np.inf)


def _in_ring(distance: np.ndarray) -> np.ndarray:
    return (distance >= RING_PX[0]) & (distance <= RING_PX[1])


def _contrast(image: np.ndarray, inside: np.ndarray, ring: np.ndarray) -> float | None:
    return float(image[inside].mean() - image[ring].mean()) if inside.any() and ring.any() else None


def _rmse(estimate: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float | None:
    return float(np.sqrt(((estimate - truth)[mask] ** 2).mean())) if mask.any() else None
