"""The table "what there is": one `row.ModalityRow` for each modality of the server's stack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import qt
import slicer

from .form import Form
from .protocol import ServerInfo
from .row import ModalityRow


class ModalityTable:
    """Lines in ``host``'s grid.

    Args:
        host: an empty widget with a grid layout.
        scene: whose volumes can be chosen.
        changed: called with a modality's name after every change by the user.
    """

    def __init__(self, host: qt.QWidget, scene: slicer.vtkMRMLScene, changed: Callable[[str], None]) -> None:
        self._host, self._scene, self._changed = host, scene, changed
        self._built_for: tuple = ()
        self.rows: dict[str, ModalityRow] = {}
        host.layout().setColumnStretch(2, 1)

    def build(self, info: ServerInfo) -> bool:
        """Make the lines for a server's stack → whether they are new."""
        raw, taken = info.accepts.get("raw", ()), info.takes
        if self._built_for == (info.stack, raw, taken):
            return False
        self.clear()
        self._built_for, grid = (info.stack, raw, taken), self._host.layout()
        for line, modality in enumerate(info.stack):
            row = self.rows[modality.name] = ModalityRow(modality, self._scene, raw, taken, self._changed)
            row.place(grid, 2 * line)
        return True

    def show(self, form: Form) -> None:
        """Bring every line up to the form."""
        for name, line in self.rows.items():
            line.show(form.rows[name])

    def settle(self) -> None:
        """Every line shows what the form says; a person's choice is in the form already."""
        for line in self.rows.values():
            line.settle()

    def say(self, problems: Mapping[str, str]) -> None:
        """Mark the lines of these modalities by what is wrong with them, and no others."""
        for name, line in self.rows.items():
            line.say(problems.get(name, ""))

    def clear(self) -> None:
        """Take all lines away."""
        for line in self.rows.values():
            for widget in line.parts():
                widget.hide()
                widget.deleteLater()
        self.rows, self._built_for = {}, ()

    def chain(self, before: qt.QWidget, after: qt.QWidget) -> None:
        """Put the lines between these two in the order of the Tab key."""
        chain_tabs([before, *(widget for line in self.rows.values() for widget in line.widgets()), after])


def chain_tabs(widgets: Sequence[qt.QWidget]) -> None:
    """The Tab key goes through these widgets in turn."""
    stops = [_tab_stop(widget) for widget in widgets]
    for first, second in zip(stops, stops[1:]):
        qt.QWidget.setTabOrder(first, second)


def _tab_stop(widget: qt.QWidget) -> qt.QWidget:
    """The part of a compound widget that takes the keyboard: Qt passes over one that does not."""
    return widget if widget.focusPolicy != qt.Qt.NoFocus else widget.findChild(qt.QComboBox) or widget
