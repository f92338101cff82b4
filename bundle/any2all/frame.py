"""Where sampling happens: the prior's grid laid into a study, and the study's inputs as measurements on it (METHOD §4).

With raw data the grid covers the acquisition's own field of view, so that k-space is cropped and never resampled;
without, it is the prior's own, centred on the head. Slices that show no head are not sampled: they are air.

The first raw modality lends its grid. Raw data on other grids keeps its k-space as well: the change of grid is part of
its operator (`elsewhere`).
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
from .physics.grids import Shape, index_map, matching_matrix
from .physics.measurements import Channel, Measurements
from .physics.regrid import InPlaneChange, RegriddedFourier
from .stack import Modality, Stack

LEAST_HEAD = 0.002
SPACING_TOLERANCE = 0.15
SAME_GRID = 1e-3  # mm
SAME_PLANE = 0.02  # of a voxel
MOST_TILT_DEGREES = 20
HEAD_RADIUS_MM = 80.0
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
        Any2allError: no head, or raw data whose slices cross those of the first raw data.
    """
    anchor, bounds = head_extent(inputs)
    if inputs.raw:
        whole, encoded = _raw_frame(anchor, bounds, card)
    else:
        whole, encoded = prior_grid(anchor, card.spacing_mm, card.matrix, bounds), None
    keep = _slices_with_head(whole, _masks(inputs))
    grid = whole.scaled((len(keep), *whole.shape[1:]), np.array([keep[0], 0, 0]), np.ones(3))
    frame = Frame(grid, whole, int(keep[0]), encoded, anchor=anchor if inputs.raw else None)
    words = (*_grid_warnings(whole, card), *_coverage_warnings(inputs, grid), *_other_grid_warnings(inputs, frame))
    return replace(frame, warnings=words)


def head_extent(inputs: Inputs) -> tuple[Grid, np.ndarray]:
    """The canonical grid that fixes the axes, and the head's (3, 2) extent along them in mm (see `head_bounds`).

    The median over what is given: one mask that leaks into noise does not widen it.
    """
    anchor = inputs.raw[0].grid if inputs.raw else canonical(inputs.reference).grid
    bounds = np.stack([head_bounds(mask, grid, anchor) for mask, grid in _masks(inputs)])
    return anchor, np.median(bounds, axis=0)


def _masks(inputs: Inputs) -> list[tuple[np.ndarray, Grid]]:
    images = (*inputs.images, *inputs.degraded)
    return [(i.mask, i.volume.grid) for i in images] + [(r.mask, r.grid) for r in inputs.raw]


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
    """Where a given image ends inside the sampled slices, and where it shows head beyond all slices of raw data."""
    warnings = []
    for image in (*inputs.images, *(i for i in inputs.degraded if i.status != "lowres")):
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


def _other_grid_warnings(inputs: Inputs, frame: Frame) -> list[str]:
    """What raw data on a grid of its own means, in words; slices that cross the frame's too steeply are refused."""
    warnings = []
    for item in inputs.raw:
        if frame.carries(item):
            continue
        normals = [np.cross(g.affine[:3, 1], g.affine[:3, 2]) for g in (frame.grid, item.grid)]
        cosine = abs(normals[0] @ normals[1]) / (np.linalg.norm(normals[0]) * np.linalg.norm(normals[1]))
        angle = float(np.degrees(np.arccos(min(cosine, 1.0))))
        if angle > MOST_TILT_DEGREES:
            raise Any2allError(
                f"the slices of {item.name} cross those of {inputs.raw[0].name}",
                key=f"modalities.{item.name}",
                value=f"{angle:.0f} degrees",
                allowed=f"at most {MOST_TILT_DEGREES} degrees",
            )
        warnings.append(f"{item.name} lies on another grid than {inputs.raw[0].name}: its operator changes grids")
        if (drop := HEAD_RADIUS_MM * np.sin(np.radians(angle))) > frame.grid.spacing_mm[0] / 2:
            warnings.append(
                f"slices of {item.name} are tilted by {angle:.1f} degrees against those of {inputs.raw[0].name}: "
                f"while sampling they count as parallel, wrong by up to {drop:.0f} mm at the head's edge"
            )
    return warnings


