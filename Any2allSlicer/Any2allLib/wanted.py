"""The ticks "what to make": one for each modality that is not given as it is."""

from __future__ import annotations

from collections.abc import Callable

import qt
from slicer.i18n import tr as _

from .form import Form
from .protocol import ServerInfo

COLUMNS = 6


class WantedOutputs:
    """Check boxes in ``host``'s grid, and below them what the ticked images cannot show."""

    def __init__(self, host: qt.QWidget, caption: qt.QLabel, changed: Callable[[], None]) -> None:
        self._host, self._caption, self._changed = host, caption, changed
        self._form = Form()
        self._captions: dict[str, str] = {}
        self.boxes: dict[str, qt.QCheckBox] = {}

    def build(self, info: ServerInfo) -> None:
        """Make the check boxes for a server's stack."""
        self.clear()
        self._captions = {modality.name: modality.caption for modality in info.stack}
        for index, modality in enumerate(info.stack):
            box = self.boxes[modality.name] = qt.QCheckBox(modality.name)
            box.objectName = f"{modality.name}_wanted"
            box.connect("toggled(bool)", lambda on, name=modality.name: self._on_toggled(name, on))
            self._host.layout().addWidget(box, index // COLUMNS, index % COLUMNS)

    def show(self, form: Form) -> None:
        """Bring the check boxes up to the form: what is available as it is cannot be ticked."""
        self._form = form
        for name, box in self.boxes.items():
            row = form.rows[name]
            possible = row.status != "available"
            box.blockSignals(True)
            box.checked = row.wanted and possible
            box.blockSignals(False)
            box.enabled = possible
            box.toolTip = self._tip(name, row.status)
        self._say_limits()

    def clear(self) -> None:
        """Take all check boxes away."""
        for box in self.boxes.values():
            box.hide()
            box.deleteLater()
        self.boxes, self._captions = {}, {}
        self._caption.visible = False

    def _tip(self, name: str, status: str) -> str:
        if status == "available":
            return _("{0} is available: there is nothing to make").format(name)
        what = _("Make {0} from the other images") if status == "missing" else _("Reconstruct {0}")
        caption = self._captions[name] if status == "missing" else ""
        return what.format(name) + (f": {caption}" if caption else "")

    def _say_limits(self) -> None:
        """A made image is believed: what it cannot show is said before it is made."""
        missing = self._form.named("missing")
        lines = [f"{n} {self._captions[n]}." for n in self._form.outputs if n in missing and self._captions.get(n)]
        self._caption.text = "\n".join(lines)
        self._caption.visible = bool(lines)

    def _on_toggled(self, name: str, on: bool) -> None:
        self._form.rows[name].wanted = on
        self._say_limits()
        self._changed()
