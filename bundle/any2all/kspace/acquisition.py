"""One undersampled acquisition, ready for reconstruction: data, mask, coil maps, noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..physics.grids import Shape, centre_resize, cropped_noise_std, fourier_crop, resize_coil_maps
from ..physics.measurements import Channel
from ..physics.operators import MulticoilFourier


@dataclass(frozen=True)
class Acquisition:
    """k-space of Z slices on its own grid, in the units of its images.

    Attributes:
        kspace: complex64 ``(Z, C, H, W)``, zero where nothing was sampled; centred orthonormal FFT.
        mask: float32 ``(H, W)``, 1 where sampled, the same for all slices.
        coil_maps: complex64 ``(1 | Z, C, H, W)``, the image's phase folded in, sum |S|^2 = 1 on the support (over
            the file's own coils, where these are whitened ones).
        noise_std: sqrt(E|e|^2) of the complex noise, in the same units.
        voxel_size_mm: (h, w, z), where the file says so.
        notes: what a reader of the result has to know.
        affine: RAS mm of the indices (z, h, w), 4x4, where the file says where the slices lie.
    """

    kspace: np.ndarray
    mask: np.ndarray
    coil_maps: np.ndarray
    noise_std: float
    voxel_size_mm: tuple[float, float, float] | None = None
    notes: list[str] = field(default_factory=list)
    affine: np.ndarray | None = None

    @property
    def true_acceleration(self) -> float:
        """Points of the grid over points sampled, calibration lines included."""
        return self.mask.size / float(self.mask.sum())

    @property
    def matrix(self) -> Shape:
        """(H, W) of the acquisition grid."""
        return (self.mask.shape[0], self.mask.shape[1])

    def select(self, slices: Sequence[int]) -> Acquisition:
        """The same acquisition of some of its slices."""
        chosen = list(slices)
        maps = self.coil_maps if len(self.coil_maps) == 1 else self.coil_maps[chosen]
        return dataclasses.replace(self, kspace=self.kspace[chosen], coil_maps=maps)

    def scaled(self, units_per_u: float) -> Acquisition:
        """The same acquisition of u = image / units_per_u."""
        kspace = (self.kspace / units_per_u).astype(np.complex64)
        return dataclasses.replace(self, kspace=kspace, noise_std=self.noise_std / units_per_u)

    def operator(self, matrix: Shape | None = None, image_shape: Shape | None = None) -> MulticoilFourier:
        """A on the acquisition grid, or on a coarser grid with the same field of view.

        Args:
            matrix: (n_h, n_w) spanning the acquisition's field of view (see ``physics.grids``).
            image_shape: the prior's matrix on that pixel spacing, when it covers another field of view.
        """
        matrix = self.matrix if matrix is None else matrix
        mask = centre_resize(torch.from_numpy(self.mask), matrix)
        maps = resize_coil_maps(torch.from_numpy(self.coil_maps), matrix)
        return MulticoilFourier(mask, maps, image_shape)

    def channel(self, matrix: Shape | None = None, image_shape: Shape | None = None) -> Channel:
        """The measured channel for the samplers: A, y and noise, cropped to ``matrix`` where one is given."""
        matrix = self.matrix if matrix is None else matrix
        data = fourier_crop(torch.from_numpy(self.kspace), matrix)
        noise_std = cropped_noise_std(self.noise_std, self.matrix, matrix)
        return Channel("undersampled", self.operator(matrix, image_shape), data, noise_std)
