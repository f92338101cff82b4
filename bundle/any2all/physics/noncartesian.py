"""A for samples that lie on no grid (radial, spiral): y_c = F_u (S_c R x) at the points of a trajectory.

F_u x (k) = 1/sqrt(H W) sum_n x[n] exp(-2 pi i k . (n - N // 2) / N), k in cycles per field of view along (H, W), the
first index's axis first. On the points of a full Cartesian grid that is :func:`fft2c`. SigPy's NUFFT computes it
(Fessler and Sutton, 2003; Beatty et al., 2005), on the host; tensors of a GPU are copied there and back.

A^H A needs no NUFFT: F_u^H F_u is a convolution with the trajectory's point spread, which a Fourier transform of twice
the size makes exact (Wajer and Pruessmann, 2001). So conjugate gradients stay on the device of the tensors.
"""

from __future__ import annotations

import math

import numpy as np
import sigpy
import torch
from torch import Tensor

from .cg import LinearMap
from .grids import Shape, centre_resize
from .operators import Operator, pick

# Oversampling and kernel width: a relative error of 7e-6 against the exact sum, where SigPy's defaults leave 7e-3.
OVERSAMPLING, KERNEL_WIDTH = 2, 6


class NonCartesianFourier(Operator):
    """A = F_u S R: multi-coil samples at the points of a trajectory that all slices share.

    Args:
        trajectory: float64 ``(N, 2)``, cycles per field of view along (H, W), within +-H/2 and +-W/2.
        coil_maps: complex ``(1 | B, C, H, W)`` on the encoded field of view; may carry a phase.
        image_shape: shape of x, when it differs from that of the encoded field of view.
        point_spread: of the same trajectory and encoded shape, where it is known already (see `point_spread`).

    Example:
        >>> maps = torch.ones(1, 1, 4, 6, dtype=torch.complex64)
        >>> operator = NonCartesianFourier(torch.zeros(1, 2, dtype=torch.float64), maps)
        >>> round(operator.forward(torch.ones(2, 4, 6))[0, 0, 0].real.item(), 3)
        4.899
    """

    def __init__(
        self,
        trajectory: Tensor,
        coil_maps: Tensor,
        image_shape: Shape | None = None,
        point_spread: Tensor | None = None,
    ) -> None:
        if coil_maps.ndim != 4 or not coil_maps.is_complex():
            raise ValueError(
                f"coil_maps must be complex (1|B, C, H, W), got {coil_maps.dtype} {tuple(coil_maps.shape)}"
            )
        if trajectory.ndim != 2 or trajectory.shape[1] != 2:
            raise ValueError(f"trajectory must be (N, 2), got {tuple(trajectory.shape)}")
        self.encoded_shape: Shape = (coil_maps.shape[-2], coil_maps.shape[-1])
        self.image_shape: Shape = self.encoded_shape if image_shape is None else tuple(image_shape)
        self.trajectory, self.coil_maps = trajectory, coil_maps
        self._points = trajectory.double().cpu().numpy()
        if point_spread is None:
            point_spread = point_spread_of(self._points, self.encoded_shape, self.image_shape)
        self._point_spread = point_spread.to(coil_maps.device, coil_maps.dtype)
        self._transfer = torch.fft.fft2(self._point_spread).real
        self._placed_maps = centre_resize(coil_maps, self.image_shape)

    def forward(self, x: Tensor) -> Tensor:
        """F_u S R x, complex ``(B, C, N)``; gradients pass through it."""
        coil_images = self.coil_maps * centre_resize(x, self.encoded_shape)[:, None]
        return _Nufft.apply(coil_images, self._points)

    def adjoint(self, y: Tensor) -> Tensor:
        """Re(R^H S^H F_u^H y), real ``(B, *image_shape)``."""
        coil_images = nufft_adjoint(y, self._points, self.encoded_shape)
        return centre_resize((self.coil_maps.conj() * coil_images).sum(dim=1).real, self.image_shape)

    def normal(self, x: Tensor) -> Tensor:
        """Re(R^H S^H F_u^H F_u S R x) by two Fourier transforms of twice the size, real ``(B, *image_shape)``."""
        h, w = self.image_shape
        spectrum = torch.fft.fft2(self._placed_maps * x[:, None], s=(2 * h, 2 * w))
        coil_images = torch.fft.ifft2(self._transfer * spectrum)[..., :h, :w]
        return (self._placed_maps.conj() * coil_images).sum(dim=1).real

    def preconditioner(self, gamma: Tensor) -> LinearMap:
        """(I + gamma C)^-1, C the circulant matrix nearest to A^H A (T. Chan, 1988), one gamma per sample.

        C has the mean of A^H A along every (periodic) diagonal: the point spread times the autocorrelation of the
        maps. It knows how densely the trajectory samples each frequency, which is what slows down the iterations.
        """
        h, w = self.image_shape
        spectrum = torch.fft.fft2(self._placed_maps, s=(2 * h, 2 * w))
        overlap = torch.fft.ifft2(spectrum.abs().square().sum(dim=1)).conj() / (h * w)
        diagonals = (self._point_spread * overlap).real.reshape(-1, 2, h, 2, w).sum(dim=(1, 3))
        density = torch.fft.rfft2(diagonals).real.clamp_min(0)
        scale = 1 / (1 + gamma[:, None, None] * density)
        return lambda x: torch.fft.irfft2(scale * torch.fft.rfft2(x), s=(h, w))

    def select(self, slices: Tensor) -> NonCartesianFourier:
        """The operator of these slices; maps with 1 in front stay shared."""
        return self.with_maps(pick(self.coil_maps, slices))

    def to(self, device: torch.device | str) -> NonCartesianFourier:
        """The same operator with its tensors on ``device``."""
        return self.with_maps(self.coil_maps.to(device))

    def with_maps(self, coil_maps: Tensor) -> NonCartesianFourier:
        """The same trajectory seen by other coils."""
        return NonCartesianFourier(self.trajectory, coil_maps, self.image_shape, self._point_spread)


