"""``slicer.ScriptedLoadableModule``, ``slicer.i18n``, ``SampleData``, and how the application brings a module up.

Slicer Base/Python/slicer/ScriptedLoadableModule.py, Base/Python/slicer/i18n.py, Modules/Scripted/SampleData.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
import unittest
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
from PySide6 import QtWidgets

from . import problems, qmrml
from .pythonqt import wrap

PARENT_TYPES = {
    "title": str,
    "categories": list,
    "dependencies": list,
    "contributors": list,
    "helpText": str,
    "acknowledgementText": str,
    "hidden": bool,
    "icon": object,
    "path": str,
    "name": str,
    "index": int,
    "associatedNodeTypes": list,
}


class ModuleParent:
    """What a module describes itself to (qSlicerScriptedLoadableModule, qSlicerAbstractCoreModule.h)."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = str(path), path.stem

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in PARENT_TYPES or not isinstance(value, PARENT_TYPES[name]):
            raise AttributeError(f"a module's parent does not take {name} = {value!r}")
        object.__setattr__(self, name, value)

    def widgetRepresentation(self) -> Any:
        return getattr(slicer.modules, self.name + "Widget").parent


class ScriptedLoadableModule:
    def __init__(self, parent: ModuleParent) -> None:
        super().__init__()
        self.parent = parent
        self.moduleName = type(self).__name__
        parent.title, parent.categories, parent.dependencies, parent.contributors = "", [], [], []
        parent.helpText = parent.acknowledgementText = ""
        slicer.selfTests[self.moduleName] = self.runTest

    def resourcePath(self, filename: str) -> str:
        return os.path.join(os.path.dirname(self.parent.path), "Resources", filename)

    def getDefaultModuleDocumentationLink(self, docPage: str | None = None) -> str:
        page = docPage or f"user_guide/modules/{self.moduleName.lower()}.html"
        return f'<p>See the <a href="{slicer.app.documentationBaseUrl}{page}">documentation</a>.</p>'

    def runTest(self, msec: int = 100) -> None:
        case = getattr(sys.modules[type(self).__module__], self.moduleName + "Test")()
        case.messageDelay = msec
        case.runTest()


class ScriptedLoadableModuleWidget:
    def __init__(self, parent: Any = None) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = slicer.util.settingsValue("Developer/DeveloperMode", False, converter=slicer.util.toBool)
        if not parent:
            raise ValueError("the harness gives every module widget a parent")
        self.parent = parent
        self.layout = parent.layout()
        slicer.app.moduleManager().connect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def resourcePath(self, filename: str) -> str:
        return os.path.join(os.path.dirname(slicer.util.modulePath(self.moduleName)), "Resources", filename)

    def _onModuleAboutToBeUnloaded(self, moduleName: str) -> None:
        if moduleName == self.moduleName:
            self.cleanup()
            slicer.app.moduleManager().disconnect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def cleanup(self) -> None:
        """For the module to override."""

    def setup(self) -> None:
        """For the module to override; the real one adds the developer's reload buttons."""

    def onReload(self) -> None:
        load(Path(slicer.util.modulePath(self.moduleName)))


