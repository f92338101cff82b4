"""From the scene to files: which volumes there are, and each as voxels and geometry and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import slicer.util

from . import nifti
from .assign import VolumeInfo, names_any2all
from .form import VolumeFacts
from .nodes import is_placed_linearly, nodes_by_class, own_affine, shape_of, shear, world_affine
from .outputs import ROLE

MOST_SHEAR = 0.02  # cosine between two axes of the grid
DICOM_TAGS = {
    "Modality": "0008,0060",
    "SeriesDescription": "0008,103E",
    "ProtocolName": "0018,1030",
    "SequenceName": "0018,0024",
    "ScanningSequence": "0018,0020",
    "RepetitionTime": "0018,0080",
    "EchoTime": "0018,0081",
    "InversionTime": "0018,0082",
    "ContrastBolusAgent": "0018,0010",
}


def scene_volumes(scene: slicer.vtkMRMLScene) -> list[VolumeInfo]:
    """The scalar volumes that a person can see, with an image, in the scene's order."""
    return [
        VolumeInfo(node.GetID(), node.GetName() or "", _dicom_tags(node), is_made_here(node))
        for node in nodes_by_class(scene, "vtkMRMLScalarVolumeNode")
        if node.GetClassName() == "vtkMRMLScalarVolumeNode"  # label maps and vector volumes are kinds of it
        and not node.GetHideFromEditors()
        and _components(node) == 1
    ]


def volume_facts(node: slicer.vtkMRMLScalarVolumeNode) -> VolumeFacts:
    """Name, number of voxels (0 where there is no image), and whether Any2all made it."""
    voxels = math.prod(shape_of(node)) if _components(node) else 0
    return VolumeFacts(node.GetName() or "", voxels, is_made_here(node))


def is_made_here(node: slicer.vtkMRMLScalarVolumeNode) -> bool:
    """Whether a volume is certainly a result: its attribute, its name, or the NIfTI that it was loaded from says so."""
    if node.GetAttribute(ROLE) is not None or names_any2all(node.GetName() or ""):
        return True
    storage = node.GetStorageNode()
    file = storage.GetFileName() if storage is not None else None
    return bool(file) and nifti.is_result(Path(file))


def slices_of(node: slicer.vtkMRMLScalarVolumeNode, slice_mm: float) -> int:
    """How many slices of that thickness the volume is high, along its axis that is closest to inferior-superior.

    0 where there is no image.
    """
    if not _components(node):
        return 0
    affine = world_affine(node) if is_placed_linearly(node) else own_affine(node)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    axis = int(np.argmax(np.abs(affine[2, :3]) / spacing))
    extent = shape_of(node)[axis] * spacing[axis]
    return max(1, math.ceil(round(extent / slice_mm, 6)))


def write_volume(node: slicer.vtkMRMLScalarVolumeNode, path: Path | str) -> None:
    """Write ``.nii.gz`` with the volume's voxels and its place in the world (linear transforms applied), no more.

    Raises:
        ValueError: in words, where a volume cannot be sent as it is: no image, several components, voxels that are no
            numbers, a transform that bends it, a grid whose axes are not at right angles.
    """
    for _ in write_pieces(node, path):
        pass


def write_pieces(node: slicer.vtkMRMLScalarVolumeNode, path: Path | str) -> Iterator[float]:
    """As `write_volume`, a slice at a time, so that a GUI can live in between; yields the fraction that is done.

    What it raises comes before the file is begun. Closed before it has yielded 1, it leaves no file.
    """
    array, affine = _checked(node)
    yield from _finite(array, node.GetName())
    yield from nifti.written(Path(path), array, affine)


def _checked(node: slicer.vtkMRMLScalarVolumeNode) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (K, J, I) and world affine, when nothing speaks against them."""
    name, components = node.GetName(), _components(node)
    if components != 1:
        what = f"has {components} values in each voxel" if components else "holds no image"
        raise ValueError(f"The volume '{name}' {what}. Choose a scalar volume.")
    affine = world_affine(node)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-9:
        raise ValueError(f"The volume '{name}' has a geometry without extent.")
    if shear(affine) > MOST_SHEAR:
        raise ValueError(
            f"The axes of the volume '{name}' are not at right angles. Resample it onto a straight grid first."
        )
    return slicer.util.arrayFromVolume(node), affine


def _finite(array: np.ndarray, name: str) -> Iterator[float]:
    """Look through the voxels, yielding 0 after each slice: so much is written by then."""
    for layer in array if array.dtype.kind == "f" else ():
        if not np.isfinite(layer).all():
            raise ValueError(f"The volume '{name}' holds voxels that are no numbers (NaN or infinite).")
        yield 0.0


def _components(node: slicer.vtkMRMLScalarVolumeNode) -> int:
    """Values in each voxel; 0 where there is no image."""
    image = node.GetImageData()
    if image is None or not image.GetNumberOfPoints() or image.GetPointData().GetScalars() is None:
        return 0
    return int(image.GetNumberOfScalarComponents())


def _dicom_tags(node: slicer.vtkMRMLScalarVolumeNode) -> dict[str, Any]:
    """Values by DICOM keyword of the volume's first instance; empty where Slicer's database does not know it."""
    database = getattr(slicer, "dicomDatabase", None)
    instances = (node.GetAttribute("DICOM.instanceUIDs") or "").split()
    if not database or not database.isOpen or not instances:
        return {}
    values = {keyword: database.instanceValue(instances[0], tag) for keyword, tag in DICOM_TAGS.items()}
    return {keyword: value for keyword, value in values.items() if value}
