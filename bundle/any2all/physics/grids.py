"""Between the acquisition grid and a coarser prior grid with the SAME field of view (METHOD §4 b).

Both grids cover the same field of view, and index ``n // 2`` of both is the same physical point. Then

* restricting the data to |k| <= 1 / (2 spacing) of the prior grid is a centred *crop* of k-space, and
* A = P F S on the cropped grid models that crop: the Fourier interpolation U of "A = P F S U" and the crop cancel.

So a 1-D mask stays 1-D, A^H A keeps its block per readout row, and the exact eigen solve applies at the prior's size.
CG through an interpolation would be slower at every step, would be stopped before it converges, and a linear or cubic
U would add its own error at high k, which the data term would push into the image. What is neglected is only that
coil weighting and low-pass do not quite commute; coil maps are smooth, and the tests print the bound (< 2 %).

Where the prior's matrix covers another field of view than the acquisition's, the crop is chosen for equal pixel
spacing and ``centre_resize`` places one in the other by whole pixels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional
from torch import Tensor

Shape = tuple[int, int]


def centre_resize(x: Tensor, shape: Shape) -> Tensor:
    """Crop or zero-pad the last two dimensions so that old index ``N // 2`` lands on new index ``n // 2``.

    Its adjoint is the same call with the old shape. It serves images (whole-pixel change of the field of view) and
    centred k-space (change of resolution) alike.
    """
    if tuple(x.shape[-2:]) == tuple(shape):
        return x
    # The offset old -> new is the same for both ends' padding; negative padding crops.
    pads: list[int] = []
    for old, new in ((x.shape[-1], shape[1]), (x.shape[-2], shape[0])):
        before = new // 2 - old // 2
        pads += [before, new - old - before]
    return functional.pad(x, pads)


def matching_matrix(fov_mm: tuple[float, float], spacing_mm: tuple[float, float]) -> Shape:
    """The matrix ``(n_h, n_w)`` whose pixels over this field of view come closest to ``spacing_mm``."""
    return (max(1, round(fov_mm[0] / spacing_mm[0])), max(1, round(fov_mm[1] / spacing_mm[1])))


def intensity_scale(old: Shape, new: Shape) -> float:
    """sqrt(n_h n_w / (H W)): what orthonormal k-space is multiplied by so that image intensity is preserved."""
    return math.sqrt(new[0] * new[1] / (old[0] * old[1]))


def fourier_crop(kspace: Tensor, shape: Shape) -> Tensor:
    """Centred k-space ``(..., H, W)`` cropped (or zero-padded) to ``shape`` = (n_h, n_w), intensity preserved.

    The values are multiplied by :func:`intensity_scale`, so the image on the small grid has the intensity of the
    large one, and **the noise's standard deviation changes by the same factor** (see :func:`cropped_noise_std`).
    A mask is cropped with :func:`centre_resize`, which does not scale.
    """
    return centre_resize(kspace, shape) * intensity_scale((kspace.shape[-2], kspace.shape[-1]), shape)


def cropped_noise_std(noise_std: float, old: Shape, new: Shape) -> float:
    """The complex noise standard deviation after :func:`fourier_crop` from ``old`` to ``new``."""
    return noise_std * intensity_scale(old, new)


def index_map(old: int, new: int, fov_old: int | None = None) -> tuple[float, float]:
    """(scale, offset) with ``old_index = scale * new_index + offset``, for two grids that are aligned as above.

    Args:
        old, new: numbers of pixels of the two grids.
        fov_old: the number of OLD pixels that spans the new grid's field of view; ``old`` when both are equal.
            An affine follows from it: ``affine_new = affine_old @ [[scale, offset], [0, 1]]``, per axis.
    """
    scale = (old if fov_old is None else fov_old) / new
    return scale, old // 2 - scale * (new // 2)


def interpolation_matrix(
    old: int, new: int, order: int = 3, fov_old: int | None = None, repeat_edge: bool = False
) -> Tensor:
    """Dense 1-D interpolation weights ``(new, old)``, float64, between aligned grids (see :func:`index_map`).

    ``order`` 1 is the linear kernel, 3 the cubic convolution kernel of Keys (1981), a = -1/2, which is exact for
    quadratics. Where the new grid is coarser the kernel is widened by the ratio, which removes what the new grid
    cannot hold. Outside the old grid lies zero (air), unless ``repeat_edge``: then the old grid continues with its
    edge value, which suits coil maps.
    """
    scale, offset = index_map(old, new, fov_old)
    centres = scale * torch.arange(new, dtype=torch.float64) + offset
    width = max(scale, 1.0)
    reach = math.ceil((2 if order == 3 else 1) * width) + 1
    taps = torch.arange(-reach, reach + 1)
    sources = centres.floor().long()[:, None] + taps
    kernel = _keys if order == 3 else _triangle
    weights = kernel((sources - centres[:, None]) / width)
    weights = weights / weights.sum(dim=1, keepdim=True)
    inside = (sources >= 0) & (sources < old)
    if not repeat_edge:
        weights = weights * inside
    matrix = torch.zeros(new, old, dtype=torch.float64)
    return matrix.scatter_add_(1, sources.clamp(0, old - 1), weights)


def _triangle(distance: Tensor) -> Tensor:
    return (1 - distance.abs()).clamp_min(0)


def _keys(distance: Tensor) -> Tensor:
    d = distance.abs()
    near = 1.5 * d**3 - 2.5 * d**2 + 1
    far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


def resize_coil_maps(coil_maps: Tensor, shape: Shape) -> Tensor:
    """Coil maps ``(..., C, H, W)`` on a grid with the same field of view, antialiased cubic.

    Not a Fourier crop: maps are not periodic, and the jump at the edge of the field of view would ring into the head.
    """
    height, width = coil_maps.shape[-2:]
    if (height, width) == tuple(shape):
        return coil_maps
    rows = interpolation_matrix(height, shape[0], repeat_edge=True).to(coil_maps)
    columns = interpolation_matrix(width, shape[1], repeat_edge=True).to(coil_maps)
    return rows @ coil_maps @ columns.mT


class Interpolate:
    """U: images on a prior grid to an acquisition grid, u -> K_h u K_w^T, with its exact adjoint.

    It carries the prior's mean to the final solve of METHOD §4. Values are in u, where air is 0: what lies outside
    the source grid is air.

    Args:
        source: (n_h, n_w) of the prior grid.
        target: (H, W) of the acquisition grid.
        encoded: the matrix on the prior's pixel spacing that spans the target's field of view (the crop's shape);
            ``source`` when the prior grid spans it itself.
        order: 1 linear, 3 cubic.
    """

    def __init__(self, source: Shape, target: Shape, encoded: Shape | None = None, order: int = 3) -> None:
        encoded = source if encoded is None else encoded
        self.source, self.target = tuple(source), tuple(target)
        self.rows = interpolation_matrix(source[0], target[0], order, encoded[0])
        self.columns = interpolation_matrix(source[1], target[1], order, encoded[1])

    def forward(self, u: Tensor) -> Tensor:
        """U u: real ``(..., n_h, n_w)`` to ``(..., H, W)``."""
        return self.rows.to(u) @ u @ self.columns.to(u).mT

    def adjoint(self, u: Tensor) -> Tensor:
        """U^T u: real ``(..., H, W)`` to ``(..., n_h, n_w)``."""
        return self.rows.to(u).mT @ u @ self.columns.to(u)