class ScriptedLoadableModuleLogic:
    def __init__(self, parent: Any = None) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self) -> slicer.vtkMRMLScriptedModuleNode:
        found = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if found is None:
            found = slicer.mrmlScene.AddNode(self.createParameterNode())
        found.SetAttribute("ModuleName", self.moduleName)
        return found

    def createParameterNode(self) -> slicer.vtkMRMLScriptedModuleNode:
        if not self.isSingletonParameterNode:
            raise NotImplementedError("the harness makes singleton parameter nodes only")
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)  # CreateNodeByClass hands out an owned object
        node.SetSingletonTag(self.moduleName)
        node.SetModuleName(self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    messageDelay = 1

    def __init__(self) -> None:
        super().__init__(methodName="runTest")

    def delayDisplay(self, message: str, requestedDelay: int | None = None, msec: int | None = None) -> None:
        slicer.app.processEvents()

    def runTest(self) -> None:
        """For the module to override."""


def translate(_context: str, text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{text!r} cannot be translated")
    return text


def tr(text: str) -> str:
    return translate("", text)


class SampleDataLogic:
    """Records the registered sources; nothing is downloaded."""

    registered: list[dict[str, Any]] = []

    @staticmethod
    def registerCustomSampleDataSource(
        category: str = "Custom",
        sampleName: str | None = None,
        uris: Any = None,
        fileNames: Any = None,
        nodeNames: Any = None,
        customDownloader: Any = None,
        thumbnailFileName: str | None = None,
        fileTypes: Any = "VolumeFile",
        loadFiles: Any = None,
        sampleDescription: str | None = None,
        checksums: Any = None,
        loadFileProperties: dict | None = None,
    ) -> None:
        SampleDataLogic.registered.append(dict(locals()))


def build_modules() -> dict[str, types.ModuleType]:
    """The Python modules that a scripted module imports by these names."""
    scripted, i18n = types.ModuleType("slicer.ScriptedLoadableModule"), types.ModuleType("slicer.i18n")
    classes = (
        ScriptedLoadableModule,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest,
    )
    for cls in classes:
        setattr(scripted, cls.__name__, cls)
    scripted.__all__ = [cls.__name__ for cls in classes]
    i18n.tr, i18n.translate = tr, translate
    sample_data = types.ModuleType("SampleData")
    sample_data.SampleDataLogic = SampleDataLogic
    return {scripted.__name__: scripted, i18n.__name__: i18n, sample_data.__name__: sample_data}


@dataclass
class Loaded:
    """A scripted module as the application holds it: Python module, description, widget and the widget's panel."""

    python: types.ModuleType
    module: Any
    widget: Any
    panel: QtWidgets.QWidget


_loaded: dict[str, Loaded] = {}


def load(path: Path) -> Loaded:
    """Import a scripted module, make its widget in a panel, run ``setup()`` and ``enter()``, as Slicer does in turn.

    A module of that name that is loaded already is unloaded first, as Slicer's reload does.
    """
    name = path.stem
    if name in _loaded:
        unload(name)
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # Slicer does so for every folder of scripted modules
    spec = importlib.util.spec_from_file_location(name, path)
    python = importlib.util.module_from_spec(spec)
    sys.modules[name] = python
    spec.loader.exec_module(python)
    parent = ModuleParent(path)
    module = getattr(python, name)(parent)
    setattr(slicer.modules, name.lower(), parent)
    setattr(slicer.modules, name + "Instance", module)
    slicer.app._emit("startupCompleted()")
    return _make_widget(name, python, module)


def _make_widget(name: str, python: types.ModuleType, module: Any) -> Loaded:
    panel = qmrml.qMRMLWidget()
    panel.setLayout(QtWidgets.QVBoxLayout())
    panel.setMRMLScene(slicer.mrmlScene)
    widget = getattr(python, name + "Widget")(wrap(panel))
    setattr(slicer.modules, name + "Widget", widget)
    _loaded[name] = Loaded(python, module, widget, panel)
    widget.setup()
    if hasattr(widget, "enter"):
        widget.enter()
    return _loaded[name]


def unload(name: str) -> None:
    """Leave the module and clean it up; its own files are forgotten, so that the next import reads them again."""
    loaded = _loaded.pop(name)
    folder = os.path.dirname(loaded.python.__file__)
    try:
        if hasattr(loaded.widget, "exit"):
            loaded.widget.exit()
    except Exception:
        problems.report_exception("exception in exit()")
    slicer.app.moduleManager()._announce_unloading(name)
    loaded.panel.deleteLater()
    QtWidgets.QApplication.processEvents()
    for key, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(folder + os.sep):
            del sys.modules[key]


def unload_all() -> None:
    for name in list(_loaded):
        unload(name)
