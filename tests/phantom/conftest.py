"""A small head made of ellipsoids, so that the tests need no data."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from any2all.phantom import HeadLabels, HeadParameters, RenderGrid, draw_parameters
from any2all.phantom.parameters import Lesions, Pose
from any2all.stack import Stack, load_stack

VOXEL_MM = 2.5
SHAPE = (80, 92, 76)
UPRIGHT = Pose(False, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.0, 0.0))
HEALTHY = Lesions(0, None, 1.0, 0.0, 0.0, ())


def make_head() -> HeadLabels:
    """Ellipsoids in mm (S, P, L) about the array's middle; left codes on the left, both eyes in front."""
    s, p, left = (((np.arange(n) - (n - 1) / 2) * VOXEL_MM).astype(float) for n in SHAPE)
    s, p, left = s[:, None, None], p[None, :, None], left[None, None, :]
    labels = np.zeros(SHAPE, dtype=np.int16)

    def paint(code: int, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> None:
        distance = sum(((x - c) / r) ** 2 for x, c, r in zip((s, p, left), centre, radii))
        labels[distance < 1] = code

    for code, shrink in ((511, 0), (507, 4), (515, 12), (24, 20)):
        paint(code, (0, 0, 0), (94 - shrink, 106 - shrink, 86 - shrink))
    sides = np.broadcast_to(left > 0, SHAPE)
    for left_code, right_code, radii in ((3, 42, (64, 74, 56)), (2, 41, (54, 64, 46)), (4, 43, (14, 26, 14))):
        inside = (s / radii[0]) ** 2 + (p / radii[1]) ** 2 + (left / radii[2]) ** 2 < 1
        labels[inside & sides], labels[inside & ~sides] = left_code, right_code
    for side, caudate, pallidum in ((1, 11, 13), (-1, 50, 52)):
        paint(caudate, (8, -24, side * 22), (10, 10, 6))
        paint(pallidum, (-8, 4, side * 26), (9, 9, 9))
        paint(506, (-30, -88, side * 32), (12, 12, 12))
    paint(8, (-50, 36, 0), (12, 22, 34))
    affine = np.array([[0, 0, -VOXEL_MM, 0], [0, -VOXEL_MM, 0, 0], [VOXEL_MM, 0, 0, 0], [0, 0, 0, 1.0]])
    return HeadLabels(labels, affine, "ellipsoids")


@pytest.fixture(scope="session")
def head() -> HeadLabels:
    return make_head()


@pytest.fixture(scope="session")
def stack() -> Stack:
    return load_stack()


@pytest.fixture(scope="session")
def grid() -> RenderGrid:
    return RenderGrid((76, 64), (3.0, 3.0), (-48.0, -28.0, -8.0, 0.0, 8.0, 30.0), 3.0)


@pytest.fixture
def plain() -> HeadParameters:
    """An upright, whole, healthy head."""
    return replace(draw_parameters(3), pose=UPRIGHT, lesions=HEALTHY, skull_stripped=False)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    folder = Path(os.environ.get("ANY2ALL_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not (folder / "head_labels").is_dir():
        pytest.skip(
            f"real label maps are not here (ANY2ALL_DATA or {folder.name}): rendering of real heads is not tested"
        )
    return folder
