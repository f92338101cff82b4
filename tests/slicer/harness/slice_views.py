"""Slice views over the real slice logics, and the layout manager that holds them.

Slicer Libs/MRML/Widgets: qMRMLLayoutManager.h, qMRMLSliceWidget.h, qMRMLSliceView.h; CTK ctkVTKAbstractView.h.
Nothing is drawn here: see pixels.py and screens.py for pictures.
"""

from __future__ import annotations

import slicer
import vtk

DATA_PROBE_CORNERS = range(4)  # LowerLeft, LowerRight, UpperLeft, UpperRight


class SliceView:
    """A view's text corners. Slicer's DataProbe module writes into the four corners whenever the slice changes."""

    def __init__(self, node: slicer.vtkMRMLSliceNode, logic: slicer.vtkMRMLSliceLogic) -> None:
        self._node, self._logic = node, logic
        self._annotation = vtk.vtkCornerAnnotation()

    def cornerAnnotation(self) -> vtk.vtkCornerAnnotation:
        return self._annotation

    def mrmlSliceNode(self) -> slicer.vtkMRMLSliceNode:
        return self._node

    def scheduleRender(self) -> None:
        """The offscreen harness draws on request only."""

    forceRender = scheduleRender

    def _write_like_data_probe(self) -> None:
        composite = self._logic.GetSliceCompositeNode()
        lines = []
        if composite is not None and self._node.GetScene() is not None:
            layers = (("B", composite.GetBackgroundVolumeID()), ("F", composite.GetForegroundVolumeID()))
            for letter, node_id in layers:
                volume = self._node.GetScene().GetNodeByID(node_id) if node_id else None
                lines += [f"{letter}: {volume.GetName()}"] if volume else []
        for corner in DATA_PROBE_CORNERS:
            self._annotation.SetText(corner, "\n".join(lines) if corner == 0 else "")


class SliceController:
    """The bar above a view, as far as modules touch it (qMRMLSliceControllerWidget.h)."""

    def __init__(self, logic: slicer.vtkMRMLSliceLogic) -> None:
        self._logic = logic

    def fitSliceToBackground(self) -> None:
        self._logic.FitSliceToBackground()

    def setSliceOffsetValue(self, offset: float) -> None:
        self._logic.SetSliceOffset(offset)


class SliceWidget:
    """One slice view with its logic, found by its layout name."""

    def __init__(self, world_logic: slicer.vtkMRMLApplicationLogic, node: slicer.vtkMRMLSliceNode) -> None:
        self._logic = slicer.vtkMRMLSliceLogic()
        self._logic.SetMRMLApplicationLogic(world_logic)
        self._logic.SetMRMLScene(node.GetScene())
        self._logic.SetSliceNode(node)
        self._view = SliceView(node, self._logic)
        self._tag = self._logic.AddObserver("ModifiedEvent", lambda *_: self._view._write_like_data_probe())

    def sliceLogic(self) -> slicer.vtkMRMLSliceLogic:
        return self._logic

    def sliceView(self) -> SliceView:
        return self._view

    def sliceController(self) -> SliceController:
        return SliceController(self._logic)

    def mrmlSliceNode(self) -> slicer.vtkMRMLSliceNode:
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self) -> slicer.vtkMRMLSliceCompositeNode:
        return self._logic.GetSliceCompositeNode()

    def fitSliceToBackground(self) -> None:
        self._logic.FitSliceToBackground()

    def _release(self) -> None:
        self._logic.RemoveObserver(self._tag)
        self._logic.SetMRMLScene(None)


class LayoutManager:
    """Makes a slice widget for every slice node that the real layout logic asks for."""

    threeDViewCount = 0
    tableViewCount = 0
    plotViewCount = 0

    def __init__(self, application_logic: slicer.vtkMRMLApplicationLogic, scene: slicer.vtkMRMLScene) -> None:
        self._application_logic = application_logic
        self._scene = scene
        self._logics = vtk.vtkCollection()
        self._widgets: dict[str, SliceWidget] = {}
        application_logic.SetSliceLogics(self._logics)
        self._layout_logic = slicer.vtkMRMLLayoutLogic()
        self._layout_logic.SetMRMLApplicationLogic(application_logic)
        self._layout_logic.SetMRMLScene(scene)
        self._observers = [
            (subject, subject.AddObserver(event, lambda *_: self._make_missing()))
            for subject, event in (
                (self._layout_logic.GetLayoutNode(), "ModifiedEvent"),
                (scene, slicer.vtkMRMLScene.EndImportEvent),
            )
        ]
        self.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)

    def _make_missing(self) -> None:
        for index in range(self._scene.GetNumberOfNodesByClass("vtkMRMLSliceNode")):
            node = self._scene.GetNthNodeByClass(index, "vtkMRMLSliceNode")
            if node.GetLayoutName() and node.GetLayoutName() not in self._widgets:
                widget = SliceWidget(self._application_logic, node)
                self._widgets[node.GetLayoutName()] = widget
                self._logics.AddItem(widget.sliceLogic())

    def layoutLogic(self) -> slicer.vtkMRMLLayoutLogic:
        return self._layout_logic

    @property
    def layout(self) -> int:
        return self._layout_logic.GetLayoutNode().GetViewArrangement()

    def setLayout(self, layout: int) -> None:
        node = self._layout_logic.GetLayoutNode()
        if not node.IsLayoutDescription(layout):
            raise ValueError(f"layout {layout} has no description")
        node.SetViewArrangement(layout)
        self._make_missing()

    def sliceViewNames(self) -> tuple[str, ...]:
        return tuple(self._widgets)

    def sliceWidget(self, name: str) -> SliceWidget | None:
        return self._widgets.get(name)

    def mrmlSliceLogics(self) -> vtk.vtkCollection:
        return self._logics

    def resetSliceViews(self) -> None:
        for widget in self._widgets.values():
            widget.sliceLogic().FitSliceToAll()

    def resetThreeDViews(self) -> None:
        """There is no 3D view here."""

    def _visible_names(self) -> list[str]:
        """Slice views of the current layout, in its order."""
        nodes = self._layout_logic.GetViewNodes()
        found = [nodes.GetItemAsObject(i) for i in range(nodes.GetNumberOfItems())]
        return [node.GetLayoutName() for node in found if node.IsA("vtkMRMLSliceNode")]

    def _release(self) -> None:
        for subject, tag in self._observers:
            subject.RemoveObserver(tag)
        for widget in self._widgets.values():
            widget._release()
        self._widgets.clear()
        self._logics.RemoveAllItems()
        self._layout_logic.SetMRMLScene(None)
