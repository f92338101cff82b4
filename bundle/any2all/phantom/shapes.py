"""Soft, irregular shapes in label volumes, and where to put them."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def irregular_radius(
    shape: tuple[int, ...], rng: np.random.Generator, centre: np.ndarray, radii_vox: np.ndarray, roughness: float,
    reach_vox: float,
) -> tuple[tuple[slice, ...], np.ndarray]:  # fmt: skip
    """Normalised radius (1 on the surface) of a roughened ellipsoid, in a box of ``reach_vox`` about its centre."""
    reach = int(np.ceil(reach_vox)) + 2
    starts = np.maximum(centre.astype(int) - reach, 0)
    stops = np.minimum(centre.astype(int) + reach + 1, shape)
    box = tuple(slice(a, b) for a, b in zip(starts, stops))
    axes = np.ogrid[box]
    radius = np.sqrt(sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, radii_vox)))
    noise = ndimage.gaussian_filter(rng.normal(size=radius.shape), max(1.0, radii_vox.mean() / 2.5))
    noise *= roughness / (noise.std() + 1e-9)
    return box, radius + noise


def soft_inside(radius: np.ndarray, radii_vox: np.ndarray) -> np.ndarray:
    """1 inside a normalised radius, 0 outside, with an edge of about a voxel."""
    edge = max(0.12, 0.6 / radii_vox.mean())
    return 1 / (1 + np.exp(np.clip((radius - 1) / edge * 2.0, -30, 30)))


def blob(
    volume: np.ndarray, rng: np.random.Generator, centre: np.ndarray, radii_vox: np.ndarray, roughness: float
) -> None:
    """Merge one soft, irregular ellipsoid into ``volume`` (float32 in [0, 1]) by maximum."""
    box, radius = irregular_radius(volume.shape, rng, centre, radii_vox, roughness, radii_vox.max() * 1.8)
    part = volume[box]
    np.maximum(part, soft_inside(radius, radii_vox), out=part)


def pick(rng: np.random.Generator, candidates: np.ndarray) -> np.ndarray | None:
    """A random voxel where ``candidates`` (bool) holds: rejection sampling, far cheaper than listing them."""
    for _ in range(20000):
        at = tuple(int(rng.integers(n)) for n in candidates.shape)
        if candidates[at]:
            return np.array(at, dtype=float)
    return None


def as_fraction(volume: np.ndarray) -> np.ndarray:
    """[0, 1] as uint8 steps of 1/255."""
    return (volume * 255).astype(np.uint8)
