"""Intervals of what was measured on several renderings: the bootstrap draws renderings, never slices or pixels.

Slices of one rendering are alike, so the unit is the group. A score is first made one number per group, then the mean
over groups is taken. PSNR: the MSE is averaged within a group, becomes dB, and the dB are averaged over groups.
Percentile intervals of few groups are too narrow: in a simulation, 95 % intervals of 4 normal values held their mean in
80 % of cases, of 12 in 91 %. Renderings of one head also vary less than people do.

The test is Wilcoxon's signed-rank test of paired groups, Holm's correction for how many were made. With fewer than six
groups no difference could be significant at 5 %, so nothing is tested. Its words say "over renderings", for that is
all that they are over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from ..errors import Any2allError

Scores = Sequence[float | None] | np.ndarray
Groups = Sequence[str] | Sequence[int] | np.ndarray
Reduce = Callable[[np.ndarray], float]
RESAMPLES, LEVEL = 10_000, 0.95
LEAST_GROUPS, NOT_TESTED = 6, "not tested"  # of 5 pairs that all agree, the exact p is 2 / 2^5 = 0.06


def mean_score(scores: np.ndarray) -> float:
    """A group's score: the mean of its slices'."""
    return float(np.mean(scores))


def psnr_of_mse(mse: np.ndarray) -> float:
    """A group's PSNR in dB, data range 1, from the MSE of its slices. Raises Any2allError for an error of zero."""
    error = float(np.mean(mse))
    if error <= 0:
        raise Any2allError("an error of zero has no PSNR", key="mse", value=error)
    return -10 * float(np.log10(error))


@dataclass(frozen=True)
class Interval:
    """A mean over groups with its bootstrap interval; ``low`` and ``high`` are None with a single group."""

    mean: float
    low: float | None
    high: float | None
    n_groups: int

    def text(self, digits: int = 1, signed: bool = True) -> str:
        """In words.

        >>> Interval(1.23, 0.8, 1.6, 4).text()
        '+1.2 [0.8, 1.6] over 4 renderings'
        >>> Interval(27.9, None, None, 1).text(signed=False)
        '27.9 (one head: no interval)'
        """
        mean = f"{self.mean:{'+' if signed else ''}.{digits}f}"
        if self.low is None or self.high is None:
            return f"{mean} (one head: no interval)"
        return f"{mean} [{self.low:.{digits}f}, {self.high:.{digits}f}] over {self.n_groups} renderings"

    def __str__(self) -> str:
        return self.text()


def bootstrap_mean(
    scores: Scores,
    groups: Groups,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
    reduce: Reduce = mean_score,
) -> Interval:
    """The mean over groups of per-slice scores, with the percentile interval of resampled groups.

    Args:
        scores: (Z,) one per slice; None or NaN was not measured and is left out.
        groups: (Z,) the rendering that each slice belongs to, by name or number.
        resamples, seed, level: of the bootstrap (Efron, 1979).
        reduce: a group's score from its slices': `mean_score`, or `psnr_of_mse` when the scores are MSE.

    Raises:
        Any2allError: nothing was measured, or scores and groups differ in number.
    """
    (values,), groups = _measured([scores], groups)
    return _interval(_per_group(values, groups, reduce), resamples, seed, level)


def paired_bootstrap(
    a: Scores,
    b: Scores,
    groups: Groups,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
    reduce: Reduce = mean_score,
) -> Interval:
    """The mean over groups of a - b; both come from the same resampled groups, and from slices that both have.

    Arguments and errors as in `bootstrap_mean`.
    """
    (first, second), groups = _measured([a, b], groups)
    return _interval(_per_group(first, groups, reduce) - _per_group(second, groups, reduce), resamples, seed, level)


