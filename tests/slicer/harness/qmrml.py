"""qMRML widgets over the real scene, named as in Slicer's Libs/MRML/Widgets/qMRMLWidget.h and qMRMLNodeComboBox.h."""

from __future__ import annotations

import weakref
from typing import Any

import slicer
from PySide6 import QtCore, QtWidgets

from .ctk_module import setter, stored
from .ui_files import register

NODE_ID = QtCore.Qt.ItemDataRole.UserRole
_watching: weakref.WeakSet[qMRMLNodeComboBox] = weakref.WeakSet()


def let_go() -> None:
    """Take every combo box off its scene: VTK must not call one while Python throws it away."""
    for combo in list(_watching):
        combo._forget_scene()


# Slicer Libs/MRML/Widgets/qMRMLWidget.h
@register
class qMRMLWidget(QtWidgets.QWidget):
    """A widget that knows the scene and passes it on."""

    mrmlSceneChanged = QtCore.Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene = None

    def mrmlScene(self) -> slicer.vtkMRMLScene:
        return self._scene

    @QtCore.Slot(object)
    def setMRMLScene(self, scene: slicer.vtkMRMLScene) -> None:
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


# Slicer Libs/MRML/Widgets/qMRMLNodeComboBox.h
@register
class qMRMLNodeComboBox(QtWidgets.QWidget):
    """The nodes of a scene that are of given classes, in the scene's order."""

    currentNodeChanged = QtCore.Signal((object,), (bool,))
    currentNodeIDChanged = QtCore.Signal(str)
    nodeActivated = QtCore.Signal(object)
    nodeAdded = QtCore.Signal(object)
    nodeAddedByUser = QtCore.Signal(object)
    nodeAddedByUserAction = QtCore.Signal(object)
    nodeAboutToBeRemoved = QtCore.Signal(object)
    currentNodeRenamed = QtCore.Signal(str)

    addEnabled = stored(bool, "addEnabled", True)
    setAddEnabled = setter(addEnabled)
    removeEnabled = stored(bool, "removeEnabled", True)
    setRemoveEnabled = setter(removeEnabled)
    editEnabled = stored(bool, "editEnabled", False)
    setEditEnabled = setter(editEnabled)
    renameEnabled = stored(bool, "renameEnabled", False)
    setRenameEnabled = setter(renameEnabled)
    baseName = stored(str, "baseName", "")
    setBaseName = setter(baseName)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self._combo = QtWidgets.QComboBox()
        self._combo.setEnabled(False)
        self._combo.setSizePolicy(QtWidgets.QSizePolicy.Policy.Expanding, QtWidgets.QSizePolicy.Policy.Fixed)
        row.addWidget(self._combo)
        self._combo.currentIndexChanged.connect(self._on_index)
        self._combo.activated.connect(lambda _: self.nodeActivated.emit(self.currentNode()))
        self._scene = None
        self._observers: list[tuple[Any, int]] = []
        self._types: list[str] = []
        self._hidden_types: list[str] = []
        self._attributes: dict[str, dict[str, str | None]] = {}
        self._flags = {"noneEnabled": False, "showHidden": False, "showChildNodeTypes": True, "upon": True}
        self._none_text = "None"
        self._current: str | None = None
        self._refreshing = False

    # --- scene

    def mrmlScene(self) -> slicer.vtkMRMLScene:
        return self._scene

    @QtCore.Slot(object)
    def setMRMLScene(self, scene: slicer.vtkMRMLScene) -> None:
        self._forget_scene()
        self._scene = scene
        _watching.add(self)
        self._combo.setEnabled(scene is not None)
        if scene is not None:
            events = ("NodeAddedEvent", "NodeRemovedEvent", "EndBatchProcessEvent", "EndImportEvent", "EndCloseEvent")
            for event in events:
                tag = scene.AddObserver(getattr(slicer.vtkMRMLScene, event), lambda *_: self._refresh())
                self._observers.append((scene, tag))
        self._refresh()

    def _forget_scene(self) -> None:
        for node, tag in self._observers:
            node.RemoveObserver(tag)
        self._observers.clear()

    def _accepts(self, node: slicer.vtkMRMLNode) -> bool:
        if node.GetHideFromEditors() and not self._flags["showHidden"]:
            return False
        if any(node.IsA(kind) for kind in self._hidden_types):
            return False
        child = self._flags["showChildNodeTypes"]
        kind = next((k for k in self._types if (node.IsA(k) if child else node.GetClassName() == k)), None)
        wanted = self._attributes.get(kind, {})
        return kind is not None and all(self._has(node, name, value) for name, value in wanted.items())

    @staticmethod
    def _has(node: slicer.vtkMRMLNode, name: str, value: str | None) -> bool:
        found = node.GetAttribute(name)
        return found is not None if value is None else found == value

    def nodes(self) -> list[slicer.vtkMRMLNode]:
        if self._scene is None:
            return []
        everything = (self._scene.GetNthNode(i) for i in range(self._scene.GetNumberOfNodes()))
        return [node for node in everything if self._accepts(node)]

    def _listed(self) -> list[str]:
        ids = (self._combo.itemData(row, NODE_ID) for row in range(self._combo.count()))
        return [node_id for node_id in ids if node_id]

    def _refresh(self) -> None:
        """Bring the list up to the scene; the chosen node stays chosen while it lives.

        Where it goes, QComboBox moves on to the row before (QComboBoxPrivate::_q_rowsRemoved).
        """
        if self._scene is not None and self._scene.IsBatchProcessing():
            return
        nodes, before, row = self.nodes(), self._listed(), self._combo.currentIndex()
        self._refreshing = True
        self._combo.clear()
        if self._flags["noneEnabled"]:
            self._combo.addItem(self._none_text, "")
        for node in nodes:
            self._combo.addItem(node.GetName() or "", node.GetID())
        ids = [node.GetID() for node in nodes]
        if self._current is not None and self._current not in ids:
            self._combo.setCurrentIndex(min(self._combo.count() - 1, max(row - 1, 0)))
        else:  # without "None", something is chosen as soon as there is something to choose
            first = ids[0] if ids and not self._flags["noneEnabled"] else None
            self._select(self._current or first)
        self._refreshing = False
        self._watch_names(nodes)
        for node in nodes:
            if node.GetID() not in before:
                self.nodeAdded.emit(node)
        self._announce()

    def _watch_names(self, nodes: list[slicer.vtkMRMLNode]) -> None:
        kept = [(node, tag) for node, tag in self._observers if node is self._scene]
        for node, tag in self._observers:
            if node is not self._scene:
                node.RemoveObserver(tag)
        modified = [(node, node.AddObserver("ModifiedEvent", self._on_node_modified)) for node in nodes]
        self._observers = kept + modified

    def _on_node_modified(self, node: slicer.vtkMRMLNode, _event: str) -> None:
        row = self._combo.findData(node.GetID(), NODE_ID)
        if row < 0 or not self._accepts(node):
            self._refresh()
        elif self._combo.itemText(row) != node.GetName():
            self._combo.setItemText(row, node.GetName())
            if node.GetID() == self._current:
                self.currentNodeRenamed.emit(node.GetName())

    # --- the chosen node

    def _select(self, node_id: str | None) -> None:
        self._combo.setCurrentIndex(self._combo.findData(node_id or "", NODE_ID))

    def _on_index(self, _row: int) -> None:
        if not self._refreshing:
            self._announce()

    def _announce(self) -> None:
        node_id = self._combo.currentData(NODE_ID) or None
        if node_id == self._current:
            return
        self._current = node_id
        self.currentNodeChanged[object].emit(self.currentNode())
        self.currentNodeChanged[bool].emit(node_id is not None)
        self.currentNodeIDChanged.emit(node_id or "")

    def currentNode(self) -> slicer.vtkMRMLNode | None:
        return self._scene.GetNodeByID(self._current) if self._scene is not None and self._current else None

    def setCurrentNode(self, node: slicer.vtkMRMLNode | str | None) -> None:
        self.setCurrentNodeID(node if isinstance(node, str) else node.GetID() if node is not None else "")

    def setCurrentNodeID(self, node_id: str) -> None:
        self._select(node_id)

    def setCurrentNodeIndex(self, index: int) -> None:
        self.setCurrentNode(self.nodeFromIndex(index))

    def nodeCount(self) -> int:
        return len(self._listed())

    def nodeFromIndex(self, index: int) -> slicer.vtkMRMLNode | None:
        ids = self._listed()
        return self._scene.GetNodeByID(ids[index]) if 0 <= index < len(ids) else None

    def addNode(self, kind: str = "") -> slicer.vtkMRMLNode:
        node = self._scene.AddNewNodeByClass(kind or self._types[0], self.baseName)
        if self._flags["upon"]:
            self.setCurrentNode(node)
        self.nodeAddedByUserAction.emit(node)
        self.nodeAddedByUser.emit(node)
        return node

    def removeCurrentNode(self) -> None:
        node = self.currentNode()
        self.nodeAboutToBeRemoved.emit(node)
        self._scene.RemoveNode(node)

    def addAttribute(self, kind: str, name: str, value: str | None = None) -> None:
        self._attributes.setdefault(kind, {})[name] = value
        self._refresh()

    def removeAttribute(self, kind: str, name: str) -> None:
        self._attributes.get(kind, {}).pop(name, None)
        self._refresh()

    # --- properties

    def setNodeTypes(self, types: list[str]) -> None:
        self._types = list(types)
        self._refresh()

    def setHideChildNodeTypes(self, types: list[str]) -> None:
        self._hidden_types = list(types)
        self._refresh()

    def setNoneDisplay(self, text: str) -> None:
        self._none_text = text
        self._refresh()

    def _set_flag(self, name: str, value: bool) -> None:
        self._flags[name] = value
        self._refresh()

    def setNoneEnabled(self, enabled: bool) -> None:
        self._set_flag("noneEnabled", enabled)

    def setShowHidden(self, shown: bool) -> None:
        self._set_flag("showHidden", shown)

    def setShowChildNodeTypes(self, shown: bool) -> None:
        self._set_flag("showChildNodeTypes", shown)

    def setSelectNodeUponCreation(self, selected: bool) -> None:
        self._flags["upon"] = selected

    nodeTypes = QtCore.Property("QStringList", lambda self: self._types, setNodeTypes)
    hideChildNodeTypes = QtCore.Property("QStringList", lambda self: self._hidden_types, setHideChildNodeTypes)
    noneDisplay = QtCore.Property(str, lambda self: self._none_text, setNoneDisplay)
    noneEnabled = QtCore.Property(bool, lambda self: self._flags["noneEnabled"], setNoneEnabled)
    showHidden = QtCore.Property(bool, lambda self: self._flags["showHidden"], setShowHidden)
    showChildNodeTypes = QtCore.Property(bool, lambda self: self._flags["showChildNodeTypes"], setShowChildNodeTypes)
    selectNodeUponCreation = QtCore.Property(bool, lambda self: self._flags["upon"], setSelectNodeUponCreation)
    currentNodeID = QtCore.Property(str, lambda self: self._current or "", setCurrentNodeID)


def choose(combo_proxy: Any, text: str) -> None:
    """Choose the item with that text in a node combo box, as a person does with the mouse."""
    native = combo_proxy._native_object()
    row = native._combo.findText(text)
    if row < 0 or not native._combo.isEnabled():
        shown = [native._combo.itemText(i) for i in range(native._combo.count())]
        raise AssertionError(f"{native.objectName()}: no item {text!r} to choose; it shows {shown}")
    native._combo.setCurrentIndex(row)
    native._combo.activated.emit(row)
