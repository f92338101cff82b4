r"""How far two sets of images are apart as distributions, by their features: FID and KID.

Notation
    =======  ======================================================
    x, y     features (N, D) of one set and of the other
    μ, Σ     mean and covariance (n - 1) of a set
    k        (x·y / D + 1)³, the polynomial kernel of KID
    =======  ======================================================

FID (Heusel et al., 2017) is biased: of few images it is too large, and two methods are comparable at equal N only.
KID (Bińkowski et al., 2018) is unbiased, so that it is as often below zero as above for equal distributions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import Any2allError

LEAST_FOR_KID, ENOUGH_FOR_FID = 200, 2000
SUBSETS, LARGEST_SUBSET = 100, 1000

Groups = Sequence[str] | Sequence[int] | np.ndarray


@dataclass(frozen=True)
class FID:
    """Fréchet distance of ``n`` images on either side."""

    value: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3g} (N = {self.n})"


@dataclass(frozen=True)
class KID:
    """Squared maximum mean discrepancy, its standard error, and how many images it was computed on."""

    value: float
    error: float
    n: int
    n_reference: int

    def __str__(self) -> str:
        return f"{1000 * self.value:.2g} ± {1000 * self.error:.1g}"


def frechet_distance(mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray) -> float:
    """||μ_a - μ_b||² + tr(Σ_a + Σ_b - 2 (Σ_a^{1/2} Σ_b Σ_a^{1/2})^{1/2}) (Dowson and Landau, 1982).

    The inner matrix is symmetric, so its root needs eigenvalues only and has no imaginary part to throw away.
    """
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(min=0)).sum()
    difference = np.asarray(mean_a) - np.asarray(mean_b)
    return float(difference @ difference + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def fid(x: np.ndarray, y: np.ndarray) -> FID:
    """FID of features (N, D) of as many images on either side.

    Raises:
        Any2allError: the numbers of images differ, or there are fewer than two.
    """
    if len(x) != len(y) or len(x) < 2:
        raise Any2allError("FID needs as many images on either side, two at least", key="N", value=(len(x), len(y)))
    moments = [(f.mean(axis=0), np.cov(f, rowvar=False).reshape(f.shape[1], f.shape[1])) for f in (x, y)]
    return FID(max(frechet_distance(*moments[0], *moments[1]), 0.0), len(x))


def kid(
    x: np.ndarray,
    y: np.ndarray,
    groups_x: Groups | None = None,
    groups_y: Groups | None = None,
    subsets: int = SUBSETS,
    seed: int = 0,
) -> KID:
    """KID of features (N, D) and (N', D).

    Images of one group (slices of one head, samples of one slice) are alike, which would make sets look apart. So only
    pairs of images of different groups are compared: that is unbiased as if all images were independent. The standard
    error is that of random subsets of half of the groups, s sqrt(m / (G - m)) for m of G (delete-d jackknife, Shao and
    Wu, 1989).

    Args:
        x, y: features.
        groups_x, groups_y: of each image; equal names on both sides are the same group. None: every image is its own.
        subsets: random subsets for the error.
        seed: of the subsets.

    Raises:
        Any2allError: fewer than two groups on a side, or as many names as images are not given.
    """
    own = [[f"{side}{i}" for i in range(len(f))] for side, f in (("x", x), ("y", y))]
    names = [np.asarray(own[i] if g is None else [str(v) for v in g]) for i, g in enumerate((groups_x, groups_y))]
    if any(len(n) != len(f) for n, f in zip(names, (x, y))):
        raise Any2allError("as many groups as images are needed", key="groups", value=[len(n) for n in names])
    if any(len(np.unique(n)) < 2 for n in names):
        raise Any2allError("KID needs two groups of images on each side", key="groups")
    kernels = _Kernels.of(x, y, names[0], names[1])
    whole = kernels.mmd2(np.ones(len(x), bool), np.ones(len(y), bool))
    return KID(whole, _standard_error(kernels, subsets, seed), len(x), len(y))


@dataclass(frozen=True, eq=False)
class _Kernels:
    """Kernel values between images, zero for pairs of one group, and which pairs count."""

    values: tuple[np.ndarray, np.ndarray, np.ndarray]
    counted: tuple[np.ndarray, np.ndarray, np.ndarray]
    names: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray, names_x: np.ndarray, names_y: np.ndarray) -> _Kernels:
        pairs = ((x, x, names_x, names_x), (y, y, names_y, names_y), (x, y, names_x, names_y))
        counted = tuple(a[:, None] != b[None, :] for _, _, a, b in pairs)
        values = tuple((a @ b.T / x.shape[1] + 1) ** 3 * c for (a, b, _, _), c in zip(pairs, counted))
        return cls(values, tuple(c.astype(np.float64) for c in counted), (names_x, names_y))

    def mmd2(self, in_x: np.ndarray, in_y: np.ndarray) -> float:
        """Unbiased squared discrepancy of some of the images (bool masks)."""
        sides = ((in_x, in_x), (in_y, in_y), (in_x, in_y))
        means = [
            (a @ values @ b) / (a @ counted @ b)
            for (a, b), values, counted in zip(
                ((a.astype(np.float64), b.astype(np.float64)) for a, b in sides), self.values, self.counted
            )
        ]
        return float(means[0] + means[1] - 2 * means[2])


def _standard_error(kernels: _Kernels, subsets: int, seed: int) -> float:
    """Of random subsets of half of the groups of either side; where both sides have the same groups, of the same."""
    rng = np.random.default_rng(seed)
    groups = [np.unique(names) for names in kernels.names]
    shared = np.array_equal(*groups)
    halves = [min(len(g) // 2, LARGEST_SUBSET) for g in groups]
    if min(halves) < 2:
        return float("nan")
    found = []
    for _ in range(subsets):
        first = rng.choice(groups[0], halves[0], replace=False)
        second = first if shared else rng.choice(groups[1], halves[1], replace=False)
        found.append(kernels.mmd2(*(np.isin(n, c) for n, c in zip(kernels.names, (first, second)))))
    left = [m / (len(g) - m) for m, g in zip(halves, groups)]
    return float(np.std(found, ddof=1) * np.sqrt(np.mean(left)))
