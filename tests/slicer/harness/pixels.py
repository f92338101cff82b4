"""What a slice view shows, as numbers and without OpenGL: the slice logic blends its layers in software."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer
import vtk
from PySide6 import QtGui
from vtk.util.numpy_support import vtk_to_numpy

VIEWS = {"axial": "Red", "coronal": "Green", "sagittal": "Yellow"}


def slice_logic(view: str) -> slicer.vtkMRMLSliceLogic:
    """Logic of a view, by layout name ("Red") or by orientation ("axial")."""
    widget = slicer.app.layoutManager().sliceWidget(VIEWS.get(view, view))
    if widget is None:
        raise AssertionError(f"no slice view {view!r}; there are {slicer.app.layoutManager().sliceViewNames()}")
    return widget.sliceLogic()


def render(view: str, size: tuple[int, int] = (200, 200), fit: bool = True, offset: float | None = None) -> np.ndarray:
    """The blended picture of a view, (height, width, 4) uint8 RGBA, first row at the top as a person sees it.

    Axial views have the patient's right on the left and anterior at the top. ``offset`` is the slice position in mm;
    with ``fit`` the view shows all of its volumes, centred.
    """
    logic = slice_logic(view)
    width, height = size
    logic.GetSliceNode().SetDimensions(width, height, 1)
    if fit:
        logic.FitSliceToAll()
    if offset is not None:
        logic.SetSliceOffset(offset)
    connection = logic.GetImageDataConnection()
    if connection is None:
        return np.zeros((height, width, 4), np.uint8)
    connection.GetProducer().Update()
    image = connection.GetProducer().GetOutputDataObject(connection.GetIndex())
    colours = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)
    return np.ascontiguousarray(colours[::-1])


def pixel_of(view: str, ras: tuple[float, float, float]) -> tuple[int, int]:
    """Row and column at which a point of the patient lies in the last picture of a view."""
    node = slice_logic(view).GetSliceNode()
    inverse = vtk.vtkMatrix4x4()
    inverse.DeepCopy(node.GetXYToRAS())
    inverse.Invert()
    x, y, _, _ = inverse.MultiplyPoint((*ras, 1.0))
    return node.GetDimensions()[1] - 1 - round(y), round(x)


def to_image(rgba: np.ndarray) -> QtGui.QImage:
    """A QImage of its own memory."""
    height, width = rgba.shape[:2]
    return QtGui.QImage(rgba.tobytes(), width, height, 4 * width, QtGui.QImage.Format.Format_RGBA8888).copy()


def save_png(rgba: np.ndarray, path: Path) -> None:
    """Write a picture on black, as the views show it."""
    image = to_image(rgba)
    black = QtGui.QImage(image.size(), QtGui.QImage.Format.Format_RGB32)
    black.fill(QtGui.QColor("black"))
    painter = QtGui.QPainter(black)
    painter.drawImage(0, 0, image)
    painter.end()
    if not black.save(str(path)):
        raise OSError(f"cannot write {path}")
