"""Forward models of degraded images, y = A u + e with real data, that couple slices: x is whole volumes (K, Z, H, W).

`SeparableBlur` is a known point-spread function, `VolumeMap` any sparse map from the prior's voxels to an image's own,
such as that of thick slices (see `thick_slices`).
"""

from __future__ import annotations

import math
import warnings

import torch
from scipy import sparse
from torch import Tensor

from .operators import Operator

Volume = tuple[int, int, int]
FWHM_PER_STD = math.sqrt(8 * math.log(2))
_REACH = 4.0  # standard deviations of a Gaussian that are summed


class SeparableBlur(Operator):
    """A = K_z ⊗ K_h ⊗ K_w, a Gaussian along every axis; beyond the volume its mirror image goes on.

    Each K is symmetric and keeps constants, so A is its own adjoint, and with K = V diag(λ) V^T the solve with
    I + γ A^H A is exact: (I + γ A²)⁻¹ = V diag(1 / (1 + γ λ²)) V^T over the three axes.

    Args:
        shape: (Z, H, W).
        fwhm: full width at half maximum in voxels, per axis.
        dtype: of the kernels.
    """

    couples_slices = True

    def __init__(self, shape: Volume, fwhm: tuple[float, float, float], dtype: torch.dtype = torch.float32) -> None:
        self.image_shape = tuple(shape)
        kernels = [_mirrored_gaussian(n, width / FWHM_PER_STD) for n, width in zip(shape, fwhm)]
        pairs = [torch.linalg.eigh(kernel) for kernel in kernels]
        self._values = [values.to(dtype) for values, _ in pairs]
        self._vectors = [vectors.to(dtype) for _, vectors in pairs]
        self._kernels = [kernel.to(dtype) for kernel in kernels]

    def forward(self, x: Tensor) -> Tensor:
        """The blurred volumes (K, Z, H, W)."""
        return _along_axes(self._kernels, x)

    def adjoint(self, y: Tensor) -> Tensor:
        """The same as `forward`."""
        return self.forward(y)

    def shifted_inverse(self, rhs: Tensor, gamma: Tensor) -> Tensor:
        """(I + γ A^H A)⁻¹ rhs, exact; ``gamma`` (K,)."""
        z, h, w = self._values
        eigenvalues = (z[:, None, None] * h[:, None] * w).to(rhs)
        inside = _along_axes([v.mT for v in self._vectors], rhs)
        return _along_axes(self._vectors, inside / (1 + gamma.reshape(-1, 1, 1, 1) * eigenvalues.square()))

    def to(self, device: torch.device | str) -> SeparableBlur:
        """The same blur with its matrices on ``device``."""
        other = object.__new__(SeparableBlur)
        other.image_shape = self.image_shape
        for name in ("_values", "_vectors", "_kernels"):
            setattr(other, name, [matrix.to(device) for matrix in getattr(self, name)])
        return other


class VolumeMap(Operator):
    """A = W, a sparse matrix of real weights: (K, *source) to (K, *target), with its exact adjoint.

    Args:
        weights: (target voxels, source voxels), both flattened in C order.
        source, target: shapes (Z, H, W) of the two volumes.
        dtype: of the weights.
    """

    couples_slices = True

    def __init__(
        self, weights: sparse.spmatrix, source: Volume, target: Volume, dtype: torch.dtype = torch.float32
    ) -> None:
        if weights.shape != (math.prod(target), math.prod(source)):
            raise ValueError(f"weights of shape {weights.shape} do not map {source} to {target}")
        self.image_shape, self.target = tuple(source), tuple(target)
        self._weights, self._transposed = _to_torch(weights, dtype), _to_torch(weights.T, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """W x."""
        return (self._weights @ x.flatten(1).mT).mT.reshape(len(x), *self.target)

    def adjoint(self, y: Tensor) -> Tensor:
        """W^T y."""
        return (self._transposed @ y.flatten(1).mT).mT.reshape(len(y), *self.image_shape)

    def to(self, device: torch.device | str) -> VolumeMap:
        """The same map with its weights on ``device``."""
        other = object.__new__(VolumeMap)
        other.image_shape, other.target = self.image_shape, self.target
        other._weights, other._transposed = self._weights.to(device), self._transposed.to(device)
        return other


def _along_axes(matrices: list[Tensor], x: Tensor) -> Tensor:
    """A matrix along each of the last three axes of (K, Z, H, W)."""
    z, h, w = (matrix.to(x.dtype) for matrix in matrices)
    return torch.einsum("az,kzhw->kahw", z, h @ x @ w.mT)


def _mirrored_gaussian(size: int, std: float) -> Tensor:
    """K (size, size), float64: a Gaussian of this std in voxels over an axis that is mirrored at both ends."""
    kernel = torch.zeros(size, size, dtype=torch.float64)
    reach = math.ceil(_REACH * std)
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (offsets / max(std, 1e-6)).square().double())
    here = torch.arange(size)
    for offset, weight in zip(offsets.tolist(), weights / weights.sum()):
        place = (here + offset) % (2 * size)
        kernel[here, torch.minimum(place, 2 * size - 1 - place)] += weight
    return kernel


def _to_torch(matrix: sparse.spmatrix, dtype: torch.dtype) -> Tensor:
    rows = sparse.csr_matrix(matrix)
    parts = (torch.from_numpy(part.astype("int64")) for part in (rows.indptr, rows.indices))
    values = torch.from_numpy(rows.data).to(dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(*parts, values, size=rows.shape, check_invariants=True)
