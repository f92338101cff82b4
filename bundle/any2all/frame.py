"""Where sampling happens: the prior's grid laid into a study, and the study's inputs as measurements on it (METHOD §4).

With raw data the grid covers the acquisition's own field of view, so that k-space is cropped and never resampled;
without, it is the prior's own, centred on the head. Slices that show no head are not sampled: they are air.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .diffusion.prior import NetworkPrior, PriorCard
from .errors import Any2allError
from .geometry import Grid, Volume, canonical, head_bounds, prior_grid, resample
from .geometry.layout import NETWORK_MULTIPLE
from .inputs import GivenImage, Inputs, RawData
from .intensity import to_u
from .physics.grids import Shape, index_map, matching_matrix
from .physics.measurements import Channel, Measurements
from .stack import Modality, Stack

LEAST_HEAD = 0.002
SPACING_TOLERANCE = 0.15
HEAD_BEYOND_SLICES = 2.0  # slices; less than that is a mask's own uncertainty


@dataclass(frozen=True, eq=False)
class Frame:
    """The prior's grid in a study, for the slices ``first_slice … first_slice + Z`` of ``whole``.

    ``encoded`` is the matrix that spans the acquisition's field of view at this grid's spacing (None without raw data).
    """

    grid: Grid
    whole: Grid
    first_slice: int
    encoded: Shape | None
    warnings: tuple[str, ...] = ()

    @property
    def slices(self) -> slice:
        return slice(self.first_slice, self.first_slice + self.grid.shape[0])


def lay_frame(inputs: Inputs, card: PriorCard) -> Frame:
    """Choose the grid. Raises Any2allError for raw data on different grids, which this version cannot combine."""
    anchor, bounds = head_extent(inputs)
    if inputs.raw:
        whole, encoded = _raw_frame(inputs.raw, bounds, card)
    else:
        whole, encoded = prior_grid(anchor, card.spacing_mm, card.matrix, bounds), None
    keep = _slices_with_head(whole, _masks(inputs))
    grid = whole.scaled((len(keep), *whole.shape[1:]), np.array([keep[0], 0, 0]), np.ones(3))
    return Frame(grid, whole, int(keep[0]), encoded, (*_grid_warnings(whole, card), *_coverage_warnings(inputs, grid)))


def head_extent(inputs: Inputs) -> tuple[Grid, np.ndarray]:
    """The canonical grid that fixes the axes, and the head's (3, 2) extent along them in mm (see `head_bounds`).

    The median over what is given: one mask that leaks into noise does not widen it.
    """
    anchor = inputs.raw[0].grid if inputs.raw else canonical(inputs.reference).grid
    bounds = np.stack([head_bounds(mask, grid, anchor) for mask, grid in _masks(inputs)])
    return anchor, np.median(bounds, axis=0)


def _masks(inputs: Inputs) -> list[tuple[np.ndarray, Grid]]:
    return [(i.mask, i.volume.grid) for i in inputs.images] + [(r.mask, r.grid) for r in inputs.raw]


def _raw_frame(raw: tuple[RawData, ...], bounds: np.ndarray, card: PriorCard) -> tuple[Grid, Shape]:
    """The prior's matrix about the centre of the acquisition's field of view, grown to hold the head."""
    anchor = raw[0].grid
    for item in raw[1:]:
        if not item.grid.same_as(anchor, 1e-3):
            raise Any2allError(
                f"raw data of {raw[0].name} and {item.name} lie on different grids, which is not supported yet",
                key=f"modalities.{item.name}",
                value=item.grid.shape,
                allowed=f"the grid of {raw[0].name}, {anchor.shape}",
            )
    spacing = anchor.spacing_mm
    fov = (anchor.shape[1] * spacing[1], anchor.shape[2] * spacing[2])
    encoded = matching_matrix(fov, card.spacing_mm[:2])
    shape, first, step = [anchor.shape[0]], [0.0], [1.0]
    for axis in (0, 1):
        pixel = fov[axis] / encoded[axis]
        centre = anchor.shape[axis + 1] // 2 * spacing[axis + 1]
        reach = np.abs(bounds[axis + 1] - centre).max()
        needed = min(int(np.ceil(2 * reach / pixel)) + 2, encoded[axis])
        n = max(card.matrix[axis], -(-needed // NETWORK_MULTIPLE) * NETWORK_MULTIPLE)
        scale, offset = index_map(anchor.shape[axis + 1], n, anchor.shape[axis + 1] * n / encoded[axis])
        shape, first, step = [*shape, n], [*first, offset], [*step, scale]
    return anchor.scaled((shape[0], shape[1], shape[2]), np.array(first), np.array(step)), encoded


def _slices_with_head(grid: Grid, masks: list[tuple[np.ndarray, Grid]]) -> range:
    inside = np.zeros(grid.shape[0], bool)
    for mask, source in masks:
        share = resample(Volume(mask.astype(np.float32), source), grid).data.mean(axis=(1, 2))
        inside |= share > LEAST_HEAD
    found = np.flatnonzero(inside)
    if found.size == 0:
        raise Any2allError("no head was found in the images", key="modalities", code="invalid_image")
    return range(int(found[0]), int(found[-1]) + 1)


def _grid_warnings(grid: Grid, card: PriorCard) -> tuple[str, ...]:
    warnings = []
    if any(n > m for n, m in zip(grid.shape[1:], card.matrix)):
        warnings.append(
            f"the head or field of view needs a matrix of {grid.shape[1]}×{grid.shape[2]}, larger than the "
            f"{card.matrix[0]}×{card.matrix[1]} that the prior was trained on"
        )
    ratio = np.array(grid.spacing_mm[1:]) / np.array(card.spacing_mm[:2])
    if np.abs(ratio - 1).max() > SPACING_TOLERANCE:
        h, w = grid.spacing_mm[1:]
        warnings.append(f"sampled at {h:.2f}×{w:.2f} mm, not the prior's {card.spacing_mm[:2]}")
    return tuple(warnings)


def _coverage_warnings(inputs: Inputs, grid: Grid) -> tuple[str, ...]:
    """Where a given image ends inside the sampled slices, and where it shows head beyond all slices of raw data."""
    warnings = []
    for image in inputs.images:
        there = Volume(np.ones(image.volume.grid.shape), image.volume.grid)
        unseen = int((resample(there, grid, antialias=False).data.max(axis=(1, 2)) < 0.5).sum())
        if unseen:
            warnings.append(f"{image.name} does not reach {unseen} of {grid.shape[0]} slices, where it counts as air")
    for item in inputs.raw[:1]:
        step, count = item.grid.spacing_mm[0], item.grid.shape[0]
        for image in inputs.images:
            low, high = head_bounds(image.mask, image.volume.grid, item.grid)[0]
            beyond = max(0.0, -0.5 * step - low) + max(0.0, high - (count - 0.5) * step)
            if beyond > HEAD_BEYOND_SLICES * step:
                warnings.append(
                    f"{image.name} shows {beyond:.0f} mm of head above or below the raw data's slices: "
                    "every output is empty there"
                )
    return tuple(warnings)


def measure(inputs: Inputs, frame: Frame, stack: Stack) -> Measurements:
    """The inputs in u on the frame's grid: images resampled and clipped to [0, 1], k-space cropped to its band."""
    channels = {image.name: _available(image, frame, stack[image.name]) for image in inputs.images}
    for item in inputs.raw:
        image_shape = (frame.grid.shape[1], frame.grid.shape[2])
        channel = item.acquisition.scaled(item.scale).channel(frame.encoded, image_shape)
        channels[item.name] = channel.select(torch.arange(frame.slices.start, frame.slices.stop))
    return Measurements(tuple(channels.get(name, Channel.missing()) for name in stack.names))


def _available(image: GivenImage, frame: Frame, modality: Modality) -> Channel:
    u = to_u(image.volume.data, modality.normalisation, image.scale)
    on_grid = resample(Volume(u, image.volume.grid), frame.grid).data
    return Channel.available(torch.from_numpy(np.ascontiguousarray(on_grid)).clamp(0, 1))


def effective_resolution_mm(frame: Frame, raw: RawData | None) -> tuple[float, float, float]:
    """(h, w, slice) voxel size that an output can resolve: the acquisition's where data was measured, else ours."""
    slice_mm, h, w = frame.grid.spacing_mm if raw is None else raw.grid.spacing_mm
    return (h, w, slice_mm)


def expected_shape(frame: Frame, prior: NetworkPrior) -> tuple[int, int, int, int]:
    """(Z, M, H, W) of what is sampled."""
    return (frame.grid.shape[0], prior.channels, frame.grid.shape[1], frame.grid.shape[2])
