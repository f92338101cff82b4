"""Raw data on a grid that is not the frame's: its operator changes grids, and k-space stays as it was measured.

Slices that lie parallel to the frame's are paired with them, so that slices stay independent (`elsewhere`). Slices that
cross them (sagittal, coronal, tilted) see many of the frame's slices each, and are measurements of its volume
(`crossing`).
"""

from __future__ import annotations

import numpy as np
import torch

from .geometry import Grid, Volume, resample
from .inputs import RawData
from .physics.fourier import fft2c, ifft2c
from .physics.grids import fourier_crop, index_map, matching_matrix
from .physics.image_operators import VolumeMap
from .physics.measurements import Channel
from .physics.regrid import InPlaneChange, RegriddedFourier
from .physics.thick_slices import thick_slice_weights
from .physics.volume_fourier import VolumeFourier

SAME_PLANE = 0.02  # of a voxel
MOST_TILT_DEGREES = 1.5  # 2 mm at the head's edge, less than a slice; within that slices count as parallel


def tilt_degrees(grid: Grid, other: Grid) -> float:
    """The angle between the slices of two grids, 0 to 90."""
    normals = [np.cross(g.affine[:3, 1], g.affine[:3, 2]) for g in (grid, other)]
    cosine = abs(normals[0] @ normals[1]) / (np.linalg.norm(normals[0]) * np.linalg.norm(normals[1]))
    return float(np.degrees(np.arccos(min(cosine, 1.0))))


def crosses(grid: Grid, frame: Grid) -> bool:
    """Whether slices of ``grid`` are too far from parallel to those of ``frame`` to be paired with them."""
    return tilt_degrees(grid, frame) > MOST_TILT_DEGREES


def crossing(item: RawData, grid: Grid) -> Channel:
    """Raw data whose slices cross those of ``grid``, as a channel of its whole volume: A = P F S U, data (1, Zs, ...).

    U integrates through slices that are thicker than the voxels of ``grid``, and interpolates at thinner ones. What
    the slices show of the head beyond ``grid`` is no part of the volume, yet of k-space: that of the first
    reconstruction is subtracted.
    """
    channel, coarse = _within_band(item, _band_mm(grid, item.grid))
    change = np.linalg.inv(grid.affine) @ coarse.affine
    through = np.abs(change[:3, 0])
    profile = "box" if through.max() > 1 else "point"
    weights = thick_slice_weights(change, grid.shape, coarse.shape, 0, grid.spacing_mm, profile)
    seen = (np.diff(weights.indptr) > 0).reshape(coarse.shape)
    head = resample(Volume(item.mask.astype(np.float32), item.grid), coarse, antialias=False).data
    first = fourier_crop(fft2c(torch.from_numpy(item.first.data / item.scale)), (coarse.shape[1], coarse.shape[2]))
    beyond = ifft2c(first).real * torch.from_numpy(head * ~seen)
    data = channel.data - channel.operator.forward(beyond) if beyond.any() else channel.data
    operator = VolumeFourier(VolumeMap(weights, grid.shape, coarse.shape), channel.operator).by_rows()
    return Channel("undersampled", operator, data[None], channel.noise_std)


def _band_mm(grid: Grid, other: Grid) -> tuple[float, float]:
    """Pixels along the in-plane axes of ``other`` that hold as much as ``grid`` can show in these directions.

    A grid of spacing s shows frequencies f with |f_i| <= 1 / (2 s_i). Along a direction d they end at
    1 / (2 max_i |d_i| s_i).
    """
    to_grid = np.linalg.inv(grid.affine[:3, :3]) @ other.affine[:3, 1:3] / np.array(other.spacing_mm[1:])
    cosines = np.abs(to_grid) * np.array(grid.spacing_mm)[:, None]
    h, w = (cosines * np.array(grid.spacing_mm)[:, None]).max(axis=0)
    return float(h), float(w)


def _within_band(item: RawData, pixel_mm: tuple[float, float]) -> tuple[Channel, Grid]:
    """Data in u cropped to what pixels of this size can hold, and the grid of its images."""
    spacing, shape = item.grid.spacing_mm, item.grid.shape
    encoded = matching_matrix((shape[1] * spacing[1], shape[2] * spacing[2]), pixel_mm)
    channel = item.acquisition.scaled(item.scale).channel(encoded)
    (step_h, first_h), (step_w, first_w) = (index_map(shape[axis + 1], encoded[axis]) for axis in (0, 1))
    grid = item.grid.scaled((shape[0], *encoded), np.array([0, first_h, first_w]), np.array([1, step_h, step_w]))
    return channel, grid


def elsewhere(item: RawData, grid: Grid) -> Channel:
    """Raw data on a grid of its own, as a channel of the slices of ``grid``: A = P F S U, k-space cropped as ever.

    Between two acquired slices one of ``grid`` sees both, each by its own coils and k-space, weighted by w and
    1 - w: min_u w |y_1 - A_1 u|^2 + (1 - w) |y_2 - A_2 u|^2, whose solution, were all of k-space sampled, is the linear
    interpolation of the two images. Where nothing was acquired the operator is zero.
    """
    channel, coarse = _within_band(item, (grid.spacing_mm[1], grid.spacing_mm[2]))
    encoded = (coarse.shape[1], coarse.shape[2])
    places = _plane_of_each_slice(grid, coarse)
    weights, neighbours = _two_nearest(places, coarse.shape[0])
    fourier = channel.operator
    parts = [(w.sqrt()[:, None, None, None], index) for w, index in zip(weights, neighbours) if (w > 0).any()]
    maps = torch.cat([w * fourier.select(index).coil_maps for w, index in parts], dim=1)
    data = torch.cat([w * channel.data[index] for w, index in parts], dim=1)
    change = InPlaneChange(_in_plane(grid, coarse, places), (grid.shape[1], grid.shape[2]), encoded)
    operator = RegriddedFourier(change, fourier.with_maps(maps)).by_rows()
    return Channel("undersampled", operator, data, channel.noise_std)


def _plane_of_each_slice(grid: Grid, other: Grid) -> np.ndarray:
    """The (fractional) slice of ``other`` that the middle of each slice of ``grid`` lies in, (Z,)."""
    middle = np.array([(z, (grid.shape[1] - 1) / 2, (grid.shape[2] - 1) / 2) for z in range(grid.shape[0])])
    return other.index_of(grid.at(middle))[:, 0]


def _two_nearest(places: np.ndarray, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and indices (2, Z) of the slices below and above; zero where neither is near."""
    inside = (places > -0.5 - SAME_PLANE) & (places < count - 0.5 + SAME_PLANE)
    held = places.clip(0, count - 1)
    held = np.where(np.abs(held - np.rint(held)) < SAME_PLANE, np.rint(held), held)
    below = np.floor(held).astype(np.int64)
    above = np.minimum(below + 1, count - 1)
    share = held - below
    weights = np.stack([(1 - share) * inside, share * inside]).astype(np.float32)
    return torch.from_numpy(weights), torch.from_numpy(np.stack([below, above]))


def _in_plane(grid: Grid, other: Grid, places: np.ndarray) -> torch.Tensor:
    """(h, w) of ``grid`` from (H, W, 1) of ``other`` in the planes ``places``: (Z, 2, 3), or (1, 2, 3) for all."""
    change = np.linalg.inv(grid.affine) @ other.affine
    maps = np.repeat(change[None, 1:3, 1:4], len(places), axis=0)
    maps[:, :, 2] += change[1:3, 0] * places[:, None]
    alike = np.abs(maps - maps[:1]).max() < SAME_PLANE
    return torch.from_numpy(maps[:1] if alike else maps)
