"""The module ``ctk``: small re-creations of CTK widgets, with the properties and signals of the real headers only.

Headers are those of the CTK project; each class names its own. What a class does not have here may exist in CTK, but
was not needed: add it from the header when it is.
"""

from __future__ import annotations

import os
import types
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

from . import dialogs, settings
from .pythonqt import proxy_class
from .ui_files import register


def stored(kind: type | str, name: str, default: Any = None) -> QtCore.Property:
    """A property that is only remembered: what it changes in the real widget cannot be seen from a module."""
    key = "_ctk_" + name

    def write(self: QtCore.QObject, value: Any) -> None:
        setattr(self, key, value)

    return QtCore.Property(kind, lambda self: getattr(self, key, default), write)


def setter(prop: QtCore.Property) -> Any:
    """The ``setX`` that goes with a stored property."""
    return lambda self, value: prop.fset(self, value)


# CTK Libs/Widgets/ctkCollapsibleButton.h
@register
class ctkCollapsibleButton(QtWidgets.QAbstractButton):
    """A header that shows and hides the children below it; checked means open."""

    contentsCollapsed = QtCore.Signal(bool)
    HEADER = 24
    contentsLineWidth = stored(int, "contentsLineWidth", 1)
    setContentsLineWidth = setter(contentsLineWidth)

    def __init__(self, *arguments: Any) -> None:
        text = arguments[0] if arguments and isinstance(arguments[0], str) else ""
        super().__init__(next((argument for argument in arguments if isinstance(argument, QtWidgets.QWidget)), None))
        self.setText(text)
        self.setCheckable(True)
        self.setChecked(True)
        self.setContentsMargins(0, self.HEADER, 0, 0)
        self.toggled.connect(self._on_toggled)

    def _is_collapsed(self) -> bool:
        return not self.isChecked()

    def setCollapsed(self, collapsed: bool) -> None:
        self.setChecked(not collapsed)

    collapsed = QtCore.Property(bool, _is_collapsed, setCollapsed, notify=contentsCollapsed)

    def _on_toggled(self, opened: bool) -> None:
        for child in self.findChildren(QtWidgets.QWidget, options=QtCore.Qt.FindChildOption.FindDirectChildrenOnly):
            if not child.isWindow():
                child.setVisible(opened)
        self.updateGeometry()
        self.contentsCollapsed.emit(not opened)

    def childEvent(self, event: QtCore.QChildEvent) -> None:
        """A child that comes to a closed button stays hidden until it opens."""
        super().childEvent(event)
        if event.added() and event.child().isWidgetType() and not self.isChecked():
            event.child().setVisible(False)

    def hitButton(self, position: QtCore.QPoint) -> bool:
        return position.y() < self.HEADER

    def sizeHint(self) -> QtCore.QSize:
        header = QtCore.QSize(self.fontMetrics().horizontalAdvance(self.text()) + 40, self.HEADER)
        if self.isChecked() and self.layout():
            return self.layout().totalSizeHint().expandedTo(header)
        return header

    minimumSizeHint = sizeHint

    def paintEvent(self, _event: QtGui.QPaintEvent) -> None:
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = QtCore.QRect(0, 0, self.width(), self.HEADER)
        painter.drawControl(QtWidgets.QStyle.ControlElement.CE_PushButtonBevel, option)
        arrow = QtWidgets.QStyleOption()
        arrow.initFrom(self)
        arrow.rect = QtCore.QRect(8, 6, 12, 12)
        element = QtWidgets.QStyle.PrimitiveElement
        shape = element.PE_IndicatorArrowDown if self.isChecked() else element.PE_IndicatorArrowRight
        painter.drawPrimitive(shape, arrow)
        painter.setPen(self.palette().buttonText().color())
        painter.drawText(option.rect.adjusted(28, 0, 0, 0), QtCore.Qt.AlignmentFlag.AlignVCenter, self.text())


