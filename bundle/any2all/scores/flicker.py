"""Slice-to-slice flicker, the known weakness of a 2-D prior: how much neighbouring slices differ, beside the truth's.

Volumes are (Z, H, W), of contiguous slices of one head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Flicker:
    """z-flicker of posterior samples and of their mean; None where it cannot be measured.

    Attributes:
        single: of each sample; 1 is the truth's own.
        mean: of the samples' mean, which is smoother than any of them.
        correlation: of the mean with the truth.
        z_correlation: of the mean's differences between slices with the truth's; flicker alone would give 0.
    """

    single: tuple[float | None, ...]
    mean: float | None
    correlation: float | None
    z_correlation: float | None


def z_flicker(volume: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float | None:
    """Std of the differences of neighbouring slices over the truth's, where both slices are inside the mask.

    None when no pixel has a neighbour inside, or when the truth does not change along z.
    """
    differences, of_truth = _z_differences(volume, mask), _z_differences(truth, mask)
    return float(differences.std() / of_truth.std()) if of_truth.size and of_truth.std() > 0 else None


def correlation(volume: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float | None:
    """Pearson's correlation inside the mask; None when it is empty or an image is constant there."""
    inside = np.asarray(mask, bool)
    return _pearson(np.asarray(volume, np.float64)[inside], np.asarray(truth, np.float64)[inside])


def z_correlation(volume: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float | None:
    """Pearson's correlation of the differences of neighbouring slices; None as in `correlation`."""
    return _pearson(_z_differences(volume, mask), _z_differences(truth, mask))


def flicker_scores(samples: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> Flicker:
    """Flicker of samples (K, Z, H, W), one by one, and of their mean."""
    mean = np.asarray(samples, np.float64).mean(axis=0)
    return Flicker(
        single=tuple(z_flicker(sample, truth, mask) for sample in samples),
        mean=z_flicker(mean, truth, mask),
        correlation=correlation(mean, truth, mask),
        z_correlation=z_correlation(mean, truth, mask),
    )


def _z_differences(volume: np.ndarray, mask: np.ndarray) -> np.ndarray:
    inside = np.asarray(mask, bool)
    return np.diff(np.asarray(volume, np.float64), axis=0)[inside[1:] & inside[:-1]]


def _pearson(a: np.ndarray, b: np.ndarray) -> float | None:
    if a.size < 2 or a.std() == 0 or b.std() == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])
