"""The harness's Qt: it must refuse what Slicer refuses. Misuse of every kind fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import slicer
from harness import problems, qmrml, ui_files
from harness.pythonqt import slowest_slot
from tiny_module import UI, ball_volume, write


@pytest.fixture
def tiny(tmp_path: Path, load_module):
    """The tiny module's widget."""
    return load_module(write(tmp_path)).widget


# --- PythonQt's manners


def test_properties_are_attributes_and_have_setters(slicer_scene):
    import qt

    label, box = qt.QLabel("first"), qt.QSpinBox()
    label.text = "second"
    assert label.text == "second"
    label.setText("third")
    assert (label.text, label.wordWrap, label.name) == ("third", False, "")
    label.name = "status"
    box.setRange(1, 9)
    box.value = 12
    assert (label.objectName, box.value, box.maximum) == ("status", 9, 9)


def test_both_ways_to_connect_pass_what_the_function_takes(slicer_scene):
    import qt

    button, heard = qt.QPushButton("x"), []
    button.checkable = True
    button.connect("clicked(bool)", heard.append)
    button.connect("clicked()", lambda: heard.append("plain"))
    button.clicked.connect(lambda: heard.append("first overload, no argument taken"))
    button.click()
    assert heard == [True, "plain", "first overload, no argument taken"]


def test_disconnect_and_block_signals(slicer_scene):
    import qt

    edit, heard = qt.QLineEdit(), []
    edit.connect("textChanged(QString)", heard.append)
    edit.text = "a"
    edit.blockSignals(True)
    edit.text = "b"
    edit.blockSignals(False)
    assert edit.disconnect("textChanged(QString)", heard.append)
    edit.text = "c"
    assert heard == ["a"]


def test_a_timer_calls_a_bound_method(slicer_scene, run_events):
    import qt

    ticks = []
    timer = qt.QTimer()
    timer.setInterval(5)
    timer.timeout.connect(lambda: ticks.append(1))
    timer.start()
    run_events(until=lambda: len(ticks) >= 3, timeout=2)
    timer.stop()
    assert not timer.active


def test_a_table_of_widgets_is_built_and_read(slicer_scene):
    import qt

    table = qt.QTableWidget(0, 2)
    table.setHorizontalHeaderLabels(["Modality", "Status"])
    table.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
    table.rowCount = 1
    item = qt.QTableWidgetItem("T1")
    item.setFlags(qt.Qt.ItemIsEnabled)
    item.setData(qt.Qt.UserRole, "t1")
    table.setItem(0, 0, item)
    status, heard = qt.QComboBox(), []
    for text in ("available", "missing"):
        status.addItem(text, text.upper())
    table.setCellWidget(0, 1, status)
    status.connect("currentIndexChanged(int)", heard.append)
    table.cellWidget(0, 1).setCurrentIndex(1)
    assert (status.currentText, status.currentData, status.count, heard) == ("missing", "MISSING", 2, [1])
    assert table.item(0, 0).text() == "T1" and table.item(0, 0).data(qt.Qt.UserRole) == "t1"
    assert table.cellWidget(0, 1) == status and table.item(0, 1) is None


def test_buttons_layouts_and_pictures(slicer_scene, run_events):
    import qt

    panel, group, heard = qt.QWidget(), qt.QButtonGroup(), []
    form = qt.QFormLayout(panel)
    for index, text in enumerate(("available", "missing")):
        button = qt.QRadioButton(text)
        button.setIcon(qt.QIcon(qt.QPixmap(8, 8)))
        button.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)
        group.addButton(button, index)
        form.addRow(text, button)
    group.connect("idClicked(int)", heard.append)
    group.button(1).click()
    qt.QTimer.singleShot(0, lambda: heard.append("later"))
    run_events(until=lambda: "later" in heard)
    assert heard == [1, "later"] and group.checkedId() == 1 and form.rowCount() == 2
    assert panel.layout() == form and len(panel.findChildren(qt.QRadioButton)) == 2
    menu = qt.QMenu(panel)
    menu.addAction("Copy").connect("triggered(bool)", lambda: heard.append("copied"))
    menu.actions()[0].trigger()
    assert heard[-1] == "copied" and slicer.util.findChild(panel, "") is not None


def misuse_unknown_get(qt):
    return qt.QLabel().txet


def misuse_unknown_set(qt):
    qt.QLabel().colour = "red"


def misuse_type(qt):
    qt.QLabel().text = 5


def misuse_flag(qt):
    qt.QLabel().enabled = np.bool_(True)


def misuse_overwritten_method(qt):
    qt.QLabel().setText = print


def misuse_class(qt):
    return qt.QNoSuchWidget()


def misuse_scoped_enum(qt):
    return qt.Qt.AlignmentFlag.AlignLeft


def misuse_qt6_name(qt):
    return qt.QCheckBox().checkStateChanged


def misuse_read_only(qt):
    qt.QLabel().width = 3


@pytest.mark.parametrize("misuse", [value for name, value in sorted(globals().items()) if name.startswith("misuse_")])
def test_misuse_raises_attribute_error(slicer_scene, misuse):
    import qt

    with pytest.raises(AttributeError):
        misuse(qt)


@pytest.mark.parametrize(
    "signal", ["clicked(int)", "pressed2()", "stateChanged(int)", "checkStateChanged(Qt::CheckState)"]
)
def test_connecting_to_an_unknown_signal_fails(slicer_scene, signal):
    import qt

    with pytest.raises(ValueError, match="has no signal"):
        qt.QPushButton().connect(signal, print)


