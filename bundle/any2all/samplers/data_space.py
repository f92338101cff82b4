r"""Vectors of data space without their coils: what the conjugate gradients of ``moment`` compute with (`consistency`).

Every vector that they meet is a share of the first residual and the image of something, q = c r + A u, where
r = y' - A x0_hat. So it is known by c, u and A^H q, one real number and two real images for each measured channel, and
nothing is ever computed coil by coil but r:

    <q, q'>   = c (c' ||r||² + <A^H r, u'>) + <u, A^H q'>
    M^-1 q    = (c, u - z) / v,   z = (A^H A + v/r_k² I)^-1 A^H q

with M = r_k² A A^H + v I, the preconditioner. In exact arithmetic it is the same as to work with q itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..physics.solve import DataConsistency
from .base import Rows


@dataclass(frozen=True)
class DataVector:
    """q of R channels for B slices: c ``share`` (B, R), u ``image`` and A^H q ``back`` (B, R, H, W)."""

    share: Tensor
    image: Tensor
    back: Tensor

    def plus(self, factor: Tensor, other: DataVector) -> DataVector:
        """q + factor q', one factor for each slice or channel, broadcast to (B, R)."""
        wide = factor[..., None, None]
        return DataVector(
            self.share + factor * other.share, self.image + wide * other.image, self.back + wide * other.back
        )


@dataclass(frozen=True)
class DataSpace:
    """The data space of the measured channels at one step.

    Attributes:
        solvers: of the R channels.
        slices: of the rows, (B,).
        energy: ||r||² (B, R).
        back: A^H r (B, R, H, W).
        prior_variance, variance: r_k² and v of each channel, (R,).
    """

    solvers: Sequence[DataConsistency]
    slices: Tensor
    energy: Tensor
    back: Tensor
    prior_variance: Tensor
    variance: Tensor

    @classmethod
    def of(cls, x0_hat: Tensor, prior_variances: dict[int, float], rows: Rows) -> DataSpace:
        """About the residual of x0_hat (B, M, H, W), with r_k² of every measured channel."""
        solvers = [rows.consistency[m] for m in prior_variances]
        found = [solver.misfit(x0_hat[:, m], rows.slices) for m, solver in zip(prior_variances, solvers)]
        return cls(
            solvers,
            rows.slices,
            torch.stack([energy for energy, _ in found], dim=1),
            torch.stack([back for _, back in found], dim=1),
            x0_hat.new_tensor(list(prior_variances.values())),
            x0_hat.new_tensor([solver.channel.variance for solver in solvers]),
        )

    def start(self) -> DataVector:
        """r itself."""
        return DataVector(torch.ones_like(self.energy), torch.zeros_like(self.back), self.back)

    def seen(self, image: Tensor) -> DataVector:
        """A u of images (B, R, H, W)."""
        back = [solver.normal(image[:, i], self.slices) for i, solver in enumerate(self.solvers)]
        return DataVector(torch.zeros_like(self.energy), image, torch.stack(back, dim=1))

    def precondition(self, q: DataVector) -> DataVector:
        """M^-1 q."""
        found = [
            solver.preconditioned(q.back[:, i], self.prior_variance[i], self.slices)
            for i, solver in enumerate(self.solvers)
        ]
        z, back = (torch.stack(images, dim=1) for images in zip(*found))
        return DataVector(q.share / self.variance, (q.image - z) / self.variance[:, None, None], back)

    def inner(self, a: DataVector, b: DataVector) -> Tensor:
        """Re <a, b> of each slice over all channels (B,)."""
        of_residual = b.share * self.energy + (self.back * b.image).sum(dim=(-2, -1))
        return (a.share * of_residual + (a.image * b.back).sum(dim=(-2, -1))).sum(dim=1)
