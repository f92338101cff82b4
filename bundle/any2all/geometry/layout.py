"""Where the prior's grid lies in the scanner's, and how far two images cover each other."""

from __future__ import annotations

import math

import numpy as np

from ..errors import Any2allError
from .grid import Grid, Volume
from .resampling import resample

NETWORK_MULTIPLE = 8
OWN_SLICES_FROM = 0.75  # of the prior's slice spacing: thicker slices are kept, thinner ones are put together
LEAST_OVERLAP = 0.1
MOST_PIXELS, MOST_POINTS = 2**20, 2**26  # of one slice, of the whole grid: far beyond any head


def head_bounds(mask: np.ndarray, grid: Grid, anchor: Grid | None = None) -> np.ndarray:
    """Extent of a head along an anchor's axes.

    Args:
        mask: bool, of ``grid.shape``.
        grid: where the mask lies.
        anchor: whose axes to measure along; default: ``grid``.

    Returns:
        (3, 2) mm: from and to along each axis of the anchor, measured from its index 0, voxel edges included.

    Raises:
        Any2allError: an empty mask.
    """
    anchor = grid if anchor is None else anchor
    if not np.any(mask):
        raise Any2allError("no head was found in the image", code="invalid_image")
    voxels = np.argwhere(mask)
    thinned = voxels[:: max(1, len(voxels) // 200_000)]
    extreme = np.concatenate([thinned, *[voxels[[voxels[:, a].argmin(), voxels[:, a].argmax()]] for a in range(3)]])
    along = anchor.index_of(grid.at(extreme)) * np.array(anchor.spacing_mm)
    edge = 0.5 * np.abs(np.linalg.inv(anchor.affine[:3, :3]) @ grid.affine[:3, :3]).sum(axis=1) * anchor.spacing_mm
    return np.stack([along.min(axis=0) - edge, along.max(axis=0) + edge], axis=1)


def prior_grid(
    anchor: Grid,
    spacing_mm: tuple[float, float, float],
    matrix: tuple[int, int],
    head_bounds_mm: np.ndarray | None = None,
) -> Grid:
    """The grid on which the prior fills a study: the anchor's axes at the prior's resolution.

    In plane: the prior's spacing and at least its matrix, grown to multiples of 8 (what the network divides) that cover
    the head, centred on the head. Along z: the anchor's own slices when they are not much thinner than the prior's,
    else slices at the prior's distance that cover the anchor.

    Args:
        anchor: canonical grid (S, P, L).
        spacing_mm: the prior's (H, W, slice) spacing.
        matrix: the prior's (H, W).
        head_bounds_mm: (3, 2) from `head_bounds` along the anchor's axes; default: the anchor's field of view.

    Raises:
        Any2allError: the grid would be too large for any head.
    """
    size, step = np.array(anchor.shape, dtype=float), np.array(anchor.spacing_mm)
    whole = np.stack([-0.5 * step, (size - 0.5) * step], axis=1)
    bounds = whole if head_bounds_mm is None else np.asarray(head_bounds_mm, dtype=float)
    wanted = (spacing_mm[2], spacing_mm[0], spacing_mm[1])
    shape, first, spacing = [anchor.shape[0]], [0.0], [step[0]]
    if step[0] < OWN_SLICES_FROM * wanted[0]:
        shape, first, spacing = _centred(whole[0], wanted[0], 1, 1)
    for axis, least in ((1, matrix[0]), (2, matrix[1])):
        number, start, distance = _centred(bounds[axis], wanted[axis], least, NETWORK_MULTIPLE)
        shape, first, spacing = shape + number, first + start, spacing + distance
    if shape[1] * shape[2] > MOST_PIXELS or math.prod(shape) > MOST_POINTS:
        raise Any2allError(
            "the image covers far more than a head",
            key="reference",
            value=" x ".join(f"{n * d:.0f}" for n, d in zip(anchor.shape, anchor.spacing_mm)) + " mm",
            hint="is its voxel size right?",
            code="invalid_image",
        )
    return anchor.scaled((shape[0], shape[1], shape[2]), np.array(first) / step, np.array(spacing) / step)


def _centred(
    extent: np.ndarray, spacing: float, least: int, multiple: int
) -> tuple[list[int], list[float], list[float]]:
    """Number, first centre (mm) and distance (mm) of samples that cover an extent and share its centre."""
    number = max(least, math.ceil((extent[1] - extent[0]) / spacing - 1e-6))
    number = multiple * math.ceil(number / multiple)
    return [number], [float(extent.mean() - 0.5 * (number - 1) * spacing)], [spacing]


def overlap(mask_a: np.ndarray, grid_a: Grid, mask_b: np.ndarray, grid_b: Grid) -> float:
    """Dice coefficient of two head masks where both images have voxels (so a slab may cover part of a head)."""
    ones = Volume(np.ones(grid_a.shape, dtype=np.float32), grid_a)
    both = resample(ones, grid_b, antialias=False).data > 0.5
    there = (resample(Volume(mask_a, grid_a), grid_b).data > 0.5) & both
    here = np.asarray(mask_b, dtype=bool) & both
    total = int(there.sum()) + int(here.sum())
    return 2.0 * int((there & here).sum()) / total if total else 0.0


def field_of_view_overlap(a: Grid, b: Grid, points: int = 24) -> float:
    """Share of the smaller field of view that lies in the other one (on a lattice of ``points`` per axis)."""
    return max(_share_inside(a, b, points), _share_inside(b, a, points))


def _share_inside(grid: Grid, other: Grid, points: int) -> float:
    lattice = (np.stack(np.meshgrid(*[np.arange(points)] * 3, indexing="ij"), axis=-1) + 0.5) / points
    index = other.index_of(grid.at(lattice * np.array(grid.shape) - 0.5))
    return float(((index > -0.5) & (index < np.array(other.shape) - 0.5)).all(axis=-1).mean())


def check_overlap(grids: dict[str, Grid], reference: str) -> None:
    """Refuse images that do not show the same place as the reference.

    Args:
        grids: of every given modality.
        reference: name of the one that the others are compared with.

    Raises:
        Any2allError: less than 10 % of the smaller field of view is shared.
    """
    for name, grid in grids.items():
        share = field_of_view_overlap(grid, grids[reference])
        if share < LEAST_OVERLAP:
            raise Any2allError(
                f"the image does not overlap with the reference {reference}",
                key=f"modalities.{name}",
                value=f"{100 * share:.0f} % of the field of view",
                allowed=f"at least {100 * LEAST_OVERLAP:.0f} %",
                code="invalid_image",
                hint="are both of the same subject and in scanner coordinates?",
            )
