"""``slicer.app``: the application object, and the manager that reads and writes files.

Slicer Base/QTCore/qSlicerCoreApplication.h, qSlicerCoreIOManager.h; Base/QTGUI/qSlicerApplication.h.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from . import problems, settings
from .pythonqt import guarded, wrap
from .slice_views import LayoutManager

VERSION = "5.8.1"
VOLUME_ENDINGS = (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd")
SCENE_ENDINGS = (".mrml", ".mrb")
TRANSFORM_ENDINGS = (".tfm", ".h5")


class CoreIOManager:
    """Enough of qSlicerCoreIOManager for slicer.util's loadVolume, loadTransform, loadScene, saveNode and saveScene."""

    def __init__(self, logics: dict[str, Any]) -> None:
        self._logics = logics

    def fileType(self, filename: str) -> str:
        name = str(filename).lower()
        kinds = {"VolumeFile": VOLUME_ENDINGS, "SceneFile": SCENE_ENDINGS, "TransformFile": TRANSFORM_ENDINGS}
        return next((kind for kind, endings in kinds.items() if name.endswith(endings)), "NoFile")

    def fileWriterFileType(self, node: slicer.vtkMRMLNode) -> str:
        return "VolumeFile" if node.IsA("vtkMRMLVolumeNode") else "TransformFile"

    def loadNodes(self, kind: str, properties: dict, loaded: vtk.vtkCollection, _messages: Any) -> bool:
        path = properties["fileName"]
        if kind == "SceneFile":
            return self._load_scene(path, bool(properties.get("clear", False)))
        if not Path(path).is_file():
            logging.error("%s does not exist", path)
            return False
        name = properties.get("name") or Path(path).name.split(".")[0]
        if kind == "TransformFile":
            node = self._logics["Transforms"].AddTransform(path, slicer.mrmlScene)
        else:
            options = 1 if properties.get("labelmap") else 0
            node = self._logics["Volumes"].AddArchetypeVolume(path, name, options)
        if node is None:
            return False
        if node.IsA("vtkMRMLVolumeNode") and properties.get("show", True):
            logic = slicer.app.applicationLogic()
            logic.GetSelectionNode().SetReferenceActiveVolumeID(node.GetID())
            logic.PropagateVolumeSelection(1)
        loaded.AddItem(node)
        return True

    def _load_scene(self, path: str, clear: bool) -> bool:
        scene = slicer.mrmlScene
        if path.endswith(".mrb"):
            return bool(scene.ReadFromMRB(path, clear))
        scene.SetURL(path)
        return bool(scene.Connect() if clear else scene.Import())

    def saveNodes(self, kind: str, properties: dict, messages: Any = None) -> bool:
        path = str(properties["fileName"])
        scene = slicer.mrmlScene
        if kind == "SceneFile":
            if path.endswith(".mrb"):
                return bool(scene.WriteToMRB(path))
            scene.SetURL(path)
            return bool(scene.Commit(path))
        node = scene.GetNodeByID(properties["nodeID"])
        node.AddDefaultStorageNode()
        node.GetStorageNode().SetFileName(path)
        return bool(node.GetStorageNode().WriteData(node))


class ModuleManager:
    """Announces that a module goes away (qSlicerModuleManager.h)."""

    def __init__(self) -> None:
        self._listeners: list[Callable] = []

    def connect(self, signal: str, function: Callable) -> bool:
        if signal != "moduleAboutToBeUnloaded(QString)":
            raise ValueError(f"qSlicerModuleManager has no signal {signal!r} in the harness")
        self._listeners.append(function)
        return True

    def disconnect(self, _signal: str, function: Callable) -> bool:
        self._listeners.remove(function)
        return True

    def _announce_unloading(self, name: str) -> None:
        for listener in list(self._listeners):
            guarded(listener)(name)


class App:
    """The application object. What is missing here raises AttributeError."""

    applicationName = "Slicer"
    applicationVersion = VERSION
    majorVersion, minorVersion = 5, 8
    revision = "33241"
    arch, platform, os = "amd64", "linux-amd64", "linux"
    documentationBaseUrl = "https://slicer.readthedocs.io/en/5.8/"
    SIGNALS = ("startupCompleted()", "aboutToQuit()")

    def __init__(self, logic: slicer.vtkMRMLApplicationLogic, logics: dict[str, Any], folder: Path) -> None:
        self._logic = logic
        self._layout_manager = LayoutManager(logic, slicer.mrmlScene)
        self._io_manager = CoreIOManager(logics)
        self._module_manager = ModuleManager()
        self._listeners: dict[str, list[Callable]] = {signal: [] for signal in self.SIGNALS}
        self._main_window = QtWidgets.QMainWindow()
        self._main_window.setObjectName("qSlicerMainWindow")
        self.temporaryPath = str(folder)
        self.slicerHome = str(folder)

    def processEvents(self) -> None:
        QtWidgets.QApplication.processEvents()

    def settings(self) -> settings.Settings:
        return settings.Settings()

    userSettings = settings

    def applicationLogic(self) -> slicer.vtkMRMLApplicationLogic:
        return self._logic

    def mrmlScene(self) -> slicer.vtkMRMLScene:
        return slicer.mrmlScene

    def layoutManager(self) -> LayoutManager:
        return self._layout_manager

    def coreIOManager(self) -> CoreIOManager:
        return self._io_manager

    ioManager = coreIOManager

    def moduleManager(self) -> ModuleManager:
        return self._module_manager

    def testingEnabled(self) -> bool:
        """False: dialogs come up, and dialogs.py answers them."""
        return False

    def topLevelWidgets(self) -> list:
        return [wrap(self._main_window)]

    def clipboard(self) -> Any:
        return wrap(QtWidgets.QApplication.clipboard())

    def palette(self) -> Any:
        return wrap(QtWidgets.QApplication.palette())

    def setOverrideCursor(self, cursor: Any) -> None:
        shape = cursor if isinstance(cursor, QtCore.Qt.CursorShape) else cursor._native_object()
        QtWidgets.QApplication.setOverrideCursor(shape)

    def restoreOverrideCursor(self) -> None:
        QtWidgets.QApplication.restoreOverrideCursor()

    def pauseRender(self) -> None:
        self._logic.PauseRender()

    def resumeRender(self) -> None:
        self._logic.ResumeRender()

    def connect(self, signal: str, function: Callable) -> bool:
        if signal not in self._listeners:
            raise ValueError(f"qSlicerApplication has no signal {signal!r} in the harness")
        self._listeners[signal].append(function)
        return True

    def _emit(self, signal: str) -> None:
        for function in self._listeners[signal]:
            guarded(function)()

    def _release(self) -> None:
        cursors = 0
        while QtWidgets.QApplication.overrideCursor() is not None:
            QtWidgets.QApplication.restoreOverrideCursor()
            cursors += 1
        if cursors:
            problems.report("cursor", f"{cursors} override cursors were left")
        self._layout_manager._release()
        self._main_window.deleteLater()
