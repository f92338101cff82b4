"""The forward models A_m of Any2all eq. 2, one for each status of a modality.

All operators are *real-linear*: images are real, data may be complex, and the inner product of the data space is
Re <a, b> (METHOD §5). So ``adjoint(y) = Re(A^H y)``, and a phase map is folded into the coil maps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from .cg import LinearMap
from .fourier import fft2c, ifft2c
from .grids import centre_resize


class Operator(ABC):
    """y = A x for a batch of real slices x ``(B, H, W)``.

    Where ``couples_slices``, a batch is one of whole volumes, ``(K, Z, H, W)``, and there is nothing to select.
    """

    couples_slices = False

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """A x."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Re(A^H y), real ``(B, H, W)``."""

    def normal(self, x: Tensor) -> Tensor:
        """Re(A^H A x), real ``(B, H, W)``."""
        return self.adjoint(self.forward(x))

    def preconditioner(self, gamma: Tensor) -> LinearMap | None:
        """About (I + gamma A^H A)^-1 for conjugate gradients, one gamma per sample ``(B,)``; None: none is known."""
        return None

    def select(self, slices: Tensor) -> Operator:
        """The same operator for the slices with these indices ``(B,)``; what all slices share stays shared."""
        return self

    def to(self, device: torch.device | str) -> Operator:
        """The same operator with its tensors on ``device``."""
        return self


class Identity(Operator):
    """A = I: an available or noisy image, y = x + e."""

    def forward(self, x: Tensor) -> Tensor:
        """x itself."""
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        """y itself."""
        return y


class Missing(Operator):
    """A = 0: nothing was measured. The data space is represented by zeros of the image's shape."""

    def forward(self, x: Tensor) -> Tensor:
        """Zeros ``(B, H, W)``."""
        return torch.zeros_like(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Zeros ``(B, H, W)``."""
        return torch.zeros_like(y)


class MulticoilFourier(Operator):
    """A = P F S R: Cartesian multi-coil k-space, y_c = P F (S_c R x), c = 1 .. C.

    R centres the image ``image_shape`` in the encoded field of view (crop or zero-pad by whole pixels; the identity
    when both are equal, which is the default), S_c weighs with the coil maps, F is :func:`fft2c`, P the mask.

    Args:
        mask: real 0/1, ``(1 | B, H, W)``; 1 in front: shared by all slices. ``(H, W)`` and ``(W,)`` are accepted.
        coil_maps: complex ``(1 | B, C, H, W)``, sum over C of |S_c|^2 = 1 on their support; may carry a phase.
        image_shape: shape of x, when it differs from that of the encoded field of view.

    Example:
        >>> maps = torch.ones(1, 1, 4, 6, dtype=torch.complex64)
        >>> operator = MulticoilFourier(torch.ones(1, 4, 6), maps)
        >>> operator.normal(torch.ones(2, 4, 6)).mean().item()
        1.0
    """

    def __init__(self, mask: Tensor, coil_maps: Tensor, image_shape: tuple[int, int] | None = None) -> None:
        if coil_maps.ndim != 4 or not coil_maps.is_complex():
            raise ValueError(
                f"coil_maps must be complex (1|B, C, H, W), got {coil_maps.dtype} {tuple(coil_maps.shape)}"
            )
        self.encoded_shape: tuple[int, int] = (coil_maps.shape[-2], coil_maps.shape[-1])
        self.image_shape = self.encoded_shape if image_shape is None else tuple(image_shape)
        self.coil_maps = coil_maps
        self.mask = _as_slices(mask, self.encoded_shape).to(coil_maps.device, coil_maps.real.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """P F S R x, complex ``(B, C, H, W)``."""
        placed = centre_resize(x, self.encoded_shape)
        return self.mask[:, None] * fft2c(self.coil_maps * placed[:, None])

    def adjoint(self, y: Tensor) -> Tensor:
        """Re(R^H S^H F^H P y), real ``(B, *image_shape)``."""
        coil_images = ifft2c(self.mask[:, None] * y)
        return centre_resize((self.coil_maps.conj() * coil_images).sum(dim=1).real, self.image_shape)

    def select(self, slices: Tensor) -> MulticoilFourier:
        """The operator of these slices; a mask or maps with 1 in front stay shared."""
        return MulticoilFourier(pick(self.mask, slices), pick(self.coil_maps, slices), self.image_shape)

    def with_maps(self, coil_maps: Tensor) -> MulticoilFourier:
        """The same sampling seen by other coils."""
        return MulticoilFourier(self.mask, coil_maps, self.image_shape)

    def to(self, device: torch.device | str) -> MulticoilFourier:
        """The same operator with mask and maps on ``device``."""
        return MulticoilFourier(self.mask.to(device), self.coil_maps.to(device), self.image_shape)

    @property
    def shared(self) -> bool:
        """Whether all slices have the same mask and coil maps."""
        return self.mask.shape[0] == 1 and self.coil_maps.shape[0] == 1

    @property
    def is_phase_encoded_along_w(self) -> bool:
        """Whether the mask is 1-D along W (the same in every readout row), so that METHOD §4's exact rows apply."""
        return bool((self.mask == self.mask[:, :1]).all())


def _as_slices(mask: Tensor, shape: tuple[int, int]) -> Tensor:
    """A mask ``(W,)``, ``(H, W)`` or ``(1|B, H, W)`` as ``(1|B, H, W)``."""
    if mask.ndim == 1:
        mask = mask.expand(shape[0], -1)
    if mask.ndim == 2:
        mask = mask[None]
    if mask.ndim != 3 or tuple(mask.shape[-2:]) != shape:
        raise ValueError(f"mask must be (W,), (H, W) or (1|B, H, W) with (H, W) = {shape}, got {tuple(mask.shape)}")
    return mask


def pick(tensor: Tensor, slices: Tensor) -> Tensor:
    """Rows of the first dimension, unless there is only a shared one."""
    return tensor if tensor.shape[0] == 1 else tensor[slices.to(tensor.device)]
