"""The exact inverse of I + gamma A^H A for 1-D phase-encode masks (METHOD §4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .grids import centre_resize
from .operators import MulticoilFourier

_CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class RowEigenbasis:
    """Eigenpairs of Re(A^H A), one symmetric W x W block per readout row, for one mask and one set of coil maps.

    A mask that is 1-D along W leaves readout rows independent:
    N_h[w, w'] = Re sum_c conj(S_c(h, w)) g(w - w') S_c(h, w'), with g = ifft(ifftshift(P)) (1/W inside), as images
    are real. With N_h = V diag(lambda) V^T, (I + gamma N)^-1 = V diag(1 / (1 + gamma lambda)) V^T for EVERY gamma.

    Attributes:
        values: lambda, ``(H, W)``, not negative.
        vectors: V, ``(H, W, W)``, eigenvectors in columns.
    """

    values: Tensor
    vectors: Tensor

    @staticmethod
    def of(operator: MulticoilFourier) -> RowEigenbasis:
        """The basis of an operator whose mask and coil maps have 1 in front.

        The decomposition runs in double precision: an error E of N_h enters the solve as gamma E.

        Raises:
            ValueError: if slices do not share one mask and maps, or if the mask is not 1-D along W.
        """
        if not (operator.shared and operator.is_phase_encoded_along_w):
            raise ValueError("a row eigenbasis needs one set of coil maps and a mask that is 1-D along W")
        maps = centre_resize(operator.coil_maps[0], operator.image_shape).to(torch.complex128)
        kernel = _point_spread(operator.mask[0, 0], operator.image_shape[1])
        rows = max(1, _CHUNK_BYTES // (16 * kernel.numel()))
        pairs = [torch.linalg.eigh(_normal_rows(chunk, kernel)) for chunk in maps.split(rows, dim=1)]
        dtype = operator.coil_maps.real.dtype
        values = torch.cat([values for values, _ in pairs]).clamp_min(0)
        return RowEigenbasis(values.to(dtype), torch.cat([vectors.to(dtype) for _, vectors in pairs]))

    def solve(self, rhs: Tensor, gamma: Tensor) -> Tensor:
        """(I + gamma N)^-1 rhs for ``rhs`` ``(B, H, W)`` and ``gamma`` ``(B,)``."""
        coefficients = rhs.transpose(0, 1) @ self.vectors
        coefficients = coefficients / (1 + gamma[None, :, None] * self.values[:, None])
        return (coefficients @ self.vectors.mT).transpose(0, 1)

    def normal(self, x: Tensor) -> Tensor:
        """N x for ``x`` ``(B, H, W)``."""
        coefficients = (x.transpose(0, 1) @ self.vectors) * self.values[:, None]
        return (coefficients @ self.vectors.mT).transpose(0, 1)

    @property
    def nbytes(self) -> int:
        """Memory that the basis holds, in bytes."""
        return self.vectors.nbytes + self.values.nbytes


def normal_rows(operator: MulticoilFourier) -> Tensor:
    """Re(A^H A) of every slice as one W x W block per readout row, real ``(1 | B, H, W, W)``.

    For a mask that is 1-D along W and images on the encoded field of view.
    """
    slices = max(len(operator.mask), len(operator.coil_maps))
    chosen = (operator.select(torch.tensor([z])) for z in range(slices))
    rows = [_normal_rows(o.coil_maps[0], _point_spread(o.mask[0, 0], o.mask.shape[-1])) for o in chosen]
    return torch.stack(rows).to(operator.coil_maps.real.dtype)


def _point_spread(mask: Tensor, width: int) -> Tensor:
    """g(w - w') as a ``(width, width)`` matrix; periodic in the ENCODED width, which ``mask`` ``(W,)`` has."""
    g = torch.fft.ifft(torch.fft.ifftshift(mask.to(torch.complex128)))
    columns = torch.arange(width, device=mask.device)
    return g[(columns[:, None] - columns) % mask.numel()]


def _normal_rows(maps: Tensor, kernel: Tensor) -> Tensor:
    """Re N_h for rows of coil maps ``(C, h, W)``: real ``(h, W, W)``."""
    overlap = torch.einsum("chw,chv->hwv", maps.conj(), maps)
    return (overlap * kernel).real
