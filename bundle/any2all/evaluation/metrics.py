"""How close an image is to the truth. Every number names its data range and the grid it was computed on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from skimage.metrics import structural_similarity

from ..geometry import canonical
from ..intensity import head_mask, scale_of, to_u
from ..output import ModalityResult
from ..stack import Modality

DATA_RANGE_U = 1.0


def psnr(estimate: np.ndarray, truth: np.ndarray, data_range: float = DATA_RANGE_U, mask: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(data_range² / MSE), over all voxels or those of a mask."""
    squared = (np.asarray(estimate, np.float64) - np.asarray(truth, np.float64)) ** 2
    error = float(squared.mean() if mask is None else squared[mask].mean())
    return float("inf") if error == 0 else float(10 * np.log10(data_range**2 / error))


def ssim(estimate: np.ndarray, truth: np.ndarray, data_range: float = DATA_RANGE_U) -> float:
    """Structural similarity of slices (Z, H, W), mean over slices: Gaussian window of 1.5 voxels (Wang et al., 2004)."""
    values = [
        structural_similarity(t, e, data_range=data_range, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
        for e, t in zip(np.asarray(estimate, np.float64), np.asarray(truth, np.float64))
    ]
    return float(np.mean(values))


def compare(output: ModalityResult, modality: Modality) -> ModalityResult:
    """The output with its metrics against its truth, where one is known: in u, clipped to [0, 1] as the prior sees it.

    A synthetic MR has no units of its own, so it is brought to the truth's scale by its own head's percentile.
    """
    if output.truth is None:
        return output
    truth, estimate = canonical(output.truth).data, canonical(output.mean).data
    inside = head_mask(truth)
    truth_u = _to_u(truth, inside, modality)
    own = inside if output.role == "synthetic" else None
    estimate_u = _to_u(estimate, own, modality) if own is not None else to_u(estimate, modality.normalisation, _scale(truth, inside, modality))
    scores = {
        "psnr_db": round(psnr(estimate_u.clip(0, 1), truth_u.clip(0, 1)), 3),
        "psnr_head_db": round(psnr(estimate_u.clip(0, 1), truth_u.clip(0, 1), mask=inside), 3),
        "ssim": round(ssim(estimate_u.clip(0, 1), truth_u.clip(0, 1)), 4),
        "data_range": "u in [0, 1]",
        "grid": "reference",
    }
    return replace(output, metrics=scores)


def _scale(data: np.ndarray, mask: np.ndarray, modality: Modality) -> float:
    return scale_of(data, mask, modality.normalisation)


def _to_u(data: np.ndarray, mask: np.ndarray, modality: Modality) -> np.ndarray:
    return to_u(data, modality.normalisation, _scale(data, mask, modality))