def test_keyword_arguments_do_not_exist(slicer_scene):
    import qt

    with pytest.raises(TypeError):
        qt.QLabel(text="x")
    with pytest.raises(TypeError):
        qt.QLabel().setText(text="x")


def test_a_subclass_takes_attributes_and_overrides_nothing(slicer_scene):
    import qt

    class Row(qt.QWidget):
        pass

    row = Row()
    row.modality = "T1"
    row.enabled = False
    assert (row.modality, row.enabled) == ("T1", False)
    with pytest.raises(TypeError, match="sizeHint"):
        type("Bad", (qt.QWidget,), {"sizeHint": lambda self: None})


def test_an_exception_in_a_slot_is_held_against_the_test(slicer_scene):
    import qt

    button = qt.QPushButton()
    button.clicked.connect(lambda: 1 / 0)
    with problems.expected("ZeroDivisionError"):
        button.click()
    with pytest.raises(AssertionError, match="expected a problem"), problems.expected("ZeroDivisionError"):
        pass
    button.click()
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        problems.assert_none()


def test_an_exception_in_a_scene_observer_is_held_against_the_test(slicer_scene):
    def fail(caller, event):
        raise KeyError("observer")

    tag = slicer.mrmlScene.AddObserver(slicer.vtkMRMLScene.NodeAddedEvent, fail)
    with problems.expected("KeyError: 'observer'"):
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode")
    slicer.mrmlScene.RemoveObserver(tag)


def test_a_vtk_error_is_held_against_the_test(slicer_scene):
    with problems.expected("VTK ErrorEvent"):
        slicer.vtkMRMLScalarVolumeNode().SetAndObserveStorageNodeID("x")
        slicer.mrmlScene.AddNode(None)
        slicer.mrmlScene.RemoveNode(None)


def test_the_slowest_slot_is_measured(slicer_scene):
    import time

    import qt

    button = qt.QPushButton()
    button.clicked.connect(lambda: time.sleep(0.03))
    button.click()
    assert slowest_slot.seconds >= 0.03 and "lambda" in slowest_slot.name
    assert slowest_slot.worked < 0.03
    button.clicked.connect(lambda: [None for _ in range(1_000_000)])
    button.click()
    assert slowest_slot.worked > 0.005 and "lambda" in slowest_slot.hardest


def test_settings_come_back_as_text(slicer_scene):
    import qt

    qt.QSettings().setValue("A/flag", True)
    qt.QSettings().setValue("A/one", ["x"])
    qt.QSettings().setValue("A/two", ["x", "y"])
    assert qt.QSettings().value("A/flag") == "true" and slicer.util.settingsValue("A/flag", False, slicer.util.toBool)
    assert (qt.QSettings().value("A/one"), qt.QSettings().value("A/two")) == ("x", ("x", "y"))
    assert slicer.app.settings().value("A/none", 3) == 3


def test_dialogs_are_recorded_and_answered(slicer_scene):
    import qt

    slicer_scene.dialogs.answer("cancel", "yes", "/tmp/a.h5")
    assert not slicer.util.confirmOkCancelDisplay("send it?")
    assert slicer.util.confirmYesNoDisplay("really?")
    assert qt.QFileDialog.getOpenFileName(None, "Raw data", "", "HDF5 (*.h5)") == "/tmp/a.h5"
    slicer.util.errorDisplay("it broke", detailedText="why")
    assert slicer_scene.dialogs.texts() == ["send it?", "really?", "Raw data", "it broke"]
    assert slicer_scene.dialogs.shown[-1].details == "why"
    with problems.expected("no answer"):
        slicer.util.confirmOkCancelDisplay("and now?")


# --- .ui files


def test_the_tiny_module_works_as_a_person_would_use_it(tiny, slicer_scene):
    ui = tiny.ui
    assert not ui.applyButton.enabled and ui.status.text == "choose a volume" and ui.acceleration.value == 4.0
    ball_volume((0, 0, 0), name="head")
    assert ui.inputSelector.nodeCount() == 1 and ui.inputSelector.currentNode() is None
    qmrml.choose(ui.inputSelector, "head")
    assert ui.applyButton.enabled and ui.status.text == "head"
    ui.applyButton.click()
    assert ui.status.text.startswith("mean 1")
    ui.acceleration.value = 6.0
    assert ui.status.text == "R = 6"
    slicer.mrmlScene.Clear(0)
    assert not ui.applyButton.enabled and ui.status.text == "closed" and ui.inputSelector.nodeCount() == 0
    tiny.onReload()
    assert tiny.cleaned == ["closed"] and slicer.modules.TinyWidget is not tiny


def test_a_collapsible_button_hides_its_children(tiny):
    button, label = tiny.ui.inputs, tiny.ui.label
    assert not button.collapsed
    button.collapsed = True
    assert not label.isVisibleTo(button)
    button.click()
    assert label.isVisibleTo(button)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("ctkSliderWidget", "ctkNoSuchWidget", "ctkNoSuchWidget"),
        ('name="maximum"', 'name="maximumValue"', "no property 'maximumValue'"),
    ],
)
def test_a_wrong_ui_file_is_refused(slicer_scene, tmp_path, old, new, words):
    (tmp_path / "wrong.ui").write_text(UI.replace(old, new))
    with pytest.raises(RuntimeError, match=words):
        ui_files.load_native(str(tmp_path / "wrong.ui"))
