"""PSNR or SSIM of a record as a mean over renderings with its interval and the value of each rendering."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...scores.statistics import bootstrap_mean, mean_score, psnr_of_mse
from ..records import Record

Metric = Literal["PSNR", "SSIM"]
METRICS: tuple[Metric, ...] = ("PSNR", "SSIM")
UNITS: Mapping[Metric, str] = {"PSNR": "PSNR, dB", "SSIM": "SSIM"}


@dataclass(frozen=True)
class Score:
    """Attributes:
    mean: over groups; infinite where a group has no error at all.
    low, high: 95 % bootstrap interval over groups; None with one group or an infinite mean.
    groups: the value of each rendering or subject.
    """

    mean: float
    low: float | None
    high: float | None
    groups: Mapping[str, float]


def score(record: Record, metric: Metric, one_sample: bool = False) -> Score | None:
    """The score of the mean of the samples, or of one sample; None where nothing was measured (SSIM of tiny images)."""
    if metric == "PSNR":
        values, reduce = (record.mse if one_sample else record.mse_mean), psnr_of_mse
    else:
        values, reduce = (record.ssim if one_sample else record.ssim_mean), mean_score
    measured = [(v, g) for v, g in zip(values, record.groups, strict=True) if v is not None and not math.isnan(v)]
    if not measured:
        return None
    numbers, names = np.array([v for v, _ in measured]), np.array([g for _, g in measured])
    parts = {name: numbers[names == name] for name in dict.fromkeys(names.tolist())}
    if metric == "PSNR" and any(part.mean() <= 0 for part in parts.values()):
        exact = {name: math.inf if part.mean() <= 0 else psnr_of_mse(part) for name, part in parts.items()}
        return Score(math.inf, None, None, exact)
    interval = bootstrap_mean(numbers, names, reduce=reduce)
    return Score(
        interval.mean, interval.low, interval.high, {name: float(reduce(part)) for name, part in parts.items()}
    )


def span(scores: list[Score | None], metric: Metric) -> tuple[float, float]:
    """Limits of an axis that holds all finite values, with a little room; of SSIM at most 1."""
    numbers = [v for s in scores if s is not None for v in (s.mean, *s.groups.values()) if math.isfinite(v)]
    if not numbers:
        return (0.0, 1.0) if metric == "SSIM" else (0.0, 50.0)
    low, high = min(numbers), max(numbers)
    room = 0.08 * max(high - low, 0.1 if metric == "SSIM" else 2.0)
    return low - room, min(high + room, 1.0) if metric == "SSIM" else high + room