def paired_wilcoxon(a: Scores, b: Scores, groups: Groups, reduce: Reduce = mean_score) -> float | None:
    """Two-sided p of Wilcoxon's signed-rank test (1945) over groups; None with fewer than `LEAST_GROUPS` of them.

    Exact where scipy can be, 1 where no group differs. Arguments and errors as in `paired_bootstrap`.
    """
    (first, second), groups = _measured([a, b], groups)
    differences = _per_group(first, groups, reduce) - _per_group(second, groups, reduce)
    if len(differences) < LEAST_GROUPS:
        return None
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p (1979) of a family of tests, in their order; what was not tested (None) does not count."""
    made = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(made):
        highest = max(highest, min((len(made) - rank) * p, 1.0))
        adjusted[i] = highest
    return adjusted


def p_text(p: float | None) -> str:
    """In words.

    >>> p_text(0.0312), p_text(0.00002), p_text(None)
    ('0.031', '< 0.001', 'not tested')
    """
    if p is None:
        return NOT_TESTED
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


Verdict = Literal["rises", "within its interval", "falls"]


@dataclass(frozen=True)
class Step:
    """What one more input brought. ``falls``: the whole interval lies below zero (or the mean, with one group)."""

    before: str
    after: str
    gain: Interval

    @property
    def verdict(self) -> Verdict:
        if self.gain.mean >= 0:
            return "rises"
        return "falls" if self.gain.high is None or self.gain.high < 0 else "within its interval"


@dataclass(frozen=True)
class Chain:
    """A chain of tasks in which every step is given more than the one before."""

    steps: tuple[Step, ...]
    total: Interval

    @property
    def holds(self) -> bool:
        """More is better: the total gain is positive and no step falls by more than its interval."""
        return self.total.mean > 0 and all(step.verdict != "falls" for step in self.steps)


def chain(
    scores_by_step: Mapping[str, Scores],
    groups: Groups,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
    reduce: Reduce = mean_score,
) -> Chain:
    """Whether more inputs are better. More of a group's score has to be better: PSNR (`psnr_of_mse`), SSIM.

    Args:
        scores_by_step: (Z,) per-slice scores of each step, by name, from the least given to the most.
        groups, resamples, seed, level, reduce: as in `bootstrap_mean`.

    Raises:
        Any2allError: fewer than two steps; and as `bootstrap_mean`.
    """
    names = list(scores_by_step)
    if len(names) < 2:
        raise Any2allError("a chain needs at least two steps", key="scores_by_step", value=names)

    def gain(before: str, after: str) -> Interval:
        return paired_bootstrap(scores_by_step[after], scores_by_step[before], groups, resamples, seed, level, reduce)

    steps = tuple(Step(before, after, gain(before, after)) for before, after in zip(names, names[1:]))
    return Chain(steps, gain(names[0], names[-1]))


def _measured(columns: Sequence[Scores], groups: Groups) -> tuple[np.ndarray, np.ndarray]:
    """Scores (columns, Z) and groups (Z,) of the slices where every column has a finite or infinite number."""
    groups = np.asarray(groups)
    for column in columns:
        if len(column) != len(groups):
            raise Any2allError(
                "as many scores as slices are needed", key="scores", value=len(column), allowed=str(len(groups))
            )
    values = np.array([[np.nan if v is None else v for v in column] for column in columns], dtype=np.float64)
    keep = ~np.isnan(values).any(axis=0)
    if not keep.any():
        raise Any2allError("no slice was measured", key="scores")
    if np.isinf(values[:, keep]).any():
        raise Any2allError("an infinite score has no mean; give MSE in place of PSNR", key="scores")
    return values[:, keep], groups[keep]


def _per_group(values: np.ndarray, groups: np.ndarray, reduce: Reduce) -> np.ndarray:
    return np.array([reduce(values[groups == group]) for group in np.unique(groups)])


def _interval(per_group: np.ndarray, resamples: int, seed: int, level: float) -> Interval:
    count = len(per_group)
    mean = float(per_group.mean())
    if count < 2:
        return Interval(mean, None, None, count)
    drawn = np.random.default_rng(seed).integers(count, size=(resamples, count))
    low, high = np.quantile(per_group[drawn].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), count)
