"""3-D k-space becomes slices along an axis that is fully sampled: a 1-D Fourier transform takes it apart exactly."""

from __future__ import annotations

import numpy as np
import sigpy

from ..errors import Any2allError
from .fourier import centre_crop
from .raw import Contents

_AXES = {"z": 4, "readout": 2, "phase encoding": 3}  # of (1, C, H, W, z), by preference


def as_slices(contents: Contents, key: str) -> Contents:
    """Contents whose k-space ``(1, C, H, W, z)`` has become ``(Z, C, H', W')``; 2-D contents are left alone.

    Of the fully sampled axes the one closest to superior-inferior becomes the slices, since the prior's slices are
    transverse; without a geometry it is z, then the readout. The other two keep their order. Noise keeps its standard
    deviation, as the transform is orthonormal.

    Raises:
        Any2allError: where no axis is fully sampled.
    """
    if not contents.volume:
        return contents
    kspace = contents.arrays["kspace"]
    arrays = {name: value for name, value in contents.arrays.items() if name not in ("sampled", "affine")}
    sampled = contents.arrays.get("sampled")
    sampled = (kspace != 0).any(axis=1) if sampled is None else sampled
    affine = contents.arrays.get("affine")
    full = [n for n, axis in _AXES.items() if (sampled.all(axis=axis - 1) == sampled.any(axis=axis - 1)).all()]
    if not full:
        raise Any2allError("3-D k-space has no axis that is fully sampled", key=key, value=kspace.shape[2:])
    name = full[0] if affine is None else max(full, key=lambda n: _rises(affine, _AXES[n]))
    axis = _AXES[name]
    hybrid = sigpy.ifft(kspace, axes=(axis,))
    kept = contents.kept_rows if axis == 2 else None
    if kept is not None:
        hybrid = centre_crop(hybrid, kept, axis)
    arrays["kspace"] = np.moveaxis(hybrid, axis, 0)[:, 0]
    arrays["sampled"] = np.broadcast_to(sampled.any(axis=axis - 1), (hybrid.shape[axis], *arrays["kspace"].shape[2:]))
    notes = [*contents.notes, f"3-D data, taken apart into slices along its {name}"]
    if affine is not None:
        order = [_columns(a) for a in (axis, *(a for a in (2, 3, 4) if a != axis))]
        arrays["affine"] = affine[:, [*order, 3]].copy()
        if kept is not None:
            arrays["affine"][:, 3] += affine[:, 1] * (kspace.shape[2] // 2 - kept // 2)
    elif "voxel_size_mm" in arrays:
        sizes = list(arrays["voxel_size_mm"])  # of (H, W, z)
        arrays["voxel_size_mm"] = [*(sizes[a - 2] for a in (2, 3, 4) if a != axis), sizes[axis - 2]]
    return Contents(arrays, notes, None if axis == 2 else contents.kept_rows)


def _columns(axis: int) -> int:
    """The column of the affine (z, H, W) that belongs to an axis of k-space."""
    return {4: 0, 2: 1, 3: 2}[axis]


def _rises(affine: np.ndarray, axis: int) -> float:
    """How close an axis is to superior-inferior: 1 along it, 0 across."""
    column = affine[:3, _columns(axis)]
    return float(abs(column[2]) / np.linalg.norm(column))
