"""From any grid to any grid; axes that are only permuted or flipped are moved without interpolation."""

from __future__ import annotations

import math

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from .grid import Grid, Volume

_SAME_VOXELS = 1e-3  # of a voxel, over the whole grid
_INTERPOLATORS = {1: sitk.sitkLinear, 3: sitk.sitkBSpline}


def resample(volume: Volume, grid: Grid, order: int = 1, antialias: bool = True, fill: float = 0.0) -> Volume:
    """A volume on another grid (oblique and anisotropic ones included).

    Coordinates are float64: index of the source = inv(A_source) A_target, so affines need not be orthogonal. Where
    the target is coarser by a factor s along a source axis, that axis is first blurred by a Gaussian of
    sigma = sqrt(s^2 - 1) / 2.355 source voxels (scale-factor point-spread-function matching, Cardoso et al. 2015).

    Args:
        volume: the source.
        grid: the target.
        order: 1 linear, 3 cubic B-spline (which overshoots at edges; the caller clips where that matters).
        antialias: whether to blur before going to a coarser grid.
        fill: value outside the source's field of view (half a voxel beyond its outermost centres).

    Returns:
        The volume on ``grid``; equal to the source where the grids only differ by permuted or flipped axes.
    """
    rearranged = _rearranged(volume, grid)
    if rearranged is not None:
        return rearranged
    change = np.linalg.inv(volume.grid.affine) @ grid.affine
    data = _blurred(volume.data, change[:3, :3]) if antialias else volume.data
    return Volume(_interpolated(data, change, grid.shape, order, fill), grid)


def to_grid(volume: Volume, reference: Grid, order: int = 3, fill: float = 0.0) -> Volume:
    """A result on the reference grid, whose shape and affine it takes over exactly.

    The same voxels in another order are moved without interpolation; everything else is `resample`d.
    """
    return resample(volume, reference, order=order, fill=fill)


def _rearranged(volume: Volume, grid: Grid) -> Volume | None:
    """The volume with its axes permuted and flipped to ``grid``, or None when that does not give ``grid``."""
    change = np.linalg.inv(volume.grid.affine) @ grid.affine  # target index to source index
    axes = np.abs(change[:3, :3]).argmax(axis=0)  # source axis of each target axis
    if sorted(axes) != [0, 1, 2] or tuple(volume.grid.shape[a] for a in axes) != grid.shape:
        return None
    signs = np.sign(change[axes, [0, 1, 2]])
    exact = np.zeros((3, 4))
    exact[axes, [0, 1, 2]] = signs
    exact[axes, 3] = np.where(signs < 0, np.array(grid.shape) - 1, 0)
    if (np.abs(change[:3] - exact) @ np.array([*grid.shape, 1.0])).max() > _SAME_VOXELS:
        return None
    flips = tuple(slice(None, None, -1 if s < 0 else 1) for s in signs)
    return Volume(np.ascontiguousarray(volume.data.transpose(axes)[flips]), grid)


def _blurred(data: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Gaussian low-pass along the source axes that the target samples more coarsely."""
    for axis, factor in enumerate(np.linalg.norm(change, axis=1)):
        sigma = math.sqrt(max(factor**2 - 1.0, 0.0)) / 2.355
        if sigma > 0.05:
            data = ndimage.gaussian_filter1d(data, sigma, axis=axis, mode="nearest", truncate=3.0)
    return data


def _interpolated(data: np.ndarray, change: np.ndarray, shape: tuple[int, ...], order: int, fill: float) -> np.ndarray:
    """``data`` at the source indices ``change @ (target index)``, in index space, so that ITK needs no geometry."""
    if order not in _INTERPOLATORS:
        raise ValueError(f"order must be one of {sorted(_INTERPOLATORS)}, not {order}")
    if order == 3 and 2 in data.shape:
        return _mirrored(data, change, shape, fill)
    # ITK's axes are numpy's in reverse
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(change[:3, :3][::-1, ::-1].ravel().tolist())
    transform.SetTranslation(change[:3, 3][::-1].tolist())
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize([int(n) for n in shape[::-1]])
    resampler.SetTransform(transform)
    resampler.SetInterpolator(_INTERPOLATORS[order])
    resampler.SetDefaultPixelValue(float(fill))
    resampler.SetOutputPixelType(sitk.sitkFloat32)
    image = sitk.GetImageFromArray(np.ascontiguousarray(data, dtype=np.float32))
    return sitk.GetArrayFromImage(resampler.Execute(image))


def _mirrored(data: np.ndarray, change: np.ndarray, shape: tuple[int, ...], fill: float) -> np.ndarray:
    """Cubic `_interpolated` where axes have two samples: beyond them ITK's mirror reads memory that is not the image.

    A third sample, equal to the first, goes on as the mirror does; nothing is said beyond the two all the same.
    """
    short = [axis for axis in range(3) if data.shape[axis] == 2]
    longer = np.pad(data, [(0, int(axis in short)) for axis in range(3)], mode="reflect")
    result, index = _interpolated(longer, change, shape, 3, fill), np.ogrid[tuple(slice(n) for n in shape)]
    for axis in short:
        place = sum(step * n for step, n in zip(change[axis], index)) + change[axis, 3]
        result = np.where(np.broadcast_to(place, shape) >= 1.5, np.float32(fill), result)
    return result