class _Nufft(torch.autograd.Function):
    """F_u, whose gradient is F_u^H."""

    @staticmethod
    def forward(ctx, images: Tensor, points: np.ndarray) -> Tensor:
        ctx.points, ctx.shape = points, (images.shape[-2], images.shape[-1])
        return nufft(images, points)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return nufft_adjoint(gradient, ctx.points, ctx.shape), None


def nufft(images: Tensor, points: np.ndarray) -> Tensor:
    """F_u of complex ``(..., H, W)`` at the points ``(N, 2)`` → ``(..., N)``, on the device of ``images``."""
    samples = sigpy.nufft(_on_host(images), points, OVERSAMPLING, KERNEL_WIDTH)
    return torch.from_numpy(samples).to(images)


def nufft_adjoint(samples: Tensor, points: np.ndarray, shape: Shape) -> Tensor:
    """F_u^H of complex ``(..., N)`` → ``(..., *shape)``, on the device of ``samples``."""
    oshape = (*samples.shape[:-1], *shape)
    images = sigpy.nufft_adjoint(_on_host(samples), points, oshape, OVERSAMPLING, KERNEL_WIDTH)
    return torch.from_numpy(images).to(samples)


def _on_host(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().resolve_conj().numpy()


def point_spread_of(points: np.ndarray, encoded: Shape, image: Shape, weights: np.ndarray | None = None) -> Tensor:
    """K(d) = 1/(H W) sum_k w_k exp(2 pi i k . d / N) for pixel distances d of images ``(h, w)``.

    Args:
        points: ``(N, 2)``.
        encoded: (H, W), the matrix that spans the field of view of the trajectory.
        image: (h, w).
        weights: w ``(N,)``; 1 by default.

    Returns:
        complex128 ``(2 h, 2 w)``, d = 0 first, as a Fourier transform takes it; zero at the distances h and w, which
        two pixels never have.
    """
    doubled = (2 * encoded[0], 2 * encoded[1])
    samples = torch.from_numpy(np.ones(len(points)) if weights is None else weights).to(torch.complex128)
    spread = nufft_adjoint(samples, 2 * points, doubled) * 2 / math.sqrt(encoded[0] * encoded[1])
    spread = centre_resize(spread, (2 * image[0], 2 * image[1]))
    spread[0], spread[:, 0] = 0, 0
    return torch.fft.ifftshift(spread)
