"""Conjugate gradients for a batch of independent systems."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

LinearMap = Callable[[Tensor], Tensor]


def conjugate_gradient(
    apply: LinearMap,
    rhs: Tensor,
    x0: Tensor | None = None,
    iterations: int = 50,
    tolerance: float = 1e-4,
    preconditioner: LinearMap | None = None,
) -> Tensor:
    """Solve ``apply(x) = rhs`` for a symmetric positive definite real-linear map (Hestenes & Stiefel, 1952).

    Every sample (first dimension) is its own system: inner products Re <a, b> run over all other dimensions, and a
    sample that has converged, or that met a direction of non-positive curvature, stays as it is while the others go
    on. So a result does not depend on what else is in the batch.

    Args:
        apply: the map, ``(B, ...)`` to ``(B, ...)``.
        rhs: right-hand side ``(B, ...)``, real or complex.
        x0: start; zero by default.
        iterations: at most so many.
        tolerance: stop a sample when its residual is at most ``tolerance`` times the norm of its right-hand side.
        preconditioner: approximate inverse of ``apply``, symmetric positive definite.

    Returns:
        x ``(B, ...)``.
    """
    x = torch.zeros_like(rhs) if x0 is None else x0.clone()
    residual = rhs.clone() if x0 is None else rhs - apply(x)
    target = (tolerance * _dot(rhs, rhs).sqrt()) ** 2
    active = _dot(residual, residual) > target
    direction, rho = None, None
    for _ in range(iterations):
        if not active.any():
            break
        z = residual if preconditioner is None else preconditioner(residual)
        rho_next = _dot(residual, z)
        direction = z if direction is None else z + _divide(rho_next, rho) * direction
        rho = rho_next
        image = apply(direction)
        curvature = _dot(direction, image)
        active = active & (curvature > 0)
        step = torch.where(active, _divide(rho, curvature), 0.0)
        x = x + step * direction
        residual = residual - step * image
        active = active & (_dot(residual, residual) > target)
    return x


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Re <a, b> per sample, shaped ``(B, 1, ...)`` for broadcasting."""
    product = a.conj() * b
    product = product.real if product.is_complex() else product
    return product.sum(dim=tuple(range(1, product.ndim)), keepdim=True)


def _divide(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where b is 0 (an idle sample)."""
    return torch.where(b != 0, a / torch.where(b != 0, b, 1.0), 0.0)
