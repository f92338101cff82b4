"""How close an image is to the truth. Every number names its data range and the grid it was computed on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from skimage.metrics import structural_similarity

from ..geometry import Volume, canonical
from ..intensity import head_mask, scale_of, to_u
from ..output import ModalityResult
from ..stack import Modality

DATA_RANGE_U = 1.0
SSIM_SIGMA, SSIM_WINDOW = 1.5, 11


def psnr(
    estimate: np.ndarray, truth: np.ndarray, data_range: float = DATA_RANGE_U, mask: np.ndarray | None = None
) -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(data_range² / MSE), over all voxels or those of a mask."""
    squared = (np.asarray(estimate, np.float64) - np.asarray(truth, np.float64)) ** 2
    error = float(squared.mean() if mask is None else squared[mask].mean())
    return float("inf") if error == 0 else float(10 * np.log10(data_range**2 / error))


def ssim(
    estimate: np.ndarray, truth: np.ndarray, data_range: float = DATA_RANGE_U, mask: np.ndarray | None = None
) -> float:
    """Structural similarity (Wang et al., 2004), Gaussian window of 1.5 voxels: mean over slices (Z, H, W).

    With a mask (Z, H, W), each slice's mean is over its pixels; slices without any are left out. NaN for slices that
    are smaller than the window of 11 pixels, or when all are left out.
    """
    if min(truth.shape[1:]) < SSIM_WINDOW:
        return float("nan")
    values = []
    for z, (e, t) in enumerate(zip(np.asarray(estimate, np.float64), np.asarray(truth, np.float64), strict=True)):
        if mask is not None and not mask[z].any():
            continue
        mean, every = structural_similarity(
            t, e, data_range=data_range, gaussian_weights=True, sigma=SSIM_SIGMA, use_sample_covariance=False, full=True
        )
        values.append(mean if mask is None else every[mask[z]].mean())
    return float(np.mean(values)) if values else float("nan")


def compare(
    output: ModalityResult, modality: Modality, baselines: Mapping[str, Volume] | None = None
) -> ModalityResult:
    """The output with metrics against its truth, where one is known; in u, clipped to [0, 1] as the prior sees it.

    Keys: ``psnr``, ``ssim`` over the whole grid, ``psnr_head`` inside the truth's head, ``psnr_<baseline>`` and
    ``ssim_<baseline>`` of each rival, ``data_range`` and ``grid``. What was measured is taken to u by the truth's
    scale; a synthetic image and its truth come in the units of an image that was never acquired.

    Args:
        output: on the reference grid, in units.
        modality: its entry in the stack.
        baselines: rivals by name, on the same grid and in the same units.
    """
    if output.truth is None:
        return output
    truth = canonical(output.truth).data
    inside = head_mask(truth)
    if not inside.any():
        return output
    scale = scale_of(truth, inside, modality.normalisation) if output.role == "reconstructed" else None
    truth_u = _in_u(truth, modality, scale)
    scores: dict[str, Any] = {}
    for name, volume in {"": output.mean, **(baselines or {})}.items():
        suffix = f"_{name}" if name else ""
        estimate_u = _in_u(canonical(volume).data, modality, scale)
        scores[f"psnr{suffix}"] = round(psnr(estimate_u, truth_u), 3)
        scores[f"ssim{suffix}"] = round(ssim(estimate_u, truth_u), 4)
        if not name:
            scores["psnr_head"] = round(psnr(estimate_u, truth_u, mask=inside), 3)
    return replace(output, metrics={**scores, "data_range": "u in [0, 1]", "grid": "reference"})


def _in_u(data: np.ndarray, modality: Modality, scale: float | None) -> np.ndarray:
    return to_u(data, modality.normalisation, scale).clip(0, 1)
