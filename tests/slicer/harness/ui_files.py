"""``.ui`` files, loaded for real by Qt, with CTK's and qMRML's widgets in their places.

Stricter than Slicer: an unknown widget class or a property that a widget does not have is an error, not a warning or a
silent dynamic property.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

from PySide6 import QtCore, QtUiTools, QtWidgets

from .pythonqt import wrap

# Widget classes by name, filled by ctk_module and qmrml.
custom_classes: dict[str, type] = {}


def register(cls: type) -> type:
    """Class decorator: the class may stand in .ui files."""
    custom_classes[cls.__name__] = cls
    return cls


class _NativeLoader(QtUiTools.QUiLoader):
    """Makes our re-creations where the file names a class of CTK or qMRML."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[QtWidgets.QWidget] = []

    def createWidget(self, name: str, parent: Any = None, object_name: str = "") -> QtWidgets.QWidget:
        if name in custom_classes:
            widget = custom_classes[name](parent)
            widget.setObjectName(object_name)
        elif name in self.availableWidgets():
            widget = super().createWidget(name, parent, object_name)
        else:
            raise RuntimeError(f"the .ui file names a widget class that is not known: {name}")
        self.made.append(widget)
        return widget


def refuse_unknown_classes(root: ET.Element, path: str) -> None:
    available = set(QtUiTools.QUiLoader().availableWidgets()) | set(custom_classes)
    unknown = sorted({widget.get("class", "") for widget in root.iter("widget")} - available)
    if unknown:
        raise RuntimeError(f"{path}: widget classes that are not known: {', '.join(unknown)}")


def refuse_unknown_properties(root: ET.Element, widgets: list[QtWidgets.QWidget], path: str) -> None:
    """``stdset="0"`` marks what is meant as a dynamic property; everything else must exist on the class."""
    by_name = {widget.objectName(): widget.metaObject() for widget in widgets}
    for element in root.iter("widget"):
        meta = by_name.get(element.get("name", ""))
        for prop in element.findall("property"):
            if meta and prop.get("stdset") != "0" and meta.indexOfProperty(prop.get("name", "")) < 0:
                raise RuntimeError(f"{path}: {element.get('class')} has no property {prop.get('name')!r}")


def load_native(path: str) -> QtWidgets.QWidget:
    """The root widget of a .ui file, as PySide6 object. Errors: RuntimeError naming what is wrong in the file."""
    with open(path, encoding="utf-8") as file:
        # Qt's signals between Python classes carry VTK objects as PyObject
        text = re.sub(r"vtkMRML(\w+)\s*\*", "PyObject", file.read())
    root = ET.fromstring(text)
    refuse_unknown_classes(root, path)
    buffer = QtCore.QBuffer()
    buffer.setData(text.encode())
    buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
    loader = _NativeLoader()
    widget = loader.load(buffer)
    if widget is None:
        raise RuntimeError(f"{path}: {loader.errorString()}")
    refuse_unknown_properties(root, loader.made, path)
    widget._made_by_loader = loader.made  # Python-side widgets must outlive the loader
    return widget


class UiLoader:
    """``qt.QUiLoader`` as slicer.util.loadUI uses it."""

    def load(self, file: Any, _parent: Any = None) -> Any:
        file.close()
        return wrap(load_native(file.fileName()))
