"""Whether the spread of posterior samples tells the error: by bins, by coverage, and by one ratio.

Of the samples themselves (`coverage`, `spread_ratio`), and of the std that is written with their mean (`held_by`,
`scale_for_coverage`), whose intervals are read as those of a normal distribution: mean ± 1.645 std for 90 %.

With K samples and a truth that are exchangeable (what samples of the exact posterior are), the truth differs from
the samples' mean by (1 + 1/K) variances, so normal values lie in mean ± t_{K-1} s sqrt(1 + 1/K) at the level of t.

In antithetic pairs (`samplers.noise`) the mean has no noise of its own, and s (n - 1) is sqrt(K / (K - 1)) too wide.
The exact half-width is then t_{K/2} s sqrt((K - 1) / K): at 90 % the one above is 4 % wider for 4 samples, 1 % for 8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ..errors import Any2allError


@dataclass(frozen=True)
class Bin:
    """Pixels of like predicted std: root mean square of that std and of the error of the samples' mean, both in u."""

    std: float
    error: float
    pixels: int


@dataclass(frozen=True)
class Coverage:
    """How often intervals of the samples hold the truth.

    Attributes:
        normal, level: fraction of pixels with the truth in mean ± t s sqrt(1 + 1/K), and what it should be.
        ranked, ranked_level: the same of the interval from the j-th lowest to the j-th highest sample, whose level
            is 1 - 2j / (K + 1) whatever the distribution; j is chosen nearest to ``level``.
        pixels: how many were looked at.
    """

    normal: float
    level: float
    ranked: float
    ranked_level: float
    pixels: int


def error_by_std(
    samples: np.ndarray, truth: np.ndarray, mask: np.ndarray, bins: int = 10, written: np.ndarray | None = None
) -> list[Bin]:
    """Error of the samples' mean in quantile bins of their std, from the surest pixels to the least sure.

    Args:
        samples: (K, Z, H, W), K ≥ 2.
        truth: (Z, H, W).
        mask: bool (Z, H, W), such as the head.
        bins: as many, of equal count; fewer when many pixels share one std, none when the mask is empty.
        written: the std (Z, H, W) that stands beside the mean; None: the samples' own.

    Raises:
        Any2allError: fewer than two samples, or shapes that differ.
    """
    chosen, true = _inside(samples, truth, mask)
    if not true.size:
        return []
    std = chosen.std(axis=0, ddof=1) if written is None else written[np.asarray(mask, bool)]
    error = chosen.mean(axis=0) - true
    edges = np.unique(np.quantile(std, np.linspace(0, 1, bins + 1)[1:-1]))
    which = np.searchsorted(edges, std, side="left")
    parts = [which == i for i in range(len(edges) + 1)]
    return [Bin(_rms(std[part]), _rms(error[part]), int(part.sum())) for part in parts if part.any()]


def rank_correlation(bins: Sequence[Bin]) -> float | None:
    """Spearman's correlation of the bins' std and error; None when fewer than two bins or a constant error."""
    errors = [b.error for b in bins]
    if len(set(errors)) < 2:
        return None
    return float(stats.spearmanr([b.std for b in bins], errors).statistic)


def is_monotone(bins: Sequence[Bin], tolerance: float = 0.0) -> bool:
    """Whether the error rises with the predicted std: their rank correlation is at least 1 - ``tolerance``.

    Of 10 bins, one swap of neighbours costs 0.012.
    """
    correlation = rank_correlation(bins)
    return correlation is not None and correlation >= 1 - tolerance - 1e-12


def coverage(samples: np.ndarray, truth: np.ndarray, mask: np.ndarray, level: float = 0.9) -> Coverage | None:
    """Fraction of a mask's pixels whose truth the samples' intervals hold; None when the mask is empty.

    Arguments and errors as in `error_by_std`.
    """
    chosen, true = _inside(samples, truth, mask)
    if not true.size:
        return None
    count = len(chosen)
    half = _half_width(chosen, level)
    lowest = _rank(count, level)
    chosen_sorted = np.sort(chosen, axis=0)
    ranked = (chosen_sorted[lowest - 1] <= true) & (true <= chosen_sorted[count - lowest])
    return Coverage(
        normal=float((np.abs(chosen.mean(axis=0) - true) <= half).mean()),
        level=level,
        ranked=float(ranked.mean()),
        ranked_level=1 - 2 * lowest / (count + 1),
        pixels=true.size,
    )


def held_by(
    samples: np.ndarray, truth: np.ndarray, mask: np.ndarray, written: np.ndarray, level: float = 0.9
) -> float | None:
    """Fraction of a mask's pixels with the truth within mean ± z std of a written std (Z, H, W); z: normal, two-sided.

    None when the mask is empty. Other arguments and errors as in `error_by_std`.
    """
    error, half = _error_and_half(samples, truth, mask, written, level)
    return float((error <= half).mean()) if error.size else None


def scale_for_coverage(
    samples: np.ndarray, truth: np.ndarray, mask: np.ndarray, written: np.ndarray, level: float = 0.9
) -> float | None:
    """The least factor on a std (Z, H, W) with which mean ± z std holds ``level`` of the truth, see `held_by`.

    It is the quantile of the error over the half-width. None when the mask is empty, or when no factor is enough
    because the samples agree, wrongly, in too many pixels.
    """
    error, half = _error_and_half(samples, truth, mask, written, level)
    if not error.size:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(error == 0, 0.0, error / half)
    factor = float(np.quantile(ratio, level, method="inverted_cdf"))
    return factor if math.isfinite(factor) else None


def spread_ratio(samples: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float | None:
    """Root mean square of the std over that of the error of the samples' mean; `exact_spread_ratio` is the aim.

    None when the mask is empty or the mean is exact. Arguments and errors as in `error_by_std`.
    """
    chosen, true = _inside(samples, truth, mask)
    error = _rms(chosen.mean(axis=0) - true) if true.size else 0.0
    return _rms(chosen.std(axis=0, ddof=1)) / error if error > 0 else None


def exact_spread_ratio(count: int) -> float:
    """sqrt(K / (K + 1)): the `spread_ratio` of K samples of the exact posterior."""
    return math.sqrt(count / (count + 1))


def _inside(samples: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Samples (K, P) and truth (P,) of the mask's pixels, float64."""
    samples, truth, mask = np.asarray(samples), np.asarray(truth), np.asarray(mask, bool)
    if len(samples) < 2:
        raise Any2allError("a spread needs at least two samples", key="samples", value=len(samples))
    if not samples.shape[1:] == truth.shape == mask.shape:
        raise Any2allError(
            "samples, truth and mask differ in shape", key="samples", value=(samples.shape, truth.shape, mask.shape)
        )
    return samples[:, mask].astype(np.float64), truth[mask].astype(np.float64)


def _half_width(samples: np.ndarray, level: float) -> np.ndarray:
    count = len(samples)
    t = float(stats.t.ppf((1 + level) / 2, count - 1))
    return t * samples.std(axis=0, ddof=1) * math.sqrt(1 + 1 / count)


def _error_and_half(
    samples: np.ndarray, truth: np.ndarray, mask: np.ndarray, written: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray]:
    chosen, true = _inside(samples, truth, mask)
    z = float(stats.norm.ppf((1 + level) / 2))
    return np.abs(chosen.mean(axis=0) - true), z * written[np.asarray(mask, bool)].astype(np.float64)


def _rank(count: int, level: float) -> int:
    """j of the interval between the j-th lowest and the j-th highest of ``count`` samples, nearest to the level."""
    return min(range(1, count // 2 + 1), key=lambda j: abs(1 - 2 * j / (count + 1) - level))


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))
