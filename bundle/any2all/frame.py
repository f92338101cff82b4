"""Where sampling happens: the prior's grid laid into a study, and the study's inputs as measurements on it (METHOD §4).

With raw data the grid covers the acquisition's own field of view, so that k-space is cropped and never resampled;
without, it is the prior's own, centred on the head. Slices that show no head are not sampled: they are air.

The first raw modality of transverse slices lends its grid. Raw data on other grids keeps its k-space as well: the
change of grid is part of its operator (`other_grids`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from .degraded import DegradedImage, degraded_channel
from .diffusion.prior import NetworkPrior, PriorCard
from .errors import Any2allError
from .geometry import Grid, Volume, canonical, head_bounds, prior_grid, resample
from .geometry.layout import NETWORK_MULTIPLE
from .inputs import GivenImage, Inputs, RawData
from .intensity import to_u
from .other_grids import crosses, crossing, elsewhere, tilt_degrees
from .physics.grids import Shape, index_map, matching_matrix
from .physics.measurements import Channel, Measurements
from .stack import Modality, Stack

LEAST_HEAD = 0.002
SPACING_TOLERANCE = 0.15
SAME_GRID = 1e-3  # mm
HEAD_RADIUS_MM = 80.0
HEAD_CUT = 0.05  # of the head; heads of several images differ by less at their edges
HEAD_BEYOND_SLICES = 2.0  # slices; less than that is a mask's own uncertainty


@dataclass(frozen=True, eq=False)
class Frame:
    """The prior's grid in a study, for the slices ``first_slice … first_slice + Z`` of ``whole``.

    ``encoded`` is the matrix that spans the acquisition's field of view at this grid's spacing, and ``anchor`` that
    acquisition's grid (both None without raw data).
    """

    grid: Grid
    whole: Grid
    first_slice: int
    encoded: Shape | None
    warnings: tuple[str, ...] = ()
    anchor: Grid | None = None

    def carries(self, raw: RawData) -> bool:
        """Whether raw data lies on the grid that this frame was laid on."""
        return self.anchor is not None and raw.grid.same_as(self.anchor, SAME_GRID)

    @property
    def slices(self) -> slice:
        return slice(self.first_slice, self.first_slice + self.grid.shape[0])


def lay_frame(inputs: Inputs, card: PriorCard) -> Frame:
    """Choose the grid.

    Raises:
        Any2allError: no head.
    """
    anchor, bounds = head_extent(inputs)
    lender = lends_its_grid(inputs)
    if lender:
        whole, encoded = _raw_frame(anchor, bounds, card)
    else:
        whole, encoded = prior_grid(anchor, card.spacing_mm, card.matrix, bounds), None
    keep = _slices_with_head(whole, _masks(inputs))
    grid = whole.scaled((len(keep), *whole.shape[1:]), np.array([keep[0], 0, 0]), np.ones(3))
    frame = Frame(grid, whole, int(keep[0]), encoded, anchor=anchor if lender else None)
    words = (*_grid_warnings(whole, card), *_coverage_warnings(inputs, grid), *_other_grid_warnings(inputs, frame))
    words = (*words, *_unmeasured_warnings(inputs, frame))
    return replace(frame, warnings=words)


def lends_its_grid(inputs: Inputs) -> RawData | None:
    """The first raw data whose slices are transverse, as the prior's are."""
    return next((item for item in inputs.raw if item.transverse), None)


def head_extent(inputs: Inputs) -> tuple[Grid, np.ndarray]:
    """The canonical grid that fixes the axes, and the head's (3, 2) extent along them in mm (see `head_bounds`).

    The median over what is given: one mask that leaks into noise does not widen it.
    """
    lender = lends_its_grid(inputs)
    anchor = lender.grid if lender else canonical(inputs.reference).grid
    bounds = np.stack([head_bounds(mask, grid, anchor) for mask, grid in _masks(inputs)])
    return anchor, np.median(bounds, axis=0)


def _masks(inputs: Inputs) -> list[tuple[np.ndarray, Grid]]:
    return [(item.mask, item.grid) for item in (*inputs.images, *inputs.degraded, *inputs.raw)]


def _raw_frame(anchor: Grid, bounds: np.ndarray, card: PriorCard) -> tuple[Grid, Shape]:
    """The prior's matrix about the centre of the acquisition's field of view, grown to hold the head."""
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
    """Where a given image ends inside the sampled slices or the head, and where raw data's slices end inside it."""
    warnings = []
    images = (*inputs.images, *inputs.degraded)
    sharp = (*inputs.images, *(i for i in inputs.degraded if i.status != "noisy")) or images  # noise widens a mask
    head = np.any([_on_grid(image.mask, image.grid, grid) for image in sharp], axis=0) if sharp else None
    for image in images:
        if isinstance(image, DegradedImage) and image.status == "lowres":
            continue
        there = _on_grid(np.ones(image.grid.shape), image.grid, grid)
        reached = there.any(axis=(1, 2))
        if not reached.all():
            unseen = int((~reached).sum())
            warnings.append(f"{image.name} does not reach {unseen} of {grid.shape[0]} slices, where it counts as air")
        cut = (head & ~there)[reached].sum() / max(head[reached].sum(), 1)
        if cut > HEAD_CUT:
            warnings.append(f"{image.name} ends inside the head: {cut:.0%} of it in its slices count as air")
    if item := lends_its_grid(inputs):
        step, count = item.grid.spacing_mm[0], item.grid.shape[0]
        others = [raw for raw in inputs.raw if raw is not item and not crosses(raw.grid, item.grid)]
        for other in (*images, *others):
            low, high = head_bounds(other.mask, other.grid, item.grid)[0]
            beyond = max(0.0, -0.5 * step - low) + max(0.0, high - (count - 0.5) * step)
            if beyond > HEAD_BEYOND_SLICES * step:
                warnings.append(
                    f"{other.name} shows {beyond:.0f} mm of head above or below {item.name}'s slices: "
                    "every output is empty there"
                )
    return tuple(warnings)


