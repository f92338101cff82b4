"""The package ``slicer``, completed: MRML and ``slicer.util`` of slicer-core with scene, application and widgets."""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
import slicer.util
import vtk
from PySide6 import QtCore, QtWidgets

from . import ctk_module, dialogs, problems, pythonqt, qmrml, qt_module, scripted, settings
from .app import App
from .hierarchy import HierarchyKeeper

WIDGETS = (qmrml.qMRMLWidget, qmrml.qMRMLNodeComboBox)
LOGICS = {
    "Volumes": "vtkSlicerVolumesLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Units": "vtkSlicerUnitsLogic",
}


class CoreModule:
    """``slicer.modules.volumes`` and its like: a module of Slicer itself, with its real logic."""

    def __init__(self, name: str, logic: Any) -> None:
        self.name = name
        self._logic = logic

    def logic(self) -> Any:
        return self._logic


class Modules:
    """``slicer.modules``: one attribute for each module that is loaded."""


@dataclass
class World:
    """One application with one scene. Tests reach into it; modules see ``slicer`` only."""

    scene: slicer.vtkMRMLScene
    application_logic: slicer.vtkMRMLApplicationLogic
    logics: dict[str, Any]
    app: App
    dialogs: dialogs.Script
    hierarchy: HierarchyKeeper

    def move_cursor(self, ras: tuple[float, float, float], view: str = "Red") -> None:
        """Put the mouse over that point of a slice view, as the crosshair node reports it to modules."""
        node = self.scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        slice_node = self.app.layoutManager().sliceWidget(view).mrmlSliceNode()
        inverse = vtk.vtkMatrix4x4()
        inverse.DeepCopy(slice_node.GetXYToRAS())
        inverse.Invert()
        x, y, z, _ = inverse.MultiplyPoint((*ras, 1.0))
        node.SetCursorPositionXYZ([x, y, z], slice_node)  # the node works out the point of the patient from it


def install() -> None:
    """Put ``qt``, ``ctk`` and the missing parts of ``slicer`` in their places; once for a process."""
    _keep_singletons_alive()
    qt_module.application()
    problems.install()
    sys.modules["qt"], sys.modules["ctk"] = qt_module.build(), ctk_module.build()
    for name, module in scripted.build_modules().items():
        sys.modules[name] = module
        if name.startswith("slicer."):
            setattr(slicer, name.removeprefix("slicer."), module)
    for widget in WIDGETS:
        setattr(slicer, widget.__name__, pythonqt.proxy_class(widget))


def _keep_singletons_alive() -> None:
    """PySide6 (processEvents, findData) takes references to None, True and False away that it never had.

    Before Python 3.12 none are left one day, and the process is aborted.
    """
    if sys.version_info < (3, 12):
        for singleton in (None, True, False):
            ctypes.c_ssize_t.from_address(id(singleton)).value += 2**40


def _caches(scene: slicer.vtkMRMLScene, folder: Path) -> None:
    """Reading a scene bundle asks for them."""
    cache, manager = slicer.vtkCacheManager(), slicer.vtkDataIOManager()
    cache.SetRemoteCacheDirectory(str(folder / "cache"))
    manager.SetCacheManager(cache)
    scene.SetCacheManager(cache)
    scene.SetDataIOManager(manager)


def begin(folder: Path) -> World:
    """A fresh scene and application; ``folder`` takes their temporary files."""
    (folder / "share" / "ColorFiles").mkdir(parents=True)
    slicer.mrmlScene = scene = slicer.vtkMRMLScene()
    slicer.modules, slicer.selfTests = Modules(), {}
    _caches(scene, folder)
    application_logic = slicer.vtkSlicerApplicationLogic()
    application_logic.SetHomeDirectory(str(folder))
    application_logic.SetShareDirectory("share")
    application_logic.SetTemporaryPath(str(folder))
    application_logic.SetMRMLScene(scene)
    logics = _make_logics(application_logic, scene)
    if scene.GetFirstNodeByClass("vtkMRMLCrosshairNode") is None:
        _add_crosshair(scene)
    slicer.app = App(application_logic, logics, folder)
    return World(scene, application_logic, logics, slicer.app, dialogs.script, HierarchyKeeper(scene))


def _make_logics(application_logic: slicer.vtkMRMLApplicationLogic, scene: slicer.vtkMRMLScene) -> dict[str, Any]:
    """The module logics; all know each other before any volume is loaded, or reading crashes."""
    logics = {"Colors": slicer.vtkSlicerColorLogic()}
    logics |= {name: getattr(slicer, cls)() for name, cls in LOGICS.items()}
    for name, logic in logics.items():
        logic.SetMRMLApplicationLogic(application_logic)
        application_logic.SetModuleLogic(name, logic)
        setattr(slicer.modules, name.lower(), CoreModule(name, logic))
    application_logic.SetColorLogic(logics["Colors"])
    for logic in logics.values():
        logic.SetMRMLScene(scene)
    return logics


def _add_crosshair(scene: slicer.vtkMRMLScene) -> None:
    crosshair = slicer.vtkMRMLCrosshairNode()
    crosshair.SetCrosshairName("default")
    crosshair.SetName("Crosshair")
    scene.AddNode(crosshair)


def end(world: World) -> None:
    """Unload modules and take the application apart, in the order in which nothing dangles."""
    scripted.unload_all()
    qmrml.let_go()
    world.hierarchy.release()
    world.app._release()
    QtWidgets.QApplication.processEvents()
    QtWidgets.QApplication.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete)
    for name, logic in world.logics.items():
        logic.SetMRMLScene(None)
        world.application_logic.SetModuleLogic(name, None)
    world.application_logic.SetColorLogic(None)
    world.application_logic.SetMRMLScene(None)
    world.scene.Clear(1)
    slicer.mrmlScene = slicer.app = slicer.modules = None
    settings.clear()
    dialogs.script.clear()
    scripted.SampleDataLogic.registered.clear()
    pythonqt.forget_connections()
    pythonqt.slowest_slot.forget()
    gc.collect()


def run_events(until: Callable[[], bool] | float, timeout: float = 10.0) -> None:
    """Let Qt's events run for so many seconds, or until the condition holds.

    Errors: AssertionError when the condition does not come within ``timeout`` seconds.
    """
    seconds = timeout if callable(until) else float(until)
    end_at = time.monotonic() + seconds
    while time.monotonic() < end_at:
        QtWidgets.QApplication.processEvents()
        if callable(until) and until():
            return
        time.sleep(0.002)
    if callable(until):
        raise AssertionError(f"waited {timeout} s in vain")
