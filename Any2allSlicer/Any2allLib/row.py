"""One line of the table: a modality, what there is of it, and where it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ctk
import qt
import slicer
from slicer.i18n import tr as _

from .degraded import DegradedBox, numbers_of
from .given import DEGRADED, Row
from .protocol import ModalityInfo
from .raw_file import tells_trajectory, tells_voxel_size

POOR = "degraded"  # one tick for what an image may suffer from
# white text reads well on each
_TICKS = {"available": "#2e7d32", "undersampled": "#b26a00", POOR: "#8d5a1a", "missing": "#5f6368"}
_SIMULATE, _RAW_FILE = 0, 1
_WRONG = "#d08a00"


class ModalityRow:
    """Shows one `given.Row` and writes into it what the user does.

    Args:
        modality: what the row is about.
        scene: whose volumes can be chosen.
        raw_suffixes: kinds of raw data file that the server takes.
        taken: statuses of data that the server takes.
        changed: called with the modality's name after every change by the user.
    """

    def __init__(
        self,
        modality: ModalityInfo,
        scene: slicer.vtkMRMLScene,
        raw_suffixes: tuple[str, ...],
        taken: frozenset[str],
        changed: Callable[[str], None],
    ) -> None:
        self.modality, self._changed = modality, changed
        self._row = Row()
        self._showing = self._strayed = False
        self.degraded = DegradedBox(modality.name, self._tell)
        self._make_main(scene, taken)
        self._make_raw(raw_suffixes)

    def place(self, grid: qt.QGridLayout, line: int) -> None:
        """Into two lines of the grid: the second one is for what an undersampled or degraded modality needs."""
        grid.addWidget(self.label, line, 0)
        grid.addWidget(self.ticks, line, 1)
        grid.addWidget(self.selector, line, 2)
        grid.addWidget(self.raw, line + 1, 1, 1, 2)
        grid.addWidget(self.degraded.widget, line + 1, 1, 1, 2)

    def parts(self) -> tuple[qt.QWidget, ...]:
        """The widgets that `place` puts into the grid."""
        return self.label, self.ticks, self.selector, self.raw, self.degraded.widget

    def widgets(self) -> list[qt.QWidget]:
        """Everything that takes the keyboard, in order."""
        raw = [self.source, self.acceleration, self.coils, self.raw_path, self.voxel_size, self.trajectory]
        return [*self.buttons.values(), self.selector, *raw, *self.degraded.widgets()]

    def say(self, problem: str) -> None:
        """Mark the row by what is wrong with it; '' for nothing."""
        colour = f"; color: {_WRONG}" if problem else ""
        self.label.styleSheet = f"font-weight: bold{colour}"
        self.label.toolTip = problem or _("{0}, in {1}").format(self.modality.kind, self.modality.units)

    def show(self, row: Row) -> None:
        """Show this row of the form; what the user does from now on goes into it."""
        another, self._row, self._showing = row is not self._row, row, True
        self.buttons[tick_of(row.status)].checked = True
        self.selector.setCurrentNodeID(row.volume)
        self.acceleration.value, self.coils.value = row.acceleration, row.coils
        if self.raw_path.currentPath != row.raw_file and (row.raw_file or another):  # not the file of another study
            self.raw_path.currentPath = row.raw_file
        if numbers_of(self.voxel_size.text, (3,)) != row.voxel_size_mm:
            self.voxel_size.text = _size_text(row.voxel_size_mm)
        if row.trajectory != self.trajectory.currentPath:
            self.trajectory.currentPath = row.trajectory
        self.degraded.show(row)
        self.source.currentIndex = _SIMULATE if row.simulated or row.status != "undersampled" else _RAW_FILE
        self._showing = False
        self._arrange()

    def settle(self) -> None:
        """Show the row's volume again where the selector has gone to another one by itself."""
        if self._strayed:
            self._strayed, self._showing = False, True
            self.selector.setCurrentNodeID(self._row.volume)
            self._showing = False

    # -- widgets -------------------------------------------------------------------------------------------------------

    def _make_main(self, scene: slicer.vtkMRMLScene, taken: frozenset[str]) -> None:
        name = self.modality.name
        self.label = qt.QLabel(name)
        self.say("")
        self.ticks = qt.QWidget()
        across = qt.QHBoxLayout(self.ticks)
        across.setContentsMargins(0, 0, 0, 0)
        across.setSpacing(0)
        self._group = qt.QButtonGroup(self.ticks)
        self.buttons = {status: self._tick(status) for status in _TICKS}
        self.degraded.offer(taken)
        if not taken & set(DEGRADED):
            self.buttons[POOR].enabled = False
            self.buttons[POOR].toolTip = _("This server takes no images that are noisy, blurred or of thick slices")
        for button in self.buttons.values():
            self._group.addButton(button)
            across.addWidget(button)
        self.selector = slicer.qMRMLNodeComboBox()
        self.selector.objectName = f"{name}_volume"
        self.selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self.selector.showChildNodeTypes = False  # label maps are no images
        self.selector.noneEnabled, self.selector.addEnabled = True, False
        self.selector.removeEnabled, self.selector.renameEnabled = False, False
        self.selector.noneDisplay = "—"
        self.selector.toolTip = _("The {0} image of this head").format(name)
        self.selector.setMRMLScene(scene)
        self.selector.connect("nodeActivated(vtkMRMLNode*)", self._on_volume)
        self.selector.connect("currentNodeChanged(vtkMRMLNode*)", self._on_current_volume)

    def _tick(self, status: str) -> qt.QToolButton:
        words, tip = _words_of(status)
        button = qt.QToolButton()
        button.objectName, button.text, button.toolTip = f"{self.modality.name}_{status}", words, tip
        button.checkable = True
        button.focusPolicy = qt.Qt.StrongFocus
        button.styleSheet = f"QToolButton:checked {{ background-color: {_TICKS[status]}; color: white; }}"
        if status == "undersampled" and not self.modality.raw_data:
            button.enabled = False
            button.toolTip = _("{0} is never measured as raw data").format(self.modality.name)
        button.connect("clicked(bool)", lambda: self._on_status(status))
        return button

    def _make_raw(self, raw_suffixes: tuple[str, ...]) -> None:
        name = self.modality.name
        self.raw = qt.QWidget()
        grid = qt.QGridLayout(self.raw)
        grid.setContentsMargins(0, 0, 0, 6)
        self.source = qt.QComboBox()
        self.source.objectName = f"{name}_source"
        self.source.addItem(_("Simulate from this image"))
        self.source.addItem(_("Raw data file"))
        self.source.toolTip = _("Measured k-space in a file, or k-space that the server computes from the image")
        self.source.connect("activated(int)", self._on_source)
        self.acceleration = self._spin("acceleration", 1, 64, _("R = {0}"), _("Only every R-th line is kept"))
        self.coils = self._spin("coils", 1, 128, _("coils: {0}"), _("Receive coils of the simulation"))
        kinds = " ".join(f"*{suffix}" for suffix in raw_suffixes)
        self.raw_path = self._path("raw", _("Raw data of {0}").format(name), kinds, self._on_raw_file)
        self.raw_path.toolTip = _("File of measured k-space ({0})").format(kinds)
        self.trajectory = self._path("trajectory", _("Trajectory of {0}").format(name), kinds, self._on_trajectory)
        self.trajectory.toolTip = _(
            "Of radial or spiral data whose file does not say where it was sampled: (spokes, samples, 2) in cycles per "
            "field of view. Leave it empty for Cartesian data"
        )
        self.trajectory_label = qt.QLabel(_("radial or spiral: trajectory"))
        self.voxel_size = qt.QLineEdit()
        self.voxel_size.objectName = f"{name}_voxel_size"
        self.voxel_size.placeholderText = _("voxel size in mm: H, W, slice")
        self.voxel_size.toolTip = _("Three numbers, for example 0.9, 0.9, 5: this file does not say its voxel size")
        self.voxel_size.connect("textEdited(QString)", self._on_voxel_size)
        grid.addWidget(self.source, 0, 0)
        grid.addWidget(self.acceleration, 0, 1)
        grid.addWidget(self.coils, 0, 2)
        grid.addWidget(self.raw_path, 0, 1, 1, 2)
        grid.addWidget(self.voxel_size, 1, 1, 1, 2)
        grid.addWidget(self.trajectory_label, 2, 0)
        grid.addWidget(self.trajectory, 2, 1, 1, 2)
        grid.setColumnStretch(1, 1)
        grid.setColumnStretch(2, 1)

    def _path(self, what: str, words: str, kinds: str, slot: Callable[[str], None]) -> ctk.ctkPathLineEdit:
        path = ctk.ctkPathLineEdit()
        path.objectName = f"{self.modality.name}_{what}"
        path.filters = ctk.ctkPathLineEdit.Files
        path.nameFilters = [_("Raw k-space ({0})").format(kinds)]
        path.label, path.settingKey = words, "Any2all/rawData"
        path.connect("currentPathChanged(QString)", slot)
        return path

    def _spin(self, what: str, low: int, high: int, words: str, tip: str) -> qt.QSpinBox:
        spin = qt.QSpinBox()
        spin.objectName = f"{self.modality.name}_{what}"
        spin.minimum, spin.maximum = low, high
        spin.prefix, spin.suffix = words.split("{0}")
        spin.toolTip = tip
        spin.connect("valueChanged(int)", lambda value: self._on_number(what, value))
        return spin

    def _arrange(self) -> None:
        """Show what this status needs."""
        row, from_file = self._row, bool(self._row.raw_file or self._row.from_file)
        undersampled = row.status == "undersampled"
        self.raw.visible = undersampled
        self.acceleration.visible = self.coils.visible = undersampled and not from_file
        self.raw_path.visible = undersampled and from_file
        there = undersampled and from_file and Path(row.raw_file).is_file()
        self.voxel_size.visible = there and not tells_voxel_size(row.raw_file)
        asked = there and not tells_trajectory(row.raw_file)
        self.trajectory.visible = self.trajectory_label.visible = asked
        self.degraded.arrange()
        self.selector.enabled = not (undersampled and from_file)

    # -- what the user does --------------------------------------------------------------------------------------------

    def _on_status(self, tick: str) -> None:
        self._row.status = self.degraded.chosen if tick == POOR else tick
        self._tell()

    def _on_volume(self, node: slicer.vtkMRMLNode | None) -> None:
        """Chosen by hand: whoever chooses an image for a missing modality has it."""
        self._row.volume = node.GetID() if node is not None else ""
        if self._row.status == "missing" and node is not None:
            self._row.status = "available"
            self.buttons["available"].checked = True
        self._tell()

    def _on_current_volume(self, node: slicer.vtkMRMLNode | None) -> None:
        """Where its image leaves the scene, the selector goes on to a neighbour, which nobody has chosen."""
        self._strayed = not self._showing and (node.GetID() if node is not None else "") != self._row.volume

    def _on_source(self, index: int) -> None:
        self._row.from_file = index == _RAW_FILE
        self._row.raw_file = self.raw_path.currentPath if self._row.from_file else ""
        self._tell()

    def _on_raw_file(self, path: str) -> None:
        if not self._showing:
            self._row.raw_file = path if self._row.from_file else ""
            self._tell()

    def _on_trajectory(self, path: str) -> None:
        if not self._showing:
            self._row.trajectory = path
            self._tell()

    def _on_voxel_size(self, text: str) -> None:
        self._row.voxel_size_mm = numbers_of(text, (3,))
        self._tell()

    def _on_number(self, what: str, value: int) -> None:
        if not self._showing:
            setattr(self._row, what, value)
            self._tell()

    def _tell(self) -> None:
        self._arrange()
        self._changed(self.modality.name)


def tick_of(status: str) -> str:
    """The tick that stands for a status."""
    return POOR if status in DEGRADED else status


def _words_of(status: str) -> tuple[str, str]:
    return {
        "available": (_("Available"), _("There is a whole image of it")),
        "undersampled": (_("Undersampled"), _("Too little k-space was measured for an image: it is reconstructed")),
        POOR: (_("Poor"), _("There is an image of it, but it is noisy, blurred or of thick slices: it is improved")),
        "missing": (_("Missing"), _("It was not measured: it can be made")),
    }[status]


def _size_text(size: tuple[float, float, float] | None) -> str:
    return "" if size is None else ", ".join(f"{edge:g}" for edge in size)
