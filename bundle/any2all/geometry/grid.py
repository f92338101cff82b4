"""A grid is a shape and an affine; a volume is data on a grid."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel import orientations

CANONICAL_CODES = ("S", "P", "L")


@dataclass(frozen=True, eq=False)
class Grid:
    """Voxel centres ``x = affine @ (i, j, k, 1)``: RAS mm of the array's own index order."""

    shape: tuple[int, int, int]
    affine: np.ndarray

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"a grid has three axes and a 4x4 affine, not {self.shape} and {affine.shape}")
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxels along each axis."""
        first, second, third = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(first), float(second), float(third)

    @property
    def codes(self) -> tuple[str, str, str]:
        """Where each axis grows to, such as ``("S", "P", "L")``."""
        return nib.aff2axcodes(self.affine)

    @property
    def centre_mm(self) -> np.ndarray:
        """Centre of the field of view, RAS (3,)."""
        return self.at((np.array(self.shape) - 1) / 2)

    def at(self, index: np.ndarray) -> np.ndarray:
        """RAS mm (..., 3) of (fractional) indices (..., 3)."""
        return np.asarray(index, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def index_of(self, points_mm: np.ndarray) -> np.ndarray:
        """Fractional indices (..., 3) of RAS mm (..., 3)."""
        return (np.asarray(points_mm, dtype=np.float64) - self.affine[:3, 3]) @ np.linalg.inv(self.affine[:3, :3]).T

    def same_as(self, other: Grid, tol: float = 1e-5) -> bool:
        """Equal shapes, and affines that differ by at most ``tol`` anywhere."""
        return self.shape == other.shape and bool(np.abs(self.affine - other.affine).max() <= tol)

    def moved(self, rigid: np.ndarray) -> Grid:
        """The same voxels after the head moved by a 4x4 RAS transform; nothing is resampled."""
        return Grid(self.shape, np.asarray(rigid, dtype=np.float64) @ self.affine)

    def scaled(self, shape: tuple[int, int, int], first: np.ndarray, step: np.ndarray) -> Grid:
        """The grid of another shape whose index n lies at ``first + step * n`` of this one, per axis."""
        change = np.diag([*np.asarray(step, dtype=np.float64), 1.0])
        change[:3, 3] = first
        return Grid(shape, self.affine @ change)


@dataclass(frozen=True, eq=False)
class Volume:
    """float32 ``data`` of ``grid.shape``, in the units of whoever made it."""

    data: np.ndarray
    grid: Grid

    def __post_init__(self) -> None:
        data = np.asarray(self.data, dtype=np.float32)
        if data.shape != self.grid.shape:
            raise ValueError(f"data of shape {data.shape} does not fit a grid of shape {self.grid.shape}")
        object.__setattr__(self, "data", data)


def canonical(volume: Volume) -> Volume:
    """Axes permuted and flipped to those closest to (S, P, L); no interpolation, the voxels stay where they are."""
    here = orientations.io_orientation(volume.grid.affine)
    change = orientations.ornt_transform(here, orientations.axcodes2ornt(CANONICAL_CODES))
    data = np.ascontiguousarray(orientations.apply_orientation(volume.data, change))
    return Volume(data, Grid(data.shape, volume.grid.affine @ orientations.inv_ornt_aff(change, volume.grid.shape)))
