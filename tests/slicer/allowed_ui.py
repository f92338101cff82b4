"""What our .ui files may use: classes, properties, signals and slots, each with the file that declares it.

Sources: "Qt" names the class in Qt 5.15's and 6's documentation, "CTK" a header in Libs/Widgets of the CTK project,
"Slicer" a header in Libs/MRML/Widgets of Slicer. A name that is missing here may exist; look it up, then add it.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

# What every QWidget may be given without a look at its class
QWIDGET = (
    "acceptDrops enabled focusPolicy font geometry maximumHeight maximumSize maximumWidth minimumHeight minimumSize "
    "minimumWidth objectName sizePolicy statusTip styleSheet toolTip visible whatsThis windowTitle"
)


@dataclass(frozen=True)
class Allowed:
    """One class: who declares it, its base in this table, and what it adds to that base."""

    source: str
    base: str = ""
    properties: str = ""
    signals: str = ""
    slots: str = ""


WIDGETS = {
    "QWidget": Allowed("Qt QWidget", "", QWIDGET, "", "setEnabled(bool) setVisible(bool) setDisabled(bool)"),
    "QFrame": Allowed("Qt QFrame", "QWidget", "frameShadow frameShape lineWidth"),
    "Line": Allowed("Qt Designer's name of a QFrame line", "QFrame", "orientation"),
    "QLabel": Allowed(
        "Qt QLabel",
        "QFrame",
        "alignment buddy indent margin openExternalLinks pixmap scaledContents text textFormat textInteractionFlags "
        "wordWrap",
        "linkActivated(QString)",
    ),
    "QAbstractButton": Allowed(
        "Qt QAbstractButton",
        "QWidget",
        "autoExclusive autoRepeat checkable checked icon iconSize shortcut text",
        "clicked() clicked(bool) pressed() released() toggled(bool)",
        "click() setChecked(bool) toggle()",
    ),
    "QPushButton": Allowed("Qt QPushButton", "QAbstractButton", "autoDefault default flat"),
    "QToolButton": Allowed("Qt QToolButton", "QAbstractButton", "arrowType autoRaise popupMode toolButtonStyle"),
    "QCheckBox": Allowed("Qt QCheckBox", "QAbstractButton", "tristate"),
    "QRadioButton": Allowed("Qt QRadioButton", "QAbstractButton"),
    "QComboBox": Allowed(
        "Qt QComboBox",
        "QWidget",
        "currentIndex duplicatesEnabled editable insertPolicy maxCount minimumContentsLength sizeAdjustPolicy",
        "activated(int) currentIndexChanged(int) currentTextChanged(QString) editTextChanged(QString)",
    ),
    "QLineEdit": Allowed(
        "Qt QLineEdit",
        "QWidget",
        "alignment clearButtonEnabled echoMode maxLength placeholderText readOnly text",
        "editingFinished() returnPressed() textChanged(QString) textEdited(QString)",
    ),
    "QPlainTextEdit": Allowed(
        "Qt QPlainTextEdit", "QFrame", "lineWrapMode placeholderText plainText readOnly", "textChanged()"
    ),
    "QTextBrowser": Allowed("Qt QTextBrowser", "QFrame", "html openExternalLinks openLinks readOnly"),
    "QAbstractSpinBox": Allowed(
        "Qt QAbstractSpinBox",
        "QWidget",
        "alignment buttonSymbols correctionMode keyboardTracking readOnly specialValueText",
        "editingFinished()",
    ),
    "QSpinBox": Allowed(
        "Qt QSpinBox", "QAbstractSpinBox", "maximum minimum prefix singleStep suffix value", "valueChanged(int)"
    ),
    "QDoubleSpinBox": Allowed(
        "Qt QDoubleSpinBox",
        "QAbstractSpinBox",
        "decimals maximum minimum prefix singleStep suffix value",
        "valueChanged(double)",
    ),
    "QSlider": Allowed(
        "Qt QAbstractSlider, QSlider",
        "QWidget",
        "maximum minimum orientation pageStep singleStep tickInterval tickPosition tracking value",
        "valueChanged(int) sliderReleased()",
    ),
    "QProgressBar": Allowed(
        "Qt QProgressBar", "QWidget", "alignment format invertedAppearance maximum minimum textVisible value"
    ),
    "QGroupBox": Allowed(
        "Qt QGroupBox", "QWidget", "alignment checkable checked flat title", "clicked(bool) toggled(bool)"
    ),
    "QTabWidget": Allowed("Qt QTabWidget", "QWidget", "currentIndex documentMode", "currentChanged(int)"),
    "QStackedWidget": Allowed("Qt QStackedWidget", "QFrame", "currentIndex", "currentChanged(int)"),
    "QScrollArea": Allowed(
        "Qt QScrollArea", "QFrame", "horizontalScrollBarPolicy verticalScrollBarPolicy widgetResizable"
    ),
    "QTableWidget": Allowed(
        "Qt QAbstractItemView, QTableView, QTableWidget",
        "QFrame",
        "alternatingRowColors columnCount cornerButtonEnabled editTriggers horizontalScrollBarPolicy rowCount "
        "selectionBehavior selectionMode showGrid sizeAdjustPolicy verticalScrollBarPolicy wordWrap",
        "cellChanged(int,int) cellClicked(int,int) itemSelectionChanged()",
    ),
    "ctkCollapsibleButton": Allowed(
        "CTK ctkCollapsibleButton.h",
        "QAbstractButton",
        "collapsed contentsLineWidth",
        "contentsCollapsed(bool)",
    ),
    "ctkCollapsibleGroupBox": Allowed("CTK ctkCollapsibleGroupBox.h", "QGroupBox", "collapsed"),
    "ctkComboBox": Allowed("CTK ctkComboBox.h", "QComboBox", "defaultText"),
    "ctkCheckableComboBox": Allowed("CTK ctkCheckableComboBox.h", "QComboBox", "", "checkedIndexesChanged()"),
    "ctkDoubleSpinBox": Allowed("CTK ctkDoubleSpinBox.h", "QDoubleSpinBox", "invertedControls"),
    "ctkSearchBox": Allowed("CTK ctkSearchBox.h", "QLineEdit", "showSearchIcon"),
    "ctkSliderWidget": Allowed(
        "CTK ctkSliderWidget.h",
        "QWidget",
        "decimals maximum minimum pageStep prefix singleStep suffix tracking value",
        "valueChanged(double) valueIsChanging(double)",
    ),
    "ctkPathLineEdit": Allowed(
        "CTK ctkPathLineEdit.h",
        "QWidget",
        "currentPath label minimumContentsLength nameFilters settingKey showBrowseButton showHistoryButton",
        "currentPathChanged(QString) validInputChanged(bool)",
    ),
    "qMRMLWidget": Allowed(
        "Slicer qMRMLWidget.h", "QWidget", "", "mrmlSceneChanged(vtkMRMLScene*)", "setMRMLScene(vtkMRMLScene*)"
    ),
    "qMRMLNodeComboBox": Allowed(
        "Slicer qMRMLNodeComboBox.h",
        "QWidget",
        "addEnabled baseName editEnabled hideChildNodeTypes nodeTypes noneDisplay noneEnabled removeEnabled "
        "renameEnabled selectNodeUponCreation showChildNodeTypes showHidden",
        "currentNodeChanged(vtkMRMLNode*) currentNodeChanged(bool) currentNodeIDChanged(QString) "
        "nodeActivated(vtkMRMLNode*) nodeAdded(vtkMRMLNode*)",
        "setMRMLScene(vtkMRMLScene*)",
    ),
}
LAYOUTS = {"QVBoxLayout", "QHBoxLayout", "QGridLayout", "QFormLayout"}  # Qt


def allowed_for(name: str, what: str) -> set[str]:
    """Properties, signals or slots (``what``) of a class and its bases."""
    found: set[str] = set()
    while name:
        found |= set(getattr(WIDGETS[name], what).split())
        name = WIDGETS[name].base
    return found


def problems_of(path: Path) -> list[str]:
    """What a .ui file uses that is not on the list; empty when all is well."""
    root = ET.parse(path).getroot()
    found = []
    kinds: dict[str, str] = {}
    for widget in root.iter("widget"):
        kind, name = widget.get("class", ""), widget.get("name", "")
        kinds[name] = kind
        if kind not in WIDGETS:
            found.append(f"{name}: class {kind} is not on the list")
            continue
        used = {prop.get("name", "") for prop in widget.findall("property") if prop.get("stdset") != "0"}
        found += [f"{name}: {kind} has no property {prop}" for prop in sorted(used - allowed_for(kind, "properties"))]
    for layout in root.iter("layout"):
        if layout.get("class") not in LAYOUTS:
            found.append(f"{layout.get('name')}: layout {layout.get('class')} is not on the list")
    return found + [problem for connection in root.iter("connection") for problem in _connection(connection, kinds)]


def _connection(connection: ET.Element, kinds: dict[str, str]) -> list[str]:
    found = []
    for end, method, what in (("sender", "signal", "signals"), ("receiver", "slot", "slots")):
        name, signature = connection.findtext(end, ""), connection.findtext(method, "")
        kind = kinds.get(name)
        if kind is None:
            found.append(f"connection: {end} {name} does not exist")
        elif kind in WIDGETS and signature not in allowed_for(kind, what):
            found.append(f"{name}: {kind} has no {method} {signature}")
    return found
