"""Nodes of the scene: which there are, and where a volume lies in the patient, parent transforms included."""

from __future__ import annotations

import numpy as np
import slicer
import vtk


def nodes_by_class(scene: slicer.vtkMRMLScene, name: str) -> list[slicer.vtkMRMLNode]:
    """All nodes of a class and of what derives from it, in the scene's order.

    `slicer.util.getNodesByClass` takes a scene, and looks into the application's.
    """
    return [scene.GetNthNodeByClass(index, name) for index in range(scene.GetNumberOfNodesByClass(name))]


def to_array(matrix: vtk.vtkMatrix4x4) -> np.ndarray:
    """(4, 4) of a VTK matrix."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def own_affine(node: slicer.vtkMRMLVolumeNode) -> np.ndarray:
    """IJK to RAS in mm (4, 4), without any transform."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return to_array(matrix)


def is_placed_linearly(node: slicer.vtkMRMLVolumeNode) -> bool:
    """Whether all transforms above the volume are linear, or there are none."""
    parent = node.GetParentTransformNode()
    return parent is None or bool(parent.IsTransformToWorldLinear())


def world_affine(node: slicer.vtkMRMLVolumeNode) -> np.ndarray:
    """IJK to world RAS in mm (4, 4), with all transforms above the volume applied.

    Raises ValueError, in words, where one of them is not linear.
    """
    if not is_placed_linearly(node):
        raise ValueError(f"The volume '{node.GetName()}' is bent by a transform. Harden the transform, or take it off.")
    parent = node.GetParentTransformNode()
    if parent is None:
        return own_affine(node)
    matrix = vtk.vtkMatrix4x4()
    parent.GetMatrixTransformToWorld(matrix)
    return to_array(matrix) @ own_affine(node)


def shear(affine: np.ndarray) -> float:
    """The largest cosine between two of a grid's axes: 0 where they stand upright on each other."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.abs(directions.T @ directions - np.eye(3)).max())


def corners(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """World positions (8, 3) in mm of the centres of a grid's corner voxels; shape (I, J, K)."""
    picks = np.array([(i, j, k, 1) for i in (0, 1) for j in (0, 1) for k in (0, 1)], float)
    picks[:, :3] *= np.array(shape) - 1
    return (picks @ affine.T)[:, :3]


def shape_of(node: slicer.vtkMRMLVolumeNode) -> tuple[int, ...]:
    """(I, J, K)."""
    return tuple(node.GetImageData().GetDimensions())
