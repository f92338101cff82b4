"""Data-consistency solves for one channel (METHOD §3 and §4)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

from .cg import conjugate_gradient
from .eigenbasis import RowEigenbasis
from .image_operators import SeparableBlur, VolumeMap
from .measurements import Channel
from .operators import Identity, Missing, MulticoilFourier, Operator
from .volume_fourier import VolumeFourier

__all__ = ["DataConsistency", "RowEigenbasis", "conjugate_gradient", "final_solve"]

# The outer conjugate gradients of moment matching lose conjugacy with a looser inner solve (METHOD §3).
_INNER_TOLERANCE = 1e-6
_INNER_ITERATIONS = 300


class DataConsistency:
    """Everything that is solved with one channel's A and y; made once, used at every step and for every gamma.

    Where A is :class:`MulticoilFourier` with a mask that is 1-D along W, solves are exact through
    :class:`RowEigenbasis`; the bases are made when a slice is first met and kept (all slices share one where they
    share mask and maps). The identity and a blur have closed forms. Everything else goes by conjugate gradients.
    An operator that couples slices knows one "slice", 0, which is its whole volume: images are then (B, Z, H, W).

    Args:
        channel: A, y and the noise, in whichever range the images are.
        exact: None chooses as said above; False forces conjugate gradients (the paper's MDS takes 5 iterations).
        iterations, tolerance: limits of the conjugate gradients.
        cache_bytes: how much memory bases of single slices may hold together.
        slice_correlation: of x0's errors in neighbouring slices, for a :class:`VolumeMap` or :class:`VolumeFourier`:
            what thick or crossing slices say of several of them is then shared out smoothly along z.

    Raises:
        ValueError: if ``exact`` is asked of an operator that has no row eigenbasis.
    """

    def __init__(
        self,
        channel: Channel,
        exact: bool | None = None,
        iterations: int = 50,
        tolerance: float = 1e-4,
        cache_bytes: int = 2 * 2**30,
        slice_correlation: float = 0.0,
    ) -> None:
        operator = channel.operator
        possible = isinstance(operator, Identity | Missing | SeparableBlur) or (
            isinstance(operator, MulticoilFourier) and operator.is_phase_encoded_along_w
        )
        if exact and not possible:
            raise ValueError("the exact solve needs a mask that is 1-D along W")
        self.channel = channel
        self.exact = possible if exact is None else exact
        self.iterations, self.tolerance, self.cache_bytes = iterations, tolerance, cache_bytes
        self._factor = None
        if slice_correlation > 0 and isinstance(operator, VolumeMap | VolumeFourier):
            self._factor = _correlation_factor(operator.image_shape[0], slice_correlation)
        self._bases: OrderedDict[int, RowEigenbasis] = OrderedDict()
        self._backprojection = None if channel.data is None else _backproject(channel)

    def proximal(self, x0: Tensor, gamma: float | Tensor, slices: Tensor | None = None) -> Tensor:
        """argmin_x gamma/2 ||y - A x||^2 + 1/2 ||x - x0||^2, i.e. (I + gamma A^H A) x = x0 + gamma A^H y.

        Args:
            x0: ``(B, H, W)``.
            gamma: one number, or one per sample ``(B,)``; r^2 / v for a prior error r^2 and noise v.
            slices: which slice of the channel each sample is, ``(B,)``; 0 .. B-1 by default. A slice may repeat.

        Returns:
            ``(B, H, W)``.
        """
        if self._backprojection is None:
            return x0
        slices, gamma = self._prepare(x0, gamma, slices)
        if self._factor is not None:
            return self._correlated(x0, per_slice(gamma, x0))
        rhs = x0 + per_slice(gamma, x0) * self._backprojection[slices]
        return self._solve(rhs, gamma, slices, x0, self.iterations, self.tolerance)

    def misfit(self, x: Tensor, slices: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """||y - A x||^2 ``(B,)`` and A^H (y - A x) ``(B, H, W)`` of images ``(B, H, W)``, slices as in `proximal`."""
        slices = self._indices(x, slices)
        operator = self._operator(slices)
        residual = self.channel.data[slices] - operator.forward(x)
        energy = _energy(residual)
        if not self._has_rows:
            return energy, operator.adjoint(residual)
        return energy, self._backprojection[slices] - self.normal(x, slices)

    def normal(self, x: Tensor, slices: Tensor | None = None) -> Tensor:
        """A^H A x ``(B, H, W)``; through the row eigenbasis, without a coil image, where there is one."""
        slices = self._indices(x, slices)
        if not self._has_rows:
            return self._operator(slices).normal(x)
        return self._by_basis(slices, x, lambda basis, part, _: basis.normal(part))

    def preconditioned(
        self, back: Tensor, prior_variance: float | Tensor, slices: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """M^-1 q for M = r^2 A A^H + v I, the preconditioner of moment matching (METHOD §3), from A^H q alone.

        M^-1 q = (q - A z) / v with z = (A^H A + v/r^2 I)^-1 A^H q, A^H meaning Re(A^H .).

        Args:
            back: A^H q ``(B, H, W)``.
            prior_variance: r^2 >= 0, one number or one per sample ``(B,)``; v is the channel's own.
            slices: as in :meth:`proximal`.

        Returns:
            z and A^H M^-1 q, both ``(B, H, W)``.

        Raises:
            ValueError: if the channel's noise variance is zero.
        """
        variance = self.channel.variance
        if variance <= 0:
            raise ValueError("preconditioned needs a positive noise variance")
        slices, gamma = self._prepare(back, prior_variance, slices)
        gamma = gamma / variance
        solved = self._solve(back, gamma, slices, None, _INNER_ITERATIONS, _INNER_TOLERANCE)
        z = per_slice(gamma, solved) * solved
        # `solved` is A^H (q - A z) itself; what conjugate gradients leave of it is too coarse to go on with
        return z, (solved if self.exact else back - self.normal(z, slices)) / variance

    def _prepare(self, image: Tensor, gamma: float | Tensor, slices: Tensor | None) -> tuple[Tensor, Tensor]:
        gamma = torch.as_tensor(gamma, dtype=image.dtype, device=image.device).expand(image.shape[0])
        return self._indices(image, slices), gamma

    def _indices(self, image: Tensor, slices: Tensor | None) -> Tensor:
        return torch.arange(image.shape[0], device=image.device) if slices is None else slices.to(image.device)

    def _operator(self, slices: Tensor) -> Operator:
        """A of these slices."""
        return self.channel.operator.select(slices)

    @property
    def _has_rows(self) -> bool:
        return self.exact and isinstance(self.channel.operator, MulticoilFourier)

    def _correlated(self, x0: Tensor, gamma: Tensor) -> Tensor:
        """The same with 1/2 ||x - x0||^2 in the metric R^-1, R = L L^T along z: x = x0 + L e, and e by CG."""
        operator, factor = self.channel.operator, self._factor.to(x0)

        def system(e: Tensor) -> Tensor:
            return e + gamma * _along_z(factor.mT, operator.normal(_along_z(factor, e)))

        residual = self.channel.data - operator.forward(x0)
        rhs = gamma * _along_z(factor.mT, operator.adjoint(residual))
        return x0 + _along_z(factor, conjugate_gradient(system, rhs, None, self.iterations, self.tolerance))

    def _solve(
        self, rhs: Tensor, gamma: Tensor, slices: Tensor, start: Tensor | None, iterations: int, tolerance: float
    ) -> Tensor:
        """(I + gamma A^H A)^-1 rhs."""
        operator = self.channel.operator
        if isinstance(operator, Missing):
            return rhs
        if self.exact and isinstance(operator, Identity):
            return rhs / (1 + per_slice(gamma, rhs))
        if self.exact and isinstance(operator, SeparableBlur):
            return operator.shifted_inverse(rhs, gamma)
        if self.exact:
            return self._by_basis(slices, rhs, lambda basis, part, members: basis.solve(part, gamma[members]))
        chosen = self._operator(slices)
        return conjugate_gradient(
            lambda x: x + per_slice(gamma, x) * chosen.normal(x),
            rhs,
            start,
            iterations,
            tolerance,
            chosen.preconditioner(gamma),
        )

    def _by_basis(
        self, slices: Tensor, x: Tensor, apply: Callable[[RowEigenbasis, Tensor, Tensor | slice], Tensor]
    ) -> Tensor:
        """``apply(basis, images, which of x they are)`` to the images of every slice, each with its own basis."""
        if self.channel.operator.shared:
            return apply(self._basis(0), x, slice(None))
        result = torch.empty_like(x)
        for index in slices.unique().tolist():
            members = slices == index
            result[members] = apply(self._basis(index), x[members], members)
        return result

    def _basis(self, index: int) -> RowEigenbasis:
        """The slice's basis, made now or kept; the least recently used ones leave when memory is short."""
        if index not in self._bases:
            self._bases[index] = RowEigenbasis.of(self.channel.operator.select(torch.tensor([index])))
            while len(self._bases) > 1 and sum(b.nbytes for b in self._bases.values()) > self.cache_bytes:
                self._bases.popitem(last=False)
        self._bases.move_to_end(index)
        return self._bases[index]


def _correlation_factor(slices: int, correlation: float) -> Tensor:
    """L with (L L^T)_ij = correlation^|i - j|, (Z, Z) float64."""
    index = torch.arange(slices, dtype=torch.float64)
    return torch.linalg.cholesky(correlation ** (index[:, None] - index).abs())


def _energy(data: Tensor) -> Tensor:
    """||data||^2 of each slice (B,)."""
    parts = torch.view_as_real(data) if data.is_complex() else data
    return parts.square().flatten(1).sum(1)


def _along_z(matrix: Tensor, x: Tensor) -> Tensor:
    """A matrix over the slices of (K, Z, H, W)."""
    return torch.einsum("az,kzhw->kahw", matrix, x)


def per_slice(scalar: Tensor, tensor: Tensor) -> Tensor:
    """A number per sample, shaped to multiply a tensor."""
    return scalar.reshape(-1, *[1] * (tensor.ndim - 1))


def _backproject(channel: Channel) -> Tensor:
    """A^H y of all slices ``(Z, H, W)``, slice by slice: coil images of a whole volume would not fit beside it."""
    indices = torch.arange(channel.data.shape[0]).split(1)
    return torch.cat([channel.operator.select(i).adjoint(channel.data[i]) for i in indices])


def final_solve(y: Tensor, operator: Operator, mean: Tensor, noise_variance: float, prior_variance: float) -> Tensor:
    """The last solve of METHOD §4, on the acquisition grid with every sample: it keeps the measured detail.

    argmin_u ||y - A u||^2 / (2 v_u) + ||u - u0||^2 / (2 r_u^2)

    Args:
        y: data ``(Z, C, H, W)`` in u units.
        operator: A on the acquisition grid.
        mean: u0 = U u of the prior's samples, ``(Z, H, W)`` or several samples ``(K, Z, H, W)``.
        noise_variance: v_u = sigma_y^2 / 2, positive.
        prior_variance: r_u^2, mean squared error of u0 against the truth there.

    Returns:
        u, shaped like ``mean``.
    """
    channel = Channel("undersampled", operator, y, (2 * noise_variance) ** 0.5)
    consistency = DataConsistency(channel)
    samples = mean if mean.ndim == 4 else mean[None]
    solved = torch.empty_like(samples)
    # Slice by slice, all samples together: every eigenbasis is made once.
    for z in range(samples.shape[1]):
        slices = torch.full((samples.shape[0],), z)
        solved[:, z] = consistency.proximal(samples[:, z], prior_variance / noise_variance, slices)
    return solved if mean.ndim == 4 else solved[0]
