"""A for k-space of slices that cross the prior's: y = P F S U x, x whole volumes (K, Z, h, w).

U takes the acquisition's slices out of the prior's volume, whatever their direction (see `thick_slice_weights`), and
k-space is never resampled. Every acquired slice sees many slices of the prior, so nothing can be solved slice by slice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .image_operators import VolumeMap
from .noncartesian import NonCartesianFourier
from .operators import MulticoilFourier, Operator
from .regrid import small_normal_rows


class VolumeFourier(Operator):
    """A = P F S U (or F_u S U): multi-coil k-space of slices (Zs, H, W) through volumes (Z, h, w).

    Args:
        change: U, to the images of the acquired slices.
        fourier: P F S, or F_u S of a trajectory, of these Zs slices.
        rows: Re(A^H A) of ``fourier`` by rows (see `by_rows`), or None.

    Raises:
        ValueError: U leads to images of another shape than those of ``fourier``.
    """

    couples_slices = True

    def __init__(
        self, change: VolumeMap, fourier: MulticoilFourier | NonCartesianFourier, rows: Tensor | None = None
    ) -> None:
        if fourier.image_shape != change.target[1:]:
            raise ValueError(f"k-space of {fourier.image_shape} does not fit slices of {change.target}")
        self.change, self.fourier, self.rows = change, fourier, rows
        self.image_shape = change.image_shape

    def forward(self, x: Tensor) -> Tensor:
        """P F S U x, complex ``(K, Zs, C, H, W)``."""
        return torch.stack([self.fourier.forward(slices) for slices in self.change.forward(x)])

    def adjoint(self, y: Tensor) -> Tensor:
        """U^T Re(S^H F^H P y), real ``(K, Z, h, w)``."""
        return self.change.adjoint(torch.stack([self.fourier.adjoint(slices) for slices in y]))

    def normal(self, x: Tensor) -> Tensor:
        """U^T Re(S^H F^H P F S) U x, without Fourier transforms where rows are known."""
        moved = self.change.forward(x)
        if self.rows is None:
            return self.change.adjoint(torch.stack([self.fourier.normal(slices) for slices in moved]))
        return self.change.adjoint((self.rows.to(x.dtype) @ moved[..., None])[..., 0])

    def by_rows(self) -> VolumeFourier:
        """The same operator with `normal` by rows: for masks 1-D along W, where memory allows."""
        return VolumeFourier(self.change, self.fourier, small_normal_rows(self.fourier))

    def to(self, device: torch.device | str) -> VolumeFourier:
        """The same operator with its tensors on ``device``."""
        rows = None if self.rows is None else self.rows.to(device)
        return VolumeFourier(self.change.to(device), self.fourier.to(device), rows)
