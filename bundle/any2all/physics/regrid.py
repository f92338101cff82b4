"""A for k-space on a grid of its own: y = P F S U x, U the change from the prior's slices to the acquisition's.

U moves, turns and scales within a slice; k-space is never resampled. Rows of a batch stay independent, as the samplers
need: every slice of the prior is paired with one slice of the acquisition, whose plane is taken for its own. How far
apart the two planes are is for the caller to say.

U is interpolation by Lanczos' kernel with three lobes: unlike linear and cubic ones it keeps the high frequencies,
which the data term would otherwise push back into the image.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .eigenbasis import normal_rows
from .grids import Shape
from .noncartesian import NonCartesianFourier
from .operators import MulticoilFourier, Operator

LOBES = 3
_MOST_ROW_BYTES = 2**30


class InPlaneChange(Operator):
    """U: real slices ``(B, h, w)`` to ``(B, H, W)`` by an affine map of indices, with its exact adjoint.

    Args:
        maps: ``(1 | B, 2, 3)``: (h, w) = maps @ (H, W, 1), source indices of a target pixel; 1 in front: one for all.
        source, target: (h, w) and (H, W). Outside of the source lies zero.
        dtype: of the weights.
    """

    def __init__(self, maps: Tensor, source: Shape, target: Shape, dtype: torch.dtype = torch.float32) -> None:
        self.source, self.target = tuple(source), tuple(target)
        pixels = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in target))
        places = maps.to(torch.float64) @ torch.cat([pixels, torch.ones(len(pixels), 1, dtype=torch.float64)], 1).mT
        # Where the target is coarser the kernel is widened: it removes what the target cannot hold.
        widths = maps[0, :, :2].to(torch.float64).norm(dim=1).clamp_min(1)
        rows, row_weights = _taps(places[:, 0], source[0], float(widths[0]))
        columns, column_weights = _taps(places[:, 1], source[1], float(widths[1]))
        self._index = (rows[..., :, None] * source[1] + columns[..., None, :]).flatten(2)
        self._weights = (row_weights[..., :, None] * column_weights[..., None, :]).flatten(2).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """U x. A single slice goes to as many as there are maps."""
        batch = max(len(x), len(self._index))
        flat, index = x.flatten(1).expand(batch, -1), self._index.expand(batch, -1, -1)
        taken = flat.gather(1, index.flatten(1)).reshape(index.shape)
        return (taken * self._weights.to(x.dtype)).sum(2).reshape(batch, *self.target)

    def adjoint(self, y: Tensor) -> Tensor:
        """U^T y."""
        index = self._index.expand(len(y), -1, -1).flatten(1)
        spread = (y.flatten(1)[..., None] * self._weights.to(y.dtype)).flatten(1)
        zero = torch.zeros(len(y), self.source[0] * self.source[1], dtype=y.dtype, device=y.device)
        return zero.scatter_add(1, index, spread).reshape(len(y), *self.source)

    def select(self, slices: Tensor) -> InPlaneChange:
        """The change of these slices; one map for all stays shared."""
        if len(self._index) == 1:
            return self
        return self._with(self._index[slices.to(self._index.device)], self._weights[slices.to(self._index.device)])

    def to(self, device: torch.device | str) -> InPlaneChange:
        """The same change with its tensors on ``device``."""
        return self._with(self._index.to(device), self._weights.to(device))

    def _with(self, index: Tensor, weights: Tensor) -> InPlaneChange:
        other = object.__new__(InPlaneChange)
        other.source, other.target, other._index, other._weights = self.source, self.target, index, weights
        return other


class RegriddedFourier(Operator):
    """A = P F S U (or F_u S U): multi-coil k-space of slices that lie on another grid than x.

    Args:
        change: U.
        fourier: P F S, or F_u S of a trajectory, on the acquisition's grid, ``change.target``.
        rows: Re(A^H A) of ``fourier`` by rows (see `by_rows`), or None.
    """

    def __init__(
        self, change: InPlaneChange, fourier: MulticoilFourier | NonCartesianFourier, rows: Tensor | None = None
    ) -> None:
        if fourier.image_shape != change.target:
            raise ValueError(f"k-space of {fourier.image_shape} does not fit images of {change.target}")
        self.change, self.fourier, self.rows = change, fourier, rows
        self.image_shape = change.source

    def forward(self, x: Tensor) -> Tensor:
        """P F S U x, complex ``(B, C, H, W)``."""
        return self.fourier.forward(self.change.forward(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """U^T Re(S^H F^H P y), real ``(B, h, w)``."""
        return self.change.adjoint(self.fourier.adjoint(y))

    def normal(self, x: Tensor) -> Tensor:
        """U^T Re(S^H F^H P F S) U x: what conjugate gradients call, without Fourier transforms where rows are known."""
        if self.rows is None:
            return self.change.adjoint(self.fourier.normal(self.change.forward(x)))
        moved = self.change.forward(x)
        return self.change.adjoint((self.rows.to(x.dtype) @ moved[..., None])[..., 0])

    def by_rows(self) -> RegriddedFourier:
        """The same operator with `normal` by rows, three times as fast: for masks 1-D along W, where memory allows."""
        return RegriddedFourier(self.change, self.fourier, small_normal_rows(self.fourier))

    def select(self, slices: Tensor) -> RegriddedFourier:
        """The operator of these slices."""
        rows = self.rows
        if rows is not None and len(rows) > 1:
            rows = rows[slices.to(rows.device)]
        return RegriddedFourier(self.change.select(slices), self.fourier.select(slices), rows)

    def to(self, device: torch.device | str) -> RegriddedFourier:
        """The same operator with its tensors on ``device``."""
        rows = None if self.rows is None else self.rows.to(device)
        return RegriddedFourier(self.change.to(device), self.fourier.to(device), rows)


def small_normal_rows(fourier: MulticoilFourier | NonCartesianFourier) -> Tensor | None:
    """`normal_rows` of k-space whose mask is 1-D along W, unless they would take more than 1 GiB; else None."""
    if not isinstance(fourier, MulticoilFourier):
        return None
    slices = max(len(fourier.mask), len(fourier.coil_maps))
    (height, width), real = fourier.encoded_shape, fourier.coil_maps.real
    small = slices * height * width**2 * real.element_size() <= _MOST_ROW_BYTES
    return normal_rows(fourier) if small and fourier.is_phase_encoded_along_w else None


def _taps(centres: Tensor, size: int, width: float) -> tuple[Tensor, Tensor]:
    """Source indices ``(..., T)`` about fractional ``centres`` and their weights, which are zero outside the source."""
    reach = math.ceil(LOBES * width)
    taps = torch.arange(1 - reach, reach + 1)
    index = centres.floor().long()[..., None] + taps
    distance = (index - centres[..., None]) / width
    weights = torch.sinc(distance) * torch.sinc(distance / LOBES) * (distance.abs() < LOBES)
    weights = weights / weights.sum(-1, keepdim=True)
    weights = weights * ((index >= 0) & (index < size))
    return index.clamp(0, size - 1), weights
