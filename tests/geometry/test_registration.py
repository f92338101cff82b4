"""Registration: a known rigid motion is found, its direction is right, and a wrong result is named."""

import numpy as np
import pytest
from any2all.geometry import Grid, Volume
from any2all.registration import register_rigid
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

pytest.importorskip("ants")


def rigid(degrees, shift):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    matrix[:3, 3] = shift
    return matrix


def grid_at(shape, spacing, placement=None):
    """Canonical axes (S, P, L), centred on the head, then placed."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, -1], [0, -1, 0], [1, 0, 0.0]]) * np.array(spacing)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    grid = Grid(shape, affine)
    return grid if placement is None else grid.moved(placement)


def head(grid, contrast):
    """A head with structure in RAS mm: skin, skull, brain, ventricles and folds; ``contrast`` of each."""
    x, y, z = np.moveaxis(grid.at(np.stack(np.indices(grid.shape), axis=-1)), -1, 0)
    skin, skull, grey, white, csf = contrast
    radius = np.sqrt((x / 70) ** 2 + ((y + 4) / 88) ** 2 + (z / 75) ** 2)
    image = np.select([radius < 0.84, radius < 0.93, radius < 1.0], [grey, skull, skin], 0.0)
    folds = np.sin(x / 6 + 1) * np.sin(y / 7) + np.sin(z / 8 + x / 30)
    image = np.where((radius < 0.8) & (folds > 0.1), white, image)
    for cx, cy, cz, r in ((12, 10, 8, 13), (-14, 6, 6, 12), (0, -45, -30, 17), (25, 40, 20, 9), (-20, -50, 25, 8)):
        image = np.where((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < r**2, csf, image)
    return gaussian_filter(image.astype(np.float32), 0.5)


T1 = (0.9, 0.1, 0.5, 0.8, 0.2)
T2 = (0.4, 0.05, 0.6, 0.45, 1.0)


def distances(found, true):
    """Angle in degrees and shift at the head's centre in mm between two rigid motions."""
    apart = np.linalg.inv(true) @ found
    angle = np.degrees(np.arccos(np.clip((np.trace(apart[:3, :3]) - 1) / 2, -1, 1)))
    return angle, np.linalg.norm(apart[:3, 3])


def noisy(data, seed):
    return data + np.random.default_rng(seed).normal(0, 0.02, data.shape)


@pytest.mark.parametrize(
    "shape, spacing, placement, motion",
    [
        ((80, 96, 80), (2.0, 2.0, 2.0), None, ((4, -6, 5), (6, -4, 8))),
        ((40, 150, 120), (4.0, 1.2, 1.5), ((15, -8, 12), (5, 3, -10)), ((-5, 3, -7), (-7, 5, 4))),
        ((80, 96, 80), (2.0, 2.0, 2.0), None, ((3, 2, -4), (0, 130, 20))),
    ],
    ids=["same grid", "oblique and anisotropic", "far away"],
)
def test_known_motion_is_found(shape, spacing, placement, motion):
    fixed_grid = grid_at((80, 100, 84), (2.0, 2.0, 2.0))
    true = rigid(*motion)
    here = grid_at(shape, spacing, rigid(*placement) if placement else None)
    # the head was imaged on `here`, then its header was spoiled: `true` brings it back
    moving = Volume(noisy(head(here, T2), 1), here.moved(np.linalg.inv(true)))
    result = register_rigid(moving, Volume(noisy(head(fixed_grid, T1), 2), fixed_grid), seed=0)
    angle, shift = distances(result.transform, true)
    assert angle < 0.5 and shift < 0.5
    assert result.overlap_after > 0.95 and result.overlap_after > result.overlap_before and result.warning is None
    assert np.allclose(result.transform[:3, :3] @ result.transform[:3, :3].T, np.eye(3), atol=1e-9)


def test_the_same_seed_gives_the_same_transform(monkeypatch):
    monkeypatch.setattr("any2all.registration.WORKING_MM", 4.0)
    grid = grid_at((50, 60, 52), (3.0, 3.0, 3.0))
    fixed = Volume(noisy(head(grid, T1), 3), grid)
    moving = Volume(noisy(head(grid, T2), 4), grid.moved(rigid((2, 1, 3), (3, 2, 1))))
    first, second = (register_rigid(moving, fixed, seed=5) for _ in range(2))
    assert np.array_equal(first.transform, second.transform)


def test_a_head_that_does_not_fit_is_named():
    grid = grid_at((50, 60, 52), (3.0, 3.0, 3.0))
    fixed = Volume(noisy(head(grid, T1), 6), grid)
    small = Grid(grid.shape, grid.affine @ np.diag([0.5, 0.5, 0.5, 1]))
    result = register_rigid(Volume(fixed.data, small), fixed, seed=0)
    assert result.overlap_after < 0.8 and f"{result.overlap_after:.2f}" in result.warning
