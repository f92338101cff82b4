"""Our .ui files use nothing that Slicer, CTK or Qt does not have; the list itself is checked where Qt is installed."""

from __future__ import annotations

from pathlib import Path

import pytest
from allowed_ui import WIDGETS, allowed_for, problems_of

FOLDER = Path(__file__).parents[2] / "Any2allSlicer" / "Resources" / "UI"

TEXT = """<ui version="4.0">
 <class>Panel</class>
 <widget class="qMRMLWidget" name="Panel">
  <layout class="QVBoxLayout" name="layout">
   <item>
    <widget class="qMRMLNodeComboBox" name="selector">
     <property name="noneEnabled"><bool>true</bool></property>
     <property name="SlicerParameterName" stdset="0"><string>x</string></property>
    </widget>
   </item>
  </layout>
 </widget>
 <connections>
  <connection>
   <sender>Panel</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal>
   <receiver>selector</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot>
  </connection>
 </connections>
</ui>"""


def test_the_panel_uses_only_what_is_on_the_list():
    files = sorted(FOLDER.glob("*.ui"))
    assert files
    assert {path.name: problems_of(path) for path in files} == {path.name: [] for path in files}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("", "", None),
        ("noneEnabled", "noneAllowed", "selector: qMRMLNodeComboBox has no property noneAllowed"),
        ('class="qMRMLNodeComboBox"', 'class="QQuickWidget"', "selector: class QQuickWidget is not on the list"),
        ("QVBoxLayout", "QFlowLayout", "layout: layout QFlowLayout is not on the list"),
        ("mrmlSceneChanged", "sceneChanged", "Panel: qMRMLWidget has no signal sceneChanged(vtkMRMLScene*)"),
        ("<slot>setMRMLScene", "<slot>setScene", "selector: qMRMLNodeComboBox has no slot setScene(vtkMRMLScene*)"),
        ("<receiver>selector", "<receiver>other", "connection: receiver other does not exist"),
    ],
)
def test_what_is_not_on_the_list_is_named(tmp_path, old, new, words):
    (tmp_path / "panel.ui").write_text(TEXT.replace(old, new) if old else TEXT)
    assert problems_of(tmp_path / "panel.ui") == ([words] if words else [])


def test_every_entry_names_its_source_and_a_known_base():
    for name, entry in WIDGETS.items():
        assert entry.source.split()[0] in ("Qt", "CTK", "Slicer"), name
        assert entry.base in WIDGETS or name == "QWidget"


def test_qt_itself_has_every_property_signal_and_slot_of_the_list():
    """Qt's own classes are asked; CTK's and Slicer's stand-ins follow the same list."""
    pytest.importorskip("PySide6", reason="PySide6 not installed: the list is not compared with Qt")
    pytest.importorskip("slicer_core", reason="slicer-core not installed: the list is not compared with Qt")
    from harness import qt_module, ui_files
    from PySide6 import QtWidgets

    qt_module.application()
    missing = []
    for name in set(WIDGETS) - {"QAbstractButton"}:  # abstract: its entries are looked for in its subclasses
        widget = (ui_files.custom_classes.get(name) or getattr(QtWidgets, "QFrame" if name == "Line" else name))()
        meta = widget.metaObject()
        methods = {meta.method(index).methodSignature().data().decode() for index in range(meta.methodCount())}
        wanted = allowed_for(name, "signals") | allowed_for(name, "slots")
        signatures = {text.replace("vtkMRMLScene*", "PyObject").replace("vtkMRMLNode*", "PyObject") for text in wanted}
        missing += [f"{name}.{prop}" for prop in allowed_for(name, "properties") if meta.indexOfProperty(prop) < 0]
        missing += [f"{name}.{signature}" for signature in signatures - methods]
    # set by Qt Designer's form builder, not properties of the class
    assert set(missing) <= {"Line.orientation", "QLabel.buddy"}
