"""The subject hierarchy keeps itself up to date: every data node that a person can see gets an item.

Slicer Base/QTGUI or Modules/Loadable/SubjectHierarchy: qSlicerSubjectHierarchyPluginLogic.h. The node is the real one.
"""

from __future__ import annotations

import slicer
import vtk

OWNED = ("vtkMRMLDisplayableNode", "vtkMRMLTextNode", "vtkMRMLTableNode", "vtkMRMLSequenceNode")


class HierarchyKeeper:
    """Makes items for nodes that come and removes items of nodes that go. There is one hierarchy node, never two."""

    def __init__(self, scene: slicer.vtkMRMLScene) -> None:
        self._scene = scene
        self._tags = [
            scene.AddObserver(slicer.vtkMRMLScene.NodeAddedEvent, self._on_added),
            scene.AddObserver(slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, self._on_removed),
            scene.AddObserver(slicer.vtkMRMLScene.EndCloseEvent, lambda *_: self._hierarchy()),
        ]
        self._hierarchy()

    def _hierarchy(self) -> slicer.vtkMRMLSubjectHierarchyNode:
        return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self._scene)

    def _add(self, node: slicer.vtkMRMLNode) -> None:
        if any(node.IsA(kind) for kind in OWNED) and not node.GetHideFromEditors():
            hierarchy = self._hierarchy()
            if hierarchy.GetItemByDataNode(node) == hierarchy.GetInvalidItemID():
                hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_added(self, scene: slicer.vtkMRMLScene, _event: str, node: slicer.vtkMRMLNode) -> None:
        if not scene.IsImporting():  # the items of an imported scene come with it
            self._add(node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_removed(self, scene: slicer.vtkMRMLScene, _event: str, node: slicer.vtkMRMLNode) -> None:
        if scene.IsClosing() or node.IsA("vtkMRMLSubjectHierarchyNode"):
            return
        hierarchy = self._hierarchy()
        item = hierarchy.GetItemByDataNode(node)
        if item != hierarchy.GetInvalidItemID():
            hierarchy.RemoveItem(item, False, False)

    def release(self) -> None:
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
