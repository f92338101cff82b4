"""What is done to raw k-space before anything is estimated from it: oversampling, whitening, coil compression."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import numpy as np
import sigpy

from .fourier import centre_crop
from .orientation import oriented
from .raw import RawKspace
from .raw_samples import RawSamples

Raw = TypeVar("Raw", RawKspace, RawSamples)
MOST_COILS = 12
KEPT_ENERGY = 0.99


def preprocessed(raw: Raw) -> Raw:
    """Turned to (S, P, L), whitened, compressed; a second call changes nothing."""
    return compressed(whitened(oriented(raw)))


def without_oversampling(raw: RawKspace, kept_rows: int | None) -> RawKspace:
    """The readout's field of view cut to ``kept_rows`` voxels, index N // 2 to n // 2; noise keeps its std.

    Only where every sampled column is sampled from end to end, or the cut would not be exact: an asymmetric echo
    keeps its whole field of view, and a note says so.
    """
    rows = raw.kspace.shape[2]
    if kept_rows is None or kept_rows >= rows:
        return raw
    if not (raw.mask == raw.mask[:1]).all():
        note = "readout oversampling was kept: the readout is not sampled from end to end"
        return dataclasses.replace(raw, notes=(*raw.notes, note))
    image = centre_crop(sigpy.ifft(raw.kspace, axes=(2,)), kept_rows, 2)
    affine = raw.affine
    if affine is not None:
        affine = affine.copy()
        affine[:, 3] += affine[:, 1] * (rows // 2 - kept_rows // 2)
    maps = None if raw.coil_maps is None else centre_crop(raw.coil_maps, kept_rows, 2)
    note = f"readout oversampling removed: {kept_rows} of {rows} rows of the field of view are left"
    return dataclasses.replace(
        raw,
        kspace=(sigpy.fft(image, axes=(2,)) * raw.mask[:kept_rows]).astype(np.complex64),
        mask=raw.mask[:kept_rows],
        coil_maps=maps,
        affine=affine,
        notes=(*raw.notes, note),
    )


def whitening_matrix(covariance: np.ndarray) -> tuple[np.ndarray, float]:
    """W and sigma with W Psi W^H = sigma^2 I, sigma^2 the mean noise power of a coil (Roemer et al., 1990; Pruessmann
    et al., 1999). W = sigma Psi^(-1/2), of all whitening matrices the one that changes the coils least."""
    powers, vectors = np.linalg.eigh(covariance)
    sigma = float(np.sqrt(powers.mean()))
    return sigma * (vectors / np.sqrt(powers)) @ vectors.conj().T, sigma


def whitened(raw: Raw) -> Raw:
    """The same data whose noise is white and equal in all coils, in about the file's units."""
    if raw.noise_covariance is None:
        return raw
    matrix, sigma = whitening_matrix(raw.noise_covariance)
    return dataclasses.replace(
        raw,
        kspace=_mixed(matrix, raw.kspace),
        coil_maps=None if raw.coil_maps is None else _mixed(matrix, raw.coil_maps),
        noise_std=sigma,
        noise_covariance=None,
        unmixing=np.linalg.inv(matrix),
        notes=(*raw.notes, f"coils whitened by their noise covariance: complex std {sigma:.3g}"),
    )


def compressed(raw: Raw) -> Raw:
    """At most ``MOST_COILS`` virtual coils that keep ``KEPT_ENERGY`` of the energy, where there are more coils.

    The first principal components over coils (Huang et al., 2008), of all slices together. The mixing is orthonormal,
    so white noise keeps its standard deviation.
    """
    coils = raw.kspace.shape[1]
    if coils <= MOST_COILS:
        return raw
    samples = raw.kspace if isinstance(raw, RawSamples) else raw.kspace[..., raw.mask > 0]  # (Z, C, N)
    covariance = np.einsum("zcn,zdn->cd", samples, samples.conj(), optimize=True)
    energy, vectors = np.linalg.eigh(covariance)
    energy, vectors = np.maximum(energy[::-1], 0), vectors[:, ::-1]
    share = np.cumsum(energy) / energy.sum()
    count = min(int(np.searchsorted(share, KEPT_ENERGY)) + 1, MOST_COILS)
    matrix = vectors[:, :count].conj().T
    note = f"{coils} coils compressed to {count}, which hold {100 * share[count - 1]:.2f} % of the energy"
    return dataclasses.replace(
        raw,
        kspace=_mixed(matrix, raw.kspace),
        coil_maps=None if raw.coil_maps is None else _mixed(matrix, raw.coil_maps),
        notes=(*raw.notes, note),
        unmixing=matrix.conj().T if raw.unmixing is None else raw.unmixing @ matrix.conj().T,
    )


def in_file_intensity(coil_maps: np.ndarray, unmixing: np.ndarray | None) -> np.ndarray:
    """Maps ``(Z, C, H, W)`` with sum |S|^2 = 1 over the coils of the FILE: whitening does not shade the image."""
    if unmixing is None:
        return coil_maps
    norm = np.sqrt(np.sum(np.abs(_mixed(unmixing, coil_maps)) ** 2, axis=1, keepdims=True))
    return np.where(norm > 0, coil_maps / np.where(norm > 0, norm, 1), 0).astype(np.complex64)


def _mixed(matrix: np.ndarray, coils: np.ndarray) -> np.ndarray:
    """New coils from old ones: ``matrix`` (D, C) over the second axis of (Z, C, H, W) or (Z, C, N)."""
    flat = matrix.astype(np.complex64) @ coils.reshape(*coils.shape[:2], -1)
    return flat.reshape(coils.shape[0], matrix.shape[0], *coils.shape[2:])
