"""Rigid co-registration of a given image to the reference (ANTsPy, Mattes mutual information).

Nothing is resampled here: the result is a transform, and the caller moves the image's grid with `Grid.moved`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import Any2allError
from .geometry import Grid, Volume, canonical, overlap, resample
from .intensity import head_mask

if TYPE_CHECKING:
    import ants

WORKING_MM = 2.0
LEAST_OVERLAP = 0.8
TRUST_SCANNER_FROM = 0.5  # overlap from which the scanner's coordinates are the better start than the centres of mass
_ITERATIONS = (100, 50, 20)
_SAMPLING = 0.1
_SHRINK = (4, 2, 1)
_SMOOTHING = (3, 1, 0)


@dataclass(frozen=True, eq=False)
class RigidResult:
    """How the moving image comes to lie on the fixed one.

    Attributes:
        transform: 4x4, RAS mm of the moving image to RAS mm of the fixed image; for `Grid.moved`.
        overlap_before: Dice coefficient of the head masks as the scanner placed them.
        overlap_after: the same after the transform.
        metric: Mattes mutual information after the transform (negative; lower is better).
        warning: words for the user when the result looks wrong, else None.
    """

    transform: np.ndarray
    overlap_before: float
    overlap_after: float
    metric: float
    warning: str | None = None

    @property
    def angle_deg(self) -> float:
        """Angle of the rotation."""
        return float(np.degrees(np.arccos(np.clip((np.trace(self.transform[:3, :3]) - 1) / 2, -1, 1))))

    def shift_mm(self, point: np.ndarray) -> float:
        """How far a point of the moving image (RAS mm) is moved."""
        return float(np.linalg.norm(self.transform[:3, :3] @ point + self.transform[:3, 3] - point))


def register_rigid(moving: Volume, fixed: Volume, seed: int = 0) -> RigidResult:
    """Find the rigid motion that puts ``moving`` on ``fixed``; works at 2 mm and takes seconds.

    Args:
        moving: any grid (oblique, anisotropic); its voxels are only read.
        fixed: the reference.
        seed: of the metric's sampling; the result is the same for the same seed.

    Raises:
        Any2allError: an image without a head, or a registration that fails altogether.
    """
    moving, fixed = _working(moving), _working(fixed)
    moving_mask, fixed_mask = head_mask(moving.data), head_mask(fixed.data)
    if not (moving_mask.any() and fixed_mask.any()):
        raise Any2allError(
            "no head was found to register",
            key="registration",
            value="rigid",
            hint="'none' trusts the scanner's coordinates",
            code="registration",
        )
    before = overlap(moving_mask, moving.grid, fixed_mask, fixed.grid)
    start = np.eye(4)
    if before < TRUST_SCANNER_FROM:
        start[:3, 3] = _centre(fixed_mask, fixed.grid) - _centre(moving_mask, moving.grid)
    placed = Volume(moving.data, moving.grid.moved(start))
    found, metric = _ants_rigid(placed, fixed, seed)
    transform = found @ start
    after = overlap(moving_mask, moving.grid.moved(transform), fixed_mask, fixed.grid)
    return RigidResult(transform, before, after, metric, _warning(before, after))


def _warning(before: float, after: float) -> str | None:
    if after >= LEAST_OVERLAP and after >= before - 0.02:
        return None
    return (
        f"registration looks wrong: the heads overlap by {after:.2f} (Dice) after it, {before:.2f} before; "
        "look at the images, or set registration to 'none' if they were aligned"
    )


def _working(volume: Volume) -> Volume:
    """Canonical axes and about 2 mm voxels (thick slices are interpolated), enough for half a degree."""
    grid = canonical(volume).grid
    spacing = np.array(grid.spacing_mm)
    shape = np.maximum(np.ceil(np.array(grid.shape) * spacing / WORKING_MM - 1e-6), 4)
    first = 0.5 * (np.array(grid.shape) - 1) - 0.5 * (shape - 1) * WORKING_MM / spacing
    size = tuple(int(n) for n in shape)
    target = grid.scaled((size[0], size[1], size[2]), first, WORKING_MM / spacing)
    return resample(volume, target, fill=float(np.percentile(volume.data, 1)))


def _centre(mask: np.ndarray, grid: Grid) -> np.ndarray:
    return grid.at(np.argwhere(mask).mean(axis=0))


def _ants_rigid(moving: Volume, fixed: Volume, seed: int) -> tuple[np.ndarray, float]:
    """ANTs in RAS: both images are given to it with RAS numbers, so its transform is in RAS as well.

    ANTs' transform takes points of the FIXED image to the moving one (as a resampler needs them); the inverse is
    returned.
    """
    import ants

    with _one_thread(), tempfile.TemporaryDirectory() as folder:
        identity = str(Path(folder) / "start.mat")
        ants.write_transform(ants.new_ants_transform(dimension=3, transform_type="Euler3DTransform"), identity)
        ants.config.set_ants_deterministic(on=False, seed_value=seed + 1)  # 0 means the clock to ITK
        try:
            result = ants.registration(
                _image(fixed),
                _image(moving),
                "Rigid",
                initial_transform=[identity],
                outprefix=str(Path(folder) / "rigid"),
                aff_metric="mattes",
                aff_sampling=32,
                aff_random_sampling_rate=_SAMPLING,
                aff_iterations=_ITERATIONS,
                aff_shrink_factors=_SHRINK,
                aff_smoothing_sigmas=_SMOOTHING,
                singleprecision=True,
            )
            transform = _matrix(ants.read_transform(result["fwdtransforms"][0]))
            metric = ants.image_similarity(_image(fixed), result["warpedmovout"], "MattesMutualInformation")
        except (RuntimeError, IndexError, OSError) as error:
            raise Any2allError(
                f"registration failed: {error}",
                key="registration",
                value="rigid",
                hint="'none' trusts the scanner's coordinates",
                code="registration",
            ) from error
        finally:
            ants.config.set_ants_deterministic(on=False, seed_value=None)
    return np.linalg.inv(transform), float(metric)


@contextmanager
def _one_thread() -> Iterator[None]:
    """ITK in ANTs on one thread, because the order of its sums changes the last digits (read at ANTs' first use)."""
    name = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _image(volume: Volume) -> ants.ANTsImage:
    """An ANTs image with axes (L, P, S), a right-handed system, and RAS numbers for its geometry."""
    import ants

    grid, spacing = volume.grid, np.array(volume.grid.spacing_mm)
    direction = (grid.affine[:3, :3] / spacing)[:, ::-1]
    return ants.from_numpy(
        np.ascontiguousarray(volume.data.T),
        origin=grid.affine[:3, 3].tolist(),
        spacing=spacing[::-1].tolist(),
        direction=np.ascontiguousarray(direction),
    )


def _matrix(transform: ants.ANTsTransform) -> np.ndarray:
    """ITK's affine x -> M (x - c) + c + t as a 4x4 with the closest proper rotation (float32 round-off removed)."""
    parameters, centre = np.array(transform.parameters, dtype=float), np.array(transform.fixed_parameters[:3])
    matrix = parameters[:9].reshape(3, 3)
    result = np.eye(4)
    u, _, vt = np.linalg.svd(matrix)
    result[:3, :3] = u @ vt
    result[:3, 3] = parameters[9:] + centre - matrix @ centre
    return result
