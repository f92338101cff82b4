"""One undersampled acquisition whose samples lie on no grid: the counterpart of `acquisition.Acquisition`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..physics.grids import Shape, intensity_scale, resize_coil_maps
from ..physics.measurements import Channel
from ..physics.noncartesian import NonCartesianFourier, nufft_adjoint, point_spread_of
from .coil_maps import MIN_CALIBRATION, calibration_block
from .fourier import fft2c
from .trajectory import covered, density_weights


@dataclass(frozen=True)
class NonCartesianAcquisition:
    """Samples of Z slices along one trajectory, in the units of their images.

    Attributes:
        kspace: complex64 ``(Z, C, N)``; orthonormal, as `physics.noncartesian` says.
        trajectory: float64 ``(N, 2)``, cycles per field of view along (H, W).
        matrix: (H, W) of the acquisition grid, which spans the field of view.
        coil_maps, noise_std, voxel_size_mm, notes, affine: as of `Acquisition`.
    """

    kspace: np.ndarray
    trajectory: np.ndarray
    matrix: Shape
    coil_maps: np.ndarray
    noise_std: float
    voxel_size_mm: tuple[float, float, float] | None = None
    notes: list[str] = field(default_factory=list)
    affine: np.ndarray | None = None

    @property
    def true_acceleration(self) -> float:
        """Points of the grid over samples, those that the middle has too many of included."""
        return self.matrix[0] * self.matrix[1] / len(self.trajectory)

    def select(self, slices: Sequence[int]) -> NonCartesianAcquisition:
        """The same acquisition of some of its slices."""
        chosen = list(slices)
        maps = self.coil_maps if len(self.coil_maps) == 1 else self.coil_maps[chosen]
        return dataclasses.replace(self, kspace=self.kspace[chosen], coil_maps=maps)

    def scaled(self, units_per_u: float) -> NonCartesianAcquisition:
        """The same acquisition of u = image / units_per_u."""
        kspace = (self.kspace / units_per_u).astype(np.complex64)
        return dataclasses.replace(self, kspace=kspace, noise_std=self.noise_std / units_per_u)

    def operator(self, matrix: Shape | None = None, image_shape: Shape | None = None) -> NonCartesianFourier:
        """A on the acquisition grid, or on a coarser grid with the same field of view (see `Acquisition.operator`)."""
        matrix = self.matrix if matrix is None else matrix
        maps = resize_coil_maps(torch.from_numpy(self.coil_maps), matrix)
        return NonCartesianFourier(torch.from_numpy(self.trajectory[self._held_by(matrix)]), maps, image_shape)

    def channel(self, matrix: Shape | None = None, image_shape: Shape | None = None) -> Channel:
        """The measured channel for the samplers: of the samples that ``matrix`` can hold, where one is given."""
        matrix = self.matrix if matrix is None else matrix
        scale = intensity_scale(self.matrix, matrix)
        data = torch.from_numpy(self.kspace[..., self._held_by(matrix)]) * scale
        return Channel("undersampled", self.operator(matrix, image_shape), data, self.noise_std * scale)

    def _held_by(self, matrix: Shape) -> np.ndarray:
        """bool ``(N,)``: |k| <= 1 / (2 spacing) along both axes; the acquisition's own grid takes every sample."""
        if matrix == self.matrix:
            return np.ones(len(self.trajectory), bool)
        return (np.abs(self.trajectory) <= np.array(matrix) / 2).all(axis=1)

    def gridded(self) -> np.ndarray:
        """Re(S^H F_u^H w y), w the density weights: gridding, float32 ``(Z, H, W)``."""
        images = gridded_coils(self.kspace, self.trajectory, self.matrix)
        return np.sum(np.conj(self.coil_maps) * images, axis=1).real.astype(np.float32)

    def mean_power(self) -> float:
        """Mean signal power of a point of k-space, summed over coils, of what lies outside the covered middle."""
        weights = density_weights(self.trajectory, self.matrix)
        block = calibration_block(covered(self.trajectory, self.matrix))
        outside = (np.abs(self.trajectory) > np.array(block) / 2).any(axis=1)
        if min(block) < MIN_CALIBRATION or not outside.any():
            outside[:] = True
        power = np.sum(np.abs(self.kspace[..., outside]) ** 2 * weights[outside]) / len(self.kspace)
        return float(power / weights[outside].sum() - self.noise_std**2 * self.kspace.shape[1])


def gridded_coils(kspace: np.ndarray, trajectory: np.ndarray, matrix: Shape) -> np.ndarray:
    """Coil images by density-compensated gridding (Jackson et al., 1991), complex64 ``(Z, C, H, W)``."""
    weighted = (kspace * density_weights(trajectory, matrix)).astype(np.complex64)
    return nufft_adjoint(torch.from_numpy(weighted), trajectory, matrix).numpy()


def gridded_kspace(kspace: np.ndarray, trajectory: np.ndarray, matrix: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Cartesian k-space ``(Z, C, H, W)`` and its mask ``(H, W)``, for what needs a calibration block alone.

    It is true where the trajectory covers the grid; the mask says where.
    """
    mask = covered(trajectory, matrix)
    return (fft2c(gridded_coils(kspace, trajectory, matrix)) * mask).astype(np.complex64), mask


def weighted_step(trajectory: np.ndarray, matrix: Shape) -> float:
    """1 / L, L no less than the norm of F_u^H w F_u: the step of first-order iterations.

    L is the largest eigenvalue of the circulant matrix that the Toeplitz one is a part of. SigPy's own estimate starts
    at random, and so would every result that follows from it.
    """
    weights = density_weights(trajectory, matrix)
    return 1 / float(torch.fft.fft2(point_spread_of(trajectory, matrix, matrix, weights)).real.max())
