"""Where a rendered point lies in the label map: pose, elastic deformation and lookup, on axis-aligned grids."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .anatomy import FEATURES, Anatomy
from .fields import SmoothField, generator
from .parameters import HeadParameters, Pose

ELASTIC_KNOTS_MM = (55.0, 22.0)


def take(table: Tensor, index: Tensor) -> Tensor:
    """``table[index]`` of a flat table: several times faster on a CPU."""
    return table.index_select(0, index.flatten()).view(index.shape)


def pose_matrix(pose: Pose) -> np.ndarray:
    """3x3 that carries rendered offsets (S, P, L) in mm to offsets in the label map: mirror, then affine."""
    rotation = np.eye(3)
    for axis, degrees in enumerate(pose.rotation_deg):
        # Angles are (pitch about L, roll about P, yaw about S): the axes of (S, P, L) in reverse.
        a, b = [(0, 1), (2, 0), (1, 2)][axis]
        turn = np.eye(3)
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turn[[a, a, b, b], [a, b, a, b]] = (c, -s, s, c)
        rotation = turn @ rotation
    shear = np.eye(3)
    shear[0, 1], shear[0, 2], shear[1, 2] = pose.shear
    mirror = np.diag([1.0, 1.0, -1.0 if pose.flip else 1.0])
    return rotation @ shear @ np.diag(1.0 / np.array(pose.scale)) @ mirror


class PointSampler:
    """Looks up label-map features at grids given by mm offsets along z (up), h (back) and w (left)."""

    def __init__(self, anatomy: Anatomy, parameters: HeadParameters, device: torch.device) -> None:
        self.anatomy = anatomy
        self.features = anatomy.features.to(device).flatten(1)
        self.codes = anatomy.codes.to(device).flatten()
        self.matrix = torch.tensor(pose_matrix(parameters.pose), dtype=torch.float32, device=device)
        rng = generator(parameters.seed, 1)
        self.elastic = [SmoothField(rng, knot, 3, device) for knot in ELASTIC_KNOTS_MM]
        self.amplitude = parameters.pose.elastic_mm

    def index(self, z: Tensor, h: Tensor, w: Tensor) -> Tensor:
        """Flat voxel index (Z, H, W) of the nearest label; points outside take the border's (air, or neck below)."""
        moved = sum(a * field(z, h, w) for a, field in zip(self.amplitude, self.elastic))
        flat = torch.zeros((), dtype=torch.int64, device=z.device)
        for axis, size in enumerate(self.anatomy.shape):
            line = self.matrix[axis]
            offset = (line[0] * z)[:, None, None] + (line[1] * h)[:, None] + line[2] * w + moved[axis]
            voxel = offset.div_(self.anatomy.voxel_mm[axis]).add_(self.anatomy.centre[axis] + 0.5)
            flat = flat * size + voxel.clamp_(0, size - 0.5).long()
        return flat

    def feature(self, name: str, index: Tensor) -> Tensor:
        """One of ``FEATURES`` (uint8) at flat indices."""
        return take(self.features[FEATURES.index(name)], index)
