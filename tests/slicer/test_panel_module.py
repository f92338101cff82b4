"""The module as Slicer sees it: description, sample data, self-test, words for every widget, Python 3.9."""

from __future__ import annotations

import ast
import sys

import lib_path
import pytest
import slicer
from harness.scripted import SampleDataLogic
from panel_driver import MODULE, add_volume, at_the_panel

FILES = [MODULE, *sorted(lib_path.LIBRARY.glob("*.py"))]
ALLOWED = {*sys.stdlib_module_names, "numpy", "vtk", "qt", "ctk", "slicer", "Any2allLib", "SampleData"}
WAITING = {"threading", "multiprocessing", "concurrent", "asyncio", "queue"}


@pytest.fixture
def person(load_module, run_events):
    with at_the_panel(load_module, run_events) as someone:
        yield someone


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nothing_that_slicers_python_lacks(file):
    tree = ast.parse(file.read_text(encoding="utf-8"), feature_version=(3, 9))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "_":
            assert isinstance(node.args[0], ast.Constant), f"{file.name}: {ast.unparse(node)} cannot be translated"
    assert names <= ALLOWED and not names & WAITING
    assert "parameterNodeWrapper" not in file.read_text(encoding="utf-8")
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400


def test_description(person):
    parent = person.loaded.module.parent
    assert (parent.title, parent.categories) == ("Any2all", ["Image Synthesis"])
    assert "2602.08249" in parent.acknowledgementText
    assert "Not a medical device" in parent.helpText and "CTMRBrain" in parent.helpText


def test_the_demonstration_of_a_local_server_is_sample_data(person):
    entry = SampleDataLogic.registered[0]
    assert entry["sampleName"] == "Any2allDemonstration" and entry["nodeNames"] == ["T1", "T2star", "T2FLAIR"]
    assert entry["uris"][0] == "http://127.0.0.1:8000/datastore/image?image=demonstration/T1"
    assert len(entry["uris"]) == len(entry["fileNames"]) == len(entry["nodeNames"])


def test_the_self_test_runs_without_any_server(person):
    slicer.selfTests["Any2allSlicer"]()
    assert person.server.log == []
    assert person.made() == ["CT · synthesised · Any2all", "CT · uncertainty (std) · Any2all"]
    person.idle()


def test_every_widget_that_can_be_used_says_what_it_is_for(person):
    add_volume("T1")
    person.connect()
    kinds = ("QPushButton", "QToolButton", "QComboBox", "QCheckBox", "QRadioButton", "QLineEdit", "QSpinBox", "QSlider")
    kinds = (*kinds, "ctkCollapsibleButton", "ctkPathLineEdit", "qMRMLNodeComboBox", "QTableWidget")
    without = [
        child.objectName
        for kind in kinds
        for child in person.widget.parent.findChildren(kind)
        if child.objectName and not child.objectName.startswith("qt_") and not child.toolTip
    ]
    assert without == []


def test_the_tab_key_goes_from_top_to_bottom(person):
    person.connect()
    order, widget = [], person.ui.urlCombo._native_object()
    for _ in range(400):
        widget = widget.nextInFocusChain()
        parent = widget.parent()  # a part of T1_volume counts as T1_volume
        order.append(widget.objectName() or (parent.objectName() if parent else ""))
    wanted = ["testButton", "T1_missing", "T1_volume", "T1_raw", "T2_available", "PET_volume", "assignButton"]
    wanted += ["presetBalanced", "applyButton", "outputsTable", "blinkButton"]
    places = [order.index(name) for name in wanted]
    assert places == sorted(places), dict(zip(wanted, places))


def test_a_stack_of_another_server_is_taken_on(person):
    add_volume("T1")
    person.connect()
    person.server.info["stack"] = [m for m in person.server.info["stack"] if m["name"] in ("T1", "CT")]
    person.connect()
    assert person.ticks() == {"T1": "available", "CT": "missing"} and person.ui.applyButton.enabled
    assert slicer.util.findChildren(person.widget.parent, "PET_wanted") == []
