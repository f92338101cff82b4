"""How sure is it here: the outputs' values, and how far they are known, under the cursor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import slicer
import vtk

from .outputs import Output, find_outputs

HOUNSFIELD, ARBITRARY = "HU", "a.u."
MOST_DECIMALS = 12


def value_at(scene: slicer.vtkMRMLScene, outputs: Sequence[Output], ras: Sequence[float]) -> str:
    """Value ± std of each output in the voxel nearest to a world position in mm: "CT 34 ± 12 HU · PET 1.31 SUVr".

    '' outside all of them. Where there are several of one modality, as of two patients, they have their volumes' names.
    """
    told, all_of_them = [], [output.modality for output in outputs]
    for output in outputs:
        mean = scene.GetNodeByID(output.mean_id)
        value = voxel_at(mean, ras)
        std = voxel_at(scene.GetNodeByID(output.std_id), ras) if output.std_id else None
        if value is not None:
            name = output.modality if all_of_them.count(output.modality) == 1 else mean.GetName()
            told.append(words(name, output.units, value, std, decimals(output, mean)))
    return " · ".join(told)


def decimals(output: Output, mean: slicer.vtkMRMLScalarVolumeNode) -> int:
    """How many decimals its values are told with: of arbitrary units those that make a hundred steps of its window.

    A scanner's images reach into the thousands, raw data of some reaches 1e-5.
    """
    if output.units != ARBITRARY:
        return 0 if output.units == HOUNSFIELD else 2
    display = mean.GetDisplayNode()
    width = display.GetWindow() if display is not None else 0.0
    return min(max(0, math.ceil(2 - math.log10(width))), MOST_DECIMALS) if width > 0 else 0


def words(name: str, units: str, value: float, std: float | None, digits: int = 0) -> str:
    """One output in words; ``std``: None where it is not known."""
    number = f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: minus zero is zero
    doubt = "" if std is None else f" ± {std:.{digits}f}"
    return f"{name} {number}{doubt} {units}"


def voxel_at(node: slicer.vtkMRMLScalarVolumeNode | None, ras: Sequence[float]) -> float | None:
    """The value of the voxel that a world position lies in; None outside, and of a volume that is gone."""
    if node is None or node.GetImageData() is None:
        return None
    to_node, matrix = vtk.vtkGeneralTransform(), vtk.vtkMatrix4x4()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(None, node.GetParentTransformNode(), to_node)
    node.GetRASToIJKMatrix(matrix)
    ijk = matrix.MultiplyPoint([*to_node.TransformPoint(*ras), 1.0])[:3]
    voxel = [math.floor(index + 0.5) for index in ijk]
    image = node.GetImageData()
    if not all(0 <= index < size for index, size in zip(voxel, image.GetDimensions())):
        return None
    return float(image.GetScalarComponentAsDouble(*voxel, 0))


class CursorReadout:
    """Tells what lies under the cursor whenever that changes; '' where nothing of ours does."""

    def __init__(
        self, scene: slicer.vtkMRMLScene, crosshair_node: slicer.vtkMRMLCrosshairNode, tell: Callable[[str], None]
    ) -> None:
        self._scene, self._crosshair, self._tell = scene, crosshair_node, tell
        self._tag: int | None = None
        self._told = ""

    def start(self) -> None:
        """Follow the cursor from now on."""
        if self._tag is None:
            event = slicer.vtkMRMLCrosshairNode.CursorPositionModifiedEvent
            self._tag = self._crosshair.AddObserver(event, lambda *_: self._moved())

    def stop(self) -> None:
        """Follow it no longer, and take back what was told."""
        if self._tag is not None:
            self._crosshair.RemoveObserver(self._tag)
            self._tag = None
        self._say("")

    def _moved(self) -> None:
        ras = [0.0, 0.0, 0.0]
        inside = self._crosshair.GetCursorPositionRAS(ras)
        self._say(value_at(self._scene, find_outputs(self._scene), ras) if inside else "")

    def _say(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self._tell(text)