# CTK Libs/Widgets/ctkCollapsibleGroupBox.h
@register
class ctkCollapsibleGroupBox(QtWidgets.QGroupBox):
    """A group box with an arrow; collapsed is the opposite of checked."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.setCheckable(True)
        self.toggled.connect(self._on_toggled)

    def _is_collapsed(self) -> bool:
        return not self.isChecked()

    def setCollapsed(self, collapsed: bool) -> None:
        self.setChecked(not collapsed)

    collapsed = QtCore.Property(bool, _is_collapsed, setCollapsed)

    def _on_toggled(self, opened: bool) -> None:
        for child in self.findChildren(QtWidgets.QWidget, options=QtCore.Qt.FindChildOption.FindDirectChildrenOnly):
            child.setVisible(opened)


# CTK Libs/Widgets/ctkComboBox.h
@register
class ctkComboBox(QtWidgets.QComboBox):
    """A combo box with a text for "nothing chosen"."""

    defaultTextChanged = QtCore.Signal(str)
    currentUserDataAsStringChanged = QtCore.Signal(str)

    def _default_text(self) -> str:
        return self.placeholderText()

    def setDefaultText(self, text: str) -> None:
        self.setPlaceholderText(text)
        self.defaultTextChanged.emit(text)

    defaultText = QtCore.Property(str, _default_text, setDefaultText)

    def _user_data(self) -> str:
        return str(self.currentData() or "")

    def setCurrentUserDataAsString(self, data: str) -> None:
        self.setCurrentIndex(self.findData(data))
        self.currentUserDataAsStringChanged.emit(data)

    currentUserDataAsString = QtCore.Property(str, _user_data, setCurrentUserDataAsString)


# CTK Libs/Widgets/ctkCheckableComboBox.h
@register
class ctkCheckableComboBox(QtWidgets.QComboBox):
    """A combo box whose items have check marks."""

    checkedIndexesChanged = QtCore.Signal()

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.model().dataChanged.connect(lambda *_: self.checkedIndexesChanged.emit())

    def checkableModel(self) -> QtCore.QAbstractItemModel:
        return self.model()

    def checkState(self, index: QtCore.QModelIndex) -> QtCore.Qt.CheckState:
        return QtCore.Qt.CheckState(self.model().data(index, QtCore.Qt.ItemDataRole.CheckStateRole) or 0)

    def setCheckState(self, index: QtCore.QModelIndex, state: QtCore.Qt.CheckState) -> None:
        self.model().setData(index, state.value, QtCore.Qt.ItemDataRole.CheckStateRole)

    def checkedIndexes(self) -> list[QtCore.QModelIndex]:
        indexes = [self.model().index(row, 0) for row in range(self.count())]
        return [index for index in indexes if self.checkState(index) == QtCore.Qt.CheckState.Checked]

    def allChecked(self) -> bool:
        return len(self.checkedIndexes()) == self.count()

    def noneChecked(self) -> bool:
        return not self.checkedIndexes()


# CTK Libs/Widgets/ctkDoubleSpinBox.h
@register
class ctkDoubleSpinBox(QtWidgets.QDoubleSpinBox):
    """A QDoubleSpinBox; ``invertedControls`` turns the wheel round."""

    invertedControls = stored(bool, "invertedControls", False)
    setInvertedControls = setter(invertedControls)


# CTK Libs/Widgets/ctkSearchBox.h
@register
class ctkSearchBox(QtWidgets.QLineEdit):
    """A QLineEdit with a search icon and a clear icon."""

    showSearchIcon = stored(bool, "showSearchIcon", False)
    setShowSearchIcon = setter(showSearchIcon)


# CTK Libs/Widgets/ctkSliderWidget.h
@register
class ctkSliderWidget(QtWidgets.QWidget):
    """A slider and a spin box that hold the same number."""

    valueChanged = QtCore.Signal(float)
    valueIsChanging = QtCore.Signal(float)
    pageStep = stored(float, "pageStep", 10.0)
    setPageStep = setter(pageStep)
    tracking = stored(bool, "tracking", True)
    setTracking = setter(tracking)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self._slider, self._box = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal), QtWidgets.QDoubleSpinBox()
        row.addWidget(self._slider)
        row.addWidget(self._box)
        self._box.valueChanged.connect(self._on_box)
        self._slider.valueChanged.connect(lambda position: self._box.setValue(position * self._box.singleStep()))

    def _on_box(self, value: float) -> None:
        self._slider.blockSignals(True)
        self._slider.setRange(round(self._box.minimum() / self._step()), round(self._box.maximum() / self._step()))
        self._slider.setValue(round(value / self._step()))
        self._slider.blockSignals(False)
        self.valueChanged.emit(value)

    def _step(self) -> float:
        return self._box.singleStep() or 1.0

    def setValue(self, value: float) -> None:
        self._box.setValue(value)

    def setRange(self, minimum: float, maximum: float) -> None:
        self._box.setRange(minimum, maximum)
        self._slider.setRange(round(minimum / self._step()), round(maximum / self._step()))

    def setMinimum(self, value: float) -> None:
        self.setRange(value, max(value, self._box.maximum()))

    def setMaximum(self, value: float) -> None:
        self.setRange(min(value, self._box.minimum()), value)

    def setSingleStep(self, step: float) -> None:
        self._box.setSingleStep(step)
        self.setRange(self._box.minimum(), self._box.maximum())

    def setDecimals(self, decimals: int) -> None:
        self._box.setDecimals(decimals)

    def setSuffix(self, text: str) -> None:
        self._box.setSuffix(text)

    def setPrefix(self, text: str) -> None:
        self._box.setPrefix(text)

    value = QtCore.Property(float, lambda self: self._box.value(), setValue)
    minimum = QtCore.Property(float, lambda self: self._box.minimum(), setMinimum)
    maximum = QtCore.Property(float, lambda self: self._box.maximum(), setMaximum)
    singleStep = QtCore.Property(float, lambda self: self._box.singleStep(), setSingleStep)
    decimals = QtCore.Property(int, lambda self: self._box.decimals(), setDecimals)
    suffix = QtCore.Property(str, lambda self: self._box.suffix(), setSuffix)
    prefix = QtCore.Property(str, lambda self: self._box.prefix(), setPrefix)


# CTK Libs/Widgets/ctkPathLineEdit.h
@register
class ctkPathLineEdit(QtWidgets.QWidget):
    """A path with a browse button and a history. ``filters`` are the header's flags (Dirs 1, Files 2, …)."""

    currentPathChanged = QtCore.Signal(str)
    validInputChanged = QtCore.Signal(bool)
    Dirs, Files, Drives, NoSymLinks, Readable, Writable, Executable, Hidden, System = 1, 2, 4, 8, 16, 32, 64, 256, 512
    label = stored(str, "label", "")
    setLabel = setter(label)
    nameFilters = stored("QStringList", "nameFilters", [])
    setNameFilters = setter(nameFilters)
    settingKey = stored(str, "settingKey", "")
    setSettingKey = setter(settingKey)
    showHistoryButton = stored(bool, "showHistoryButton", True)
    setShowHistoryButton = setter(showHistoryButton)
    minimumContentsLength = stored(int, "minimumContentsLength", 0)
    setMinimumContentsLength = setter(minimumContentsLength)
    filters = stored(int, "filters", 7)
    setFilters = setter(filters)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self._combo, self._button = QtWidgets.QComboBox(), QtWidgets.QToolButton()
        self._combo.setEditable(True)
        self._combo.setSizePolicy(QtWidgets.QSizePolicy.Policy.Expanding, QtWidgets.QSizePolicy.Policy.Fixed)
        self._button.setText("…")
        self._button.clicked.connect(self.browse)
        row.addWidget(self._combo)
        row.addWidget(self._button)
        self._valid = False
        self._combo.editTextChanged.connect(self._on_text)

    def _on_text(self, text: str) -> None:
        valid = os.path.exists(text)
        if valid != self._valid:
            self._valid = valid
            self.validInputChanged.emit(valid)
        self.currentPathChanged.emit(text)

    def setCurrentPath(self, path: str) -> None:
        self._combo.setEditText(path)

    def setShowBrowseButton(self, visible: bool) -> None:
        self._button.setVisible(visible)

    currentPath = QtCore.Property(str, lambda self: self._combo.currentText(), setCurrentPath)
    showBrowseButton = QtCore.Property(bool, lambda self: not self._button.isHidden(), setShowBrowseButton)

    def comboBox(self) -> QtWidgets.QComboBox:
        return self._combo

    def browse(self) -> None:
        chosen = dialogs.FileDialog.getOpenFileName(None, self.label)
        if chosen:
            self.setCurrentPath(chosen)

    def addCurrentPathToHistory(self) -> None:
        store, key = settings.Settings(), self.settingKey or self.objectName()
        earlier = store.value(key) or ()
        paths = [self.currentPath, *([earlier] if isinstance(earlier, str) else earlier)]
        store.setValue(key, list(dict.fromkeys(paths)))

    def retrieveHistory(self) -> None:
        earlier = settings.Settings().value(self.settingKey or self.objectName()) or ()
        text = self.currentPath
        self._combo.clear()
        self._combo.addItems([earlier] if isinstance(earlier, str) else list(earlier))
        self.setCurrentPath(text)


WIDGETS = (
    ctkCollapsibleButton,
    ctkCollapsibleGroupBox,
    ctkComboBox,
    ctkCheckableComboBox,
    ctkDoubleSpinBox,
    ctkSearchBox,
    ctkSliderWidget,
    ctkPathLineEdit,
)


def build() -> types.ModuleType:
    """A fresh module object."""
    module = types.ModuleType("ctk", "CTK look-alike of the harness")
    for widget in WIDGETS:
        setattr(module, widget.__name__, proxy_class(widget))
    module.ctkMessageBox = dialogs.MessageBox
    return module
