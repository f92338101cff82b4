"""Images that were given, but noisy, blurred, or of thick slices or large pixels: y = A u + e with a known A.

Here such an image is read, its noise found, and made a measurement on the prior's grid. What its own grid holds beyond
the prior's comes back in `detail`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy import ndimage

from .errors import Any2allError
from .geometry import Grid, Volume, resample
from .intensity import head_mask, scale_of, to_u, unit_doubts
from .physics.image_operators import SeparableBlur, VolumeMap
from .physics.measurements import Channel
from .physics.operators import Identity
from .physics.thick_slices import thick_slice_weights
from .stack import Modality
from .study import ModalitySpec
from .study.document import DegradedStatus

LEAST_NOISE_U = 1e-3
_LAPLACIAN = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6  # unit norm; planes and saddles vanish
_MAD = 0.6745  # of a standard normal
_WINDOW = 5  # voxels across, of the local variance in `detail`


@dataclass(frozen=True, eq=False)
class DegradedImage:
    """A degraded image. ``volume`` is canonical and in the reference's world; ``scale`` is its units per u.

    ``noise_std`` is in its own units, ``psf_fwhm_mm`` along its own (canonical) axes, where it is blurred.
    """

    name: str
    status: DegradedStatus
    volume: Volume
    mask: np.ndarray
    scale: float
    noise_std: float
    psf_fwhm_mm: tuple[float, float, float] | None = None
    slice_profile: Literal["box", "gaussian"] = "box"

    @property
    def grid(self) -> Grid:
        return self.volume.grid

    @property
    def slice_axis(self) -> int:
        """The axis along which the voxels are longest."""
        return int(np.argmax(self.grid.spacing_mm))


def read_degraded(modality: ModalitySpec, volume: Volume, stack_modality: Modality) -> tuple[DegradedImage, list[str]]:
    """A canonical image as its study says it is, and what the user should know of it.

    Raises:
        Any2allError: no head, or no noise to be found in it.
    """
    mask, notes, key = head_mask(volume.data), [], f"modalities.{modality.name}"
    try:
        scale = scale_of(volume.data, mask, stack_modality.normalisation)
    except Any2allError as error:
        raise Any2allError(error.message, key=f"{key}.file", hint=error.hint, code=error.code) from None
    notes += unit_doubts(volume.data, mask, stack_modality)
    noise_std = modality.noise_std
    if noise_std is None:
        noise_std = estimated_noise_std(volume.data, mask)
        notes.append(f"{modality.name}: noise_std was estimated from the image: {noise_std:.4g} in its units")
    if stack_modality.normalisation.kind == "piecewise" and modality.status != "noisy":
        notes.append(
            f"{modality.name}: the {modality.status} model holds where {stack_modality.units} and the prior's range "
            "are proportional, so not across the edge of bone"
        )
    psf = modality.psf_fwhm_mm
    image = DegradedImage(
        modality.name,
        modality.status,
        volume,
        mask,
        scale,
        noise_std,
        None if psf is None else (psf[2], psf[1], psf[0]),
        modality.slice_profile,
    )
    return image, notes


def estimated_noise_std(data: np.ndarray, mask: np.ndarray) -> float:
    """The std of white noise, in the image's units, from the median magnitude of a Laplacian inside the head.

    The kernel is Immerkær's (1996), in whose place his mean is a median, as Donoho and Johnstone (1994) take it of
    wavelets: edges are few. Texture counts as noise, and noise that was smoothed counts as less than it is.
    """
    differences = ndimage.convolve(data, _LAPLACIAN[None], mode="nearest")
    inside = ndimage.binary_erosion(mask, np.ones((1, 3, 3), bool))
    return float(np.median(np.abs(differences[inside if inside.any() else mask])) / _MAD)


def degraded_channel(image: DegradedImage, grid: Grid, modality: Modality) -> Channel:
    """The image as a measurement of the slices of ``grid``, in u and not clipped: noise goes below zero.

    A noisy or blurred image is brought to ``grid`` as a given one is (low-pass filter and blur commute); a lowres one
    keeps its slices, and in them its pixels unless they are smaller than the prior's.
    """
    target = _coarse(image, grid) if image.status == "lowres" else grid
    u = resample(Volume(to_u(image.volume.data, modality.normalisation, image.scale), image.grid), target).data
    noise_std = noise_in_u(image, target, modality)
    data = torch.from_numpy(np.ascontiguousarray(u))
    if image.status == "noisy":
        return Channel.degraded(Identity(), data, noise_std)
    if image.status == "blurred":
        return Channel.degraded(SeparableBlur(grid.shape, psf_in_voxels(image, grid)), data[None], noise_std)
    change = np.linalg.inv(grid.affine) @ target.affine
    weights = thick_slice_weights(
        change, grid.shape, target.shape, image.slice_axis, grid.spacing_mm, image.slice_profile
    )
    told = torch.from_numpy(np.diff(weights.indptr) > 0).reshape(target.shape)
    return Channel.degraded(VolumeMap(weights, grid.shape, target.shape), (data * told)[None], noise_std)


def psf_in_voxels(image: DegradedImage, grid: Grid) -> tuple[float, float, float]:
    """Full widths of the point-spread function along the axes of ``grid``, in its voxels.

    Where the axes are turned against the image's, the widths follow the diagonal of the turned covariance.
    """
    directions = [g.affine[:3, :3] / np.array(g.spacing_mm) for g in (grid, image.grid)]
    cosines = directions[0].T @ directions[1]
    widths = np.sqrt(cosines**2 @ np.square(image.psf_fwhm_mm)) / np.array(grid.spacing_mm)
    return float(widths[0]), float(widths[1]), float(widths[2])


def in_plane_like(grid: Grid, other: Grid, slice_axis: int | None) -> Grid:
    """``grid`` with voxels no smaller than the smallest of ``other``; along ``slice_axis`` it stays as it is."""
    least = min(other.spacing_mm[1:])
    shape, first, step = list(grid.shape), np.zeros(3), np.ones(3)
    for axis, (size, spacing) in enumerate(zip(grid.shape, grid.spacing_mm)):
        if axis != slice_axis and spacing < least:
            shape[axis], step[axis] = max(1, round(size * spacing / least)), least / spacing
            first[axis] = (size - 1 - (shape[axis] - 1) * step[axis]) / 2
    return grid.scaled((shape[0], shape[1], shape[2]), first, step)


def noise_in_u(image: DegradedImage, target: Grid, modality: Modality) -> float:
    """The std in u, inside the head, of the image's noise once it has gone the same way to ``target``."""
    change = resample(_noise_volume(image, modality), target).data
    mask = resample(Volume(image.mask, image.grid), target, antialias=False).data > 0.5
    return max(float(change[mask if mask.any() else slice(None)].std()), LEAST_NOISE_U)