def _unmeasured_warnings(inputs: Inputs, frame: Frame) -> list[str]:
    """Where lowres images and raw data on other grids end inside the head, so that nothing was measured beyond."""
    grid, warnings = frame.grid, []
    head = np.any([_on_grid(mask, source, grid) for mask, source in _masks(inputs)], axis=0)
    lowres = [(item, item.slice_axis) for item in inputs.degraded if item.status == "lowres"]
    for item, axis in (*lowres, *((raw, 0) for raw in inputs.raw if not frame.carries(raw))):
        unseen = (head & ~between_slices(item.grid, grid, axis)).sum() / max(head.sum(), 1)
        if unseen <= HEAD_CUT:
            continue
        words = f"nothing of {item.name} was measured in {unseen:.0%} of the head, beyond its slices"
        if isinstance(item, RawData) and not crosses(item.grid, grid):
            warnings.append(f"{words}: it is empty there")
        else:
            warnings.append(f"{words}: what it shows there is synthetic, though it is called reconstructed")
    return warnings


def between_slices(grid: Grid, other: Grid, axis: int = 0) -> np.ndarray:
    """Which voxels of ``other`` lie between the first and last slice of ``grid`` along ``axis``, bool."""
    change = (np.linalg.inv(grid.affine) @ other.affine)[axis]
    place = sum(c * n for c, n in zip(change, np.ogrid[tuple(slice(n) for n in other.shape)])) + change[3]
    return (place > -0.5) & (place < grid.shape[axis] - 0.5)


def _on_grid(mask: np.ndarray, source: Grid, grid: Grid) -> np.ndarray:
    """A mask, at the voxels of another grid."""
    return resample(Volume(mask.astype(np.float32), source), grid, antialias=False).data > 0.5


def _other_grid_warnings(inputs: Inputs, frame: Frame) -> list[str]:
    """What raw data on a grid of its own means, in words."""
    warnings, step = [], frame.grid.spacing_mm[0]
    lender = lends_its_grid(inputs)
    other = lender.name if lender else "the sampled slices"
    for item in inputs.raw:
        if frame.carries(item):
            continue
        warnings.append(f"{item.name} lies on another grid than {other}: its operator changes grids")
        angle = tilt_degrees(item.grid, frame.grid)
        if crosses(item.grid, frame.grid):
            warnings.append(
                f"slices of {item.name} cross the sampled ones at {angle:.0f} degrees: they are solved as one volume"
            )
            low, high = head_bounds(item.mask, item.grid, frame.grid)[0]
            beyond = max(0.0, -0.5 * step - low) + max(0.0, high - (frame.grid.shape[0] - 0.5) * step)
            if beyond > HEAD_BEYOND_SLICES * step:
                warnings.append(
                    f"{item.name} shows {beyond:.0f} mm of head above or below the sampled slices: a classical "
                    "reconstruction stands for it there"
                )
        elif (drop := HEAD_RADIUS_MM * np.sin(np.radians(angle))) > step / 2:
            warnings.append(
                f"slices of {item.name} are tilted by {angle:.1f} degrees against {other}: while sampling they count "
                f"as parallel, wrong by up to {drop:.0f} mm at the head's edge"
            )
    return warnings


def measure(inputs: Inputs, frame: Frame, stack: Stack) -> Measurements:
    """The inputs in u on the frame's grid: images resampled and clipped to [0, 1], k-space cropped to its band."""
    channels = {image.name: _available(image, frame, stack[image.name]) for image in inputs.images}
    channels |= {image.name: degraded_channel(image, frame.grid, stack[image.name]) for image in inputs.degraded}
    for item in inputs.raw:
        if not frame.carries(item):
            channels[item.name] = (crossing if crosses(item.grid, frame.grid) else elsewhere)(item, frame.grid)
            continue
        image_shape = (frame.grid.shape[1], frame.grid.shape[2])
        channel = item.acquisition.scaled(item.scale).channel(frame.encoded, image_shape)
        channels[item.name] = channel.select(torch.arange(frame.slices.start, frame.slices.stop))
    return Measurements(tuple(channels.get(name, Channel.missing()) for name in stack.names))


def _available(image: GivenImage, frame: Frame, modality: Modality) -> Channel:
    u = to_u(image.volume.data, modality.normalisation, image.scale)
    on_grid = resample(Volume(u, image.volume.grid), frame.grid).data
    return Channel.available(torch.from_numpy(np.ascontiguousarray(on_grid)).clamp(0, 1))


def effective_resolution_mm(frame: Frame, measured: RawData | DegradedImage | None) -> tuple[float, float, float]:
    """(h, w, slice) voxel size that an output can resolve: the acquisition's where data was measured, else ours.

    Along the axes of the prior's slices, or those closest to them.

    Of a degraded image only what is finer than ours counts, and of a blurred one nothing.
    """
    grid = canonical(measured.first).grid if isinstance(measured, RawData) else frame.grid
    slice_mm, h, w = grid.spacing_mm
    if isinstance(measured, DegradedImage) and measured.status != "blurred":
        slice_mm, h, w = np.minimum(measured.grid.spacing_mm, (slice_mm, h, w)).tolist()
    return (h, w, slice_mm)


def expected_shape(frame: Frame, prior: NetworkPrior) -> tuple[int, int, int, int]:
    """(Z, M, H, W) of what is sampled."""
    return (frame.grid.shape[0], prior.channels, frame.grid.shape[1], frame.grid.shape[2])