def measure(inputs: Inputs, frame: Frame, stack: Stack) -> Measurements:
    """The inputs in u on the frame's grid: images resampled and clipped to [0, 1], k-space cropped to its band."""
    channels = {image.name: _available(image, frame, stack[image.name]) for image in inputs.images}
    channels |= {image.name: degraded_channel(image, frame.grid, stack[image.name]) for image in inputs.degraded}
    for item in inputs.raw:
        if not frame.carries(item):
            channels[item.name] = elsewhere(item, frame)
            continue
        image_shape = (frame.grid.shape[1], frame.grid.shape[2])
        channel = item.acquisition.scaled(item.scale).channel(frame.encoded, image_shape)
        channels[item.name] = channel.select(torch.arange(frame.slices.start, frame.slices.stop))
    return Measurements(tuple(channels.get(name, Channel.missing()) for name in stack.names))


def elsewhere(item: RawData, frame: Frame) -> Channel:
    """Raw data on a grid of its own, as a channel of the frame's slices: A = P F S U, k-space cropped as ever.

    Between two acquired slices a slice of the frame sees both, each by its own coils and k-space, weighted by w and
    1 - w: min_u w |y_1 - A_1 u|^2 + (1 - w) |y_2 - A_2 u|^2, whose solution, were all of k-space sampled, is the linear
    interpolation of the two images. Where nothing was acquired the operator is zero.
    """
    spacing, shape = item.grid.spacing_mm, item.grid.shape
    fov = (shape[1] * spacing[1], shape[2] * spacing[2])
    encoded = matching_matrix(fov, (frame.grid.spacing_mm[1], frame.grid.spacing_mm[2]))
    channel = item.acquisition.scaled(item.scale).channel(encoded)
    (step_h, first_h), (step_w, first_w) = (index_map(shape[axis + 1], encoded[axis]) for axis in (0, 1))
    coarse = item.grid.scaled((shape[0], *encoded), np.array([0, first_h, first_w]), np.array([1, step_h, step_w]))
    places = _plane_of_each_slice(frame.grid, coarse)
    weights, neighbours = _two_nearest(places, shape[0])
    fourier = channel.operator
    parts = [(w.sqrt()[:, None, None, None], index) for w, index in zip(weights, neighbours) if (w > 0).any()]
    maps = torch.cat([w * fourier.select(index).coil_maps for w, index in parts], dim=1)
    data = torch.cat([w * channel.data[index] for w, index in parts], dim=1)
    change = InPlaneChange(_in_plane(frame.grid, coarse, places), (frame.grid.shape[1], frame.grid.shape[2]), encoded)
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


def _available(image: GivenImage, frame: Frame, modality: Modality) -> Channel:
    u = to_u(image.volume.data, modality.normalisation, image.scale)
    on_grid = resample(Volume(u, image.volume.grid), frame.grid).data
    return Channel.available(torch.from_numpy(np.ascontiguousarray(on_grid)).clamp(0, 1))


def effective_resolution_mm(frame: Frame, measured: RawData | DegradedImage | None) -> tuple[float, float, float]:
    """(h, w, slice) voxel size that an output can resolve: the acquisition's where data was measured, else ours.

    Of a degraded image only what is finer than ours counts, and of a blurred one nothing.
    """
    slice_mm, h, w = measured.grid.spacing_mm if isinstance(measured, RawData) else frame.grid.spacing_mm
    if isinstance(measured, DegradedImage) and measured.status != "blurred":
        slice_mm, h, w = np.minimum(measured.grid.spacing_mm, (slice_mm, h, w)).tolist()
    return (h, w, slice_mm)


def expected_shape(frame: Frame, prior: NetworkPrior) -> tuple[int, int, int, int]:
    """(Z, M, H, W) of what is sampled."""
    return (frame.grid.shape[0], prior.channels, frame.grid.shape[1], frame.grid.shape[2])