def _noise_volume(image: DegradedImage, modality: Modality) -> Volume:
    """What white noise of the image's std (drawn, seeded) changes in u, on the image's own grid."""
    noise = np.random.default_rng(0).standard_normal(image.grid.shape, np.float32) * image.noise_std
    clean, normalisation = image.volume.data, modality.normalisation
    return Volume(to_u(clean + noise, normalisation, image.scale) - to_u(clean, normalisation, image.scale), image.grid)


def has_detail(image: DegradedImage, grid: Grid) -> bool:
    """Whether the image's voxels are smaller than the prior's; what is blurred shows nothing of that size."""
    return image.status != "blurred" and _coarse(image, grid).shape != image.grid.shape


def detail(image: DegradedImage, grid: Grid, modality: Modality, samples: int, seed: int) -> Iterator[np.ndarray]:
    """What the image shows beyond the prior's ``grid``, in u on the image's own grid, once for each sample.

    The high band h = y - L y, L the way to the prior's voxel size and back, is weighed by the local Wiener filter
    w = max(var h - n², 0) / var h (Lee, 1980), n² being the noise's own share of the band. What this leaves open, w n²,
    is drawn; the draws add up to zero, so that the mean of the samples is w h, and keep their variance.
    """
    coarse = _coarse(image, grid)
    u = Volume(to_u(image.volume.data, modality.normalisation, image.scale), image.grid)
    noise_variance = float(_beyond(_noise_volume(image, modality), coarse)[image.mask].var())
    high, spacing = _beyond(u, coarse), np.array(image.grid.spacing_mm)
    variance = ndimage.uniform_filter(high**2, [_WINDOW if mm < 1.5 * spacing.min() else 1 for mm in spacing])
    weight = np.maximum(variance - noise_variance, 0) / np.maximum(variance, 1e-12)

    def draw(number: int) -> np.ndarray:
        return np.random.default_rng([seed, number]).standard_normal(high.shape, np.float32)

    centre = sum(draw(number) for number in range(samples)) / samples
    spread = np.sqrt(weight * noise_variance * samples / max(samples - 1, 1))
    for number in range(samples):
        yield weight * high + spread * (draw(number) - centre)


def _coarse(image: DegradedImage, grid: Grid) -> Grid:
    """The image's grid with voxels no smaller than the prior's; a lowres image keeps its slices."""
    return in_plane_like(image.grid, grid, image.slice_axis if image.status == "lowres" else None)


def _beyond(volume: Volume, coarse: Grid) -> np.ndarray:
    """The part of a volume that ``coarse`` cannot hold, on its own grid."""
    return volume.data - resample(resample(volume, coarse), volume.grid, order=3).data
