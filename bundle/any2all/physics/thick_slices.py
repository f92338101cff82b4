"""A for an image of thick slices or large pixels: what each of its voxels sums up of the prior's volume.

Through the slice the profile is integrated along the acquisition's own normal, exactly, over every voxel of the prior
that the normal crosses; across it the prior's voxels are interpolated by the cubic kernel of Keys (1981), widened where
the image's pixels are larger. Slices thinner than the prior's voxels can be taken as points and interpolated as well.
Tilted, sagittal and coronal slices are nothing special.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from scipy import sparse, special

from .image_operators import FWHM_PER_STD, Volume

Profile = Literal["box", "gaussian", "point"]
LEAST_SEEN = 0.5  # of a voxel's weight that has to lie between the first and the last slice of the source
_GAUSSIAN_REACH = 1.5  # slice distances to either side: 3.5 standard deviations


def thick_slice_weights(
    change: np.ndarray,
    source: Volume,
    target: Volume,
    slice_axis: int,
    source_spacing: tuple[float, float, float],
    profile: Profile = "box",
) -> sparse.csr_matrix:
    """Weights (target voxels, source voxels), float64, for `VolumeMap`.

    Along its first axis the source goes on with its outermost slices; across, outside of it lies zero (air). A target
    voxel that mostly lies beyond the first or last source slice has no weights: nothing is said about it.

    Args:
        change: 4x4, source index of a target index.
        source, target: (Z, H, W) shapes of the prior's grid and of the image.
        slice_axis: the target axis along which its slices are thick; the profile is as wide as they are apart.
        source_spacing: mm, to tell which source axis the normal is closest to.
        profile: ``box``, or ``gaussian`` with that full width at half maximum, or ``point`` of no width.
    """
    along = change[:3, slice_axis]
    through = int(np.argmax(np.abs(along) * source_spacing))
    across = [axis for axis in range(3) if axis != through]
    in_plane = [axis for axis in range(3) if axis != slice_axis]
    widths = [max(1.0, float(np.linalg.norm(change[axis, in_plane]))) for axis in across]
    parts = []
    per_slice = math.prod(target[axis] for axis in range(1, 3))
    for first in range(target[0]):
        index = np.stack(np.meshgrid([first], np.arange(target[1]), np.arange(target[2]), indexing="ij"), axis=-1)
        centre = index.reshape(-1, 3) @ change[:3, :3].T + change[:3, 3]
        parts.append(_rows(centre, along, through, across, widths, source, profile, per_slice))
    return sparse.vstack(parts, format="csr")


def _rows(
    centre: np.ndarray,
    along: np.ndarray,
    through: int,
    across: list[int],
    widths: list[float],
    source: Volume,
    profile: Profile,
    count: int,
) -> sparse.csr_matrix:
    """The rows of some target voxels with these ``centre`` (count, 3) in source indices."""
    if profile == "point":
        places = centre[:, None]
        taps = [(*_keys_taps(places[..., through], 1.0), through)]
    else:
        layers, layer_weights, depth = _layers(centre[:, through], along[through], profile)
        places = centre[:, None] + depth[..., None] * along
        taps = [(layers[..., None], layer_weights[..., None], through)]
    taps += [(*_keys_taps(places[..., axis], width), axis) for axis, width in zip(across, widths)]
    flat, weight, seen = 0, 1.0, 1.0
    strides = (source[1] * source[2], source[2], 1)
    for position, (index, weights, axis) in enumerate(taps):
        shape = [*index.shape[:2], 1, 1, 1]
        shape[2 + position] = index.shape[2]
        inside = (index >= 0) & (index < source[axis])
        flat = flat + (index.clip(0, source[axis] - 1) * strides[axis]).reshape(shape)
        if axis == 0:
            seen = (weights * inside).reshape(shape)
        weight = weight * (weights if axis == 0 else weights * inside).reshape(shape)
    weight = np.broadcast_to(weight, flat.shape).reshape(count, -1)
    enough = _share_seen(taps, seen) >= LEAST_SEEN
    weight = weight * enough[:, None]
    used = weight != 0
    row = np.broadcast_to(np.arange(count)[:, None], weight.shape)[used]
    return sparse.csr_matrix((weight[used], (row, flat.reshape(count, -1)[used])), (count, math.prod(source)))


def _share_seen(taps: list, seen: np.ndarray) -> np.ndarray:
    """How much of each voxel's weight lies between the first and last source slice, (count,)."""
    layer_weights = taps[0][1]
    inside = seen.sum(axis=(2, 3, 4))
    return inside.sum(1) if taps[0][2] == 0 else (layer_weights.sum(-1) * inside).sum(1)


def _layers(centre: np.ndarray, step: float, profile: Profile) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Source layers that a slice crosses (count, J), their share of its profile, and where in it each lies.

    A slice spans -1/2 … 1/2 of its own distance to the next; ``step`` is that distance in layers.
    """
    reach = 0.5 if profile == "box" else _GAUSSIAN_REACH
    number = math.ceil(2 * reach * abs(step)) + 1
    lowest = np.floor(centre - reach * abs(step) + 0.5).astype(np.int64)
    layers = lowest[:, None] + np.arange(number)
    edges = (layers[..., None] + np.array([-0.5, 0.5]) - centre[:, None, None]) / step
    low, high = np.sort(edges, axis=-1).clip(-reach, reach).swapaxes(0, -1).swapaxes(1, 2)
    weights = _cumulative(high, profile) - _cumulative(low, profile)
    return layers, weights / weights.sum(1, keepdims=True), (low + high) / 2


def _cumulative(position: np.ndarray, profile: Profile) -> np.ndarray:
    return position if profile == "box" else special.ndtr(position * FWHM_PER_STD)


def _keys_taps(places: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Source indices (count, J, T) about fractional places and their weights, which add up to 1."""
    reach = math.ceil(2 * width)
    index = np.floor(places).astype(np.int64)[..., None] + np.arange(1 - reach, reach + 1)
    d = np.abs(index - places[..., None]) / width
    near, far = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    weights = np.where(d <= 1, near, np.where(d < 2, far, 0.0))
    return index, weights / weights.sum(-1, keepdims=True)
