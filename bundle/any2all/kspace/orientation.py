"""k-space of transverse slices turned the way the prior's are: superior, posterior, left.

Exact: nothing is interpolated.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from nibabel import orientations

from ..geometry.grid import CANONICAL_CODES
from .raw import RawKspace
from .raw_samples import RawSamples


def flipped(kspace: np.ndarray, axis: int) -> np.ndarray:
    """k-space of the image flipped along an axis: X'[k] = exp(i 2 pi (k - c) (2c - N + 1) / N) X[2c - k], c = N // 2.

    The noise stays white: samples change places and phases.
    """
    n = kspace.shape[axis]
    k, c = np.arange(n), n // 2
    ramp = np.exp(2j * np.pi * (k - c) * (2 * c - n + 1) / n).astype(np.complex64)
    shape = [1] * kspace.ndim
    shape[axis] = n
    return np.take(kspace, (2 * c - k) % n, axis=axis) * ramp.reshape(shape)


def oriented(raw: RawKspace | RawSamples) -> RawKspace | RawSamples:
    """The same data with axes as close to (S, P, L) as their order and direction allow.

    Data without an affine, and slices that are not transverse, are left as they are: those keep readout and phase
    encoding where the file has them.
    """
    if raw.affine is None:
        return raw
    here = orientations.io_orientation(raw.affine)
    change = orientations.ornt_transform(here, orientations.axcodes2ornt(CANONICAL_CODES))
    if change[0, 0] != 0:
        return raw
    return _turned_samples(raw, change) if isinstance(raw, RawSamples) else _turned(raw, change)


def _turned_samples(raw: RawSamples, change: np.ndarray) -> RawSamples:
    """The trajectory is turned with the image; a flip of N pixels about (N - 1) / 2 is a phase as well."""
    kspace, path, maps = raw.kspace, raw.trajectory.copy(), raw.coil_maps
    if change[0, 1] < 0:
        kspace, maps = kspace[::-1], None if maps is None else maps[::-1]
    for axis, sign in ((0, change[1, 1]), (1, change[2, 1])):
        if sign < 0:
            n = raw.matrix[axis]
            kspace = kspace * np.exp(2j * np.pi * path[:, axis] * (n - 1 - 2 * (n // 2)) / n)
            path[:, axis] *= -1
            maps = None if maps is None else np.flip(maps, axis - 2)
    voxel, matrix = raw.voxel_size_mm, raw.matrix
    if change[1, 0] == 2:  # the second axis becomes the third
        path, matrix = path[:, ::-1], (matrix[1], matrix[0])
        maps = None if maps is None else maps.swapaxes(-2, -1)
        voxel = None if voxel is None else (voxel[1], voxel[0], voxel[2])
    return dataclasses.replace(
        raw,
        kspace=np.ascontiguousarray(kspace.astype(np.complex64)),
        trajectory=np.ascontiguousarray(path),
        matrix=matrix,
        coil_maps=None if maps is None else np.ascontiguousarray(maps),
        voxel_size_mm=voxel,
        affine=raw.affine @ orientations.inv_ornt_aff(change, (len(raw.kspace), *raw.matrix)),
    )


def _turned(raw: RawKspace, change: np.ndarray) -> RawKspace:
    kspace, mask, maps = raw.kspace, raw.mask, raw.coil_maps
    if change[0, 1] < 0:
        kspace, maps = kspace[::-1], None if maps is None else maps[::-1]
    for axis, sign in ((-2, change[1, 1]), (-1, change[2, 1])):
        if sign < 0:
            n = mask.shape[axis]
            kspace = flipped(kspace, kspace.ndim + axis)
            mask = np.take(mask, (2 * (n // 2) - np.arange(n)) % n, axis=axis)
            maps = None if maps is None else np.flip(maps, axis)
    voxel = raw.voxel_size_mm
    if change[1, 0] == 2:  # the second axis becomes the third
        kspace, mask = kspace.swapaxes(-2, -1), mask.T
        maps = None if maps is None else maps.swapaxes(-2, -1)
        voxel = None if voxel is None else (voxel[1], voxel[0], voxel[2])
    shape = (raw.kspace.shape[0], *raw.kspace.shape[-2:])
    return dataclasses.replace(
        raw,
        kspace=np.ascontiguousarray(kspace),
        mask=np.ascontiguousarray(mask),
        coil_maps=None if maps is None else np.ascontiguousarray(maps),
        voxel_size_mm=voxel,
        affine=raw.affine @ orientations.inv_ornt_aff(change, shape),
    )
