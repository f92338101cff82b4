"""The section "results": what Any2all has made in this scene, and how it is looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from .form import Form
from .parts import Parts

BLINK_S = 0.6
ROW_PX, MOST_ROWS = 24, 6  # of the list; more rows are scrolled to
WARNING_STYLE = "color: #d08a00"


class ResultsSection:
    """Lists the outputs of the scene and drives the views.

    Args:
        ui: the panel's named widgets.
        parts: the scene side.
        form: says what the panel's form is now.

    Attributes:
        outputs: of the scene, in the order of the list.
    """

    def __init__(self, ui: Any, parts: Parts, form: Callable[[], Form]) -> None:
        self._ui, self._parts, self._form = ui, parts, form
        self.outputs: list[Any] = []
        self._readout: Any = None
        self._comparing = False
        self._blink_at = 0.0
        self._prepare_table()
        parts.views.register(slicer.app.layoutManager())
        ui.warningsLabel.styleSheet = WARNING_STYLE
        ui.readoutLabel.styleSheet = "font-weight: bold"
        ui.outputsTable.connect("itemSelectionChanged()", self._on_selected)
        ui.compareButton.connect("clicked(bool)", lambda: self.compare())
        ui.stdCheck.connect("toggled(bool)", lambda _on: self._on_overlay())
        ui.opacitySlider.connect("valueChanged(int)", lambda _value: self._on_overlay())
        ui.legendCheck.connect("toggled(bool)", lambda on: self._parts.views.legend(bool(on)))
        ui.blinkButton.connect("toggled(bool)", self._on_blink)

    @property
    def current(self) -> Any | None:
        """The chosen output, or None."""
        row = self._ui.outputsTable.currentRow()
        return self.outputs[row] if 0 <= row < len(self.outputs) else None

    def refresh(self) -> None:
        """Bring the list up to the scene; the chosen output stays chosen while it lives."""
        kept = self.current.mean_id if self.current is not None else None
        found = list(self._parts.results.find_outputs(slicer.mrmlScene))
        ui, table = self._ui, self._ui.outputsTable
        ui.noResultsLabel.visible, ui.resultsHost.visible = not found, bool(found)
        if _key(found) != _key(self.outputs):
            self.outputs = found
            table.blockSignals(True)
            table.rowCount = len(found)
            table.setFixedHeight(ROW_PX * (1 + min(max(len(found), 1), MOST_ROWS)) + 4)
            for row, output in enumerate(found):
                self._fill(row, output)
            ids = [output.mean_id for output in found]
            if found:
                table.selectRow(ids.index(kept) if kept in ids else 0)
            table.blockSignals(False)
            self._parts.views.annotate(slicer.app.layoutManager(), found)
            self._on_selected()
        self._fill_blink()

    def show_run(self, outputs: Sequence[Any], warnings: Sequence[str]) -> None:
        """A run has ended well: its warnings, and its first output beside the reference."""
        self.refresh()
        self._warn(warnings)
        ids = [output.mean_id for output in self.outputs]
        new = [ids.index(output.mean_id) for output in outputs if output.mean_id in ids]
        if new:
            self._ui.outputsTable.selectRow(new[0])
            self.compare()

    def compare(self) -> None:
        """Reference, chosen output and its uncertainty side by side."""
        output = self.current
        if output is None:
            return
        self._ui.blinkButton.checked = False
        self._comparing = True
        reference = output.reference_id or output.mean_id  # never the panel's: it may be of another study by now
        problem = self._parts.views.compare(slicer.app.layoutManager(), reference, output.mean_id, output.std_id)
        if problem:
            self._warn([problem])
        self._on_overlay()

    def tick(self, now: float) -> None:
        """Blink, when it is time."""
        if self._ui.blinkButton.checked and now >= self._blink_at and self.current is not None:
            self._blink_at = now + BLINK_S
            self._parts.views.blink(self.current.mean_id, self._ui.blinkCombo.currentData)

    def enter(self) -> None:
        """Read values under the mouse."""
        crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        if self._readout is None and crosshair is not None:
            self._readout = self._parts.readout(slicer.mrmlScene, crosshair, self._on_value)
            self._readout.start()

    def exit(self) -> None:
        """Stop reading and blinking."""
        if self._readout is not None:
            self._readout.stop()
            self._readout = None
        self._ui.blinkButton.checked = False

    def close(self) -> None:
        """The module goes away, and its words with it."""
        self.exit()
        self._parts.views.annotate(slicer.app.layoutManager(), ())

    def forget(self) -> None:
        """The scene was closed."""
        self._comparing = False
        self._ui.blinkButton.checked = self._ui.stdCheck.checked = False
        self._ui.warningsLabel.visible = False
        self.refresh()

    # -- the list ------------------------------------------------------------------------------------------------------

    def _prepare_table(self) -> None:
        table = self._ui.outputsTable
        table.setHorizontalHeaderLabels([_("Image"), _("Uncertainty"), _("Units")])
        header = table.horizontalHeader()
        header.setFixedHeight(ROW_PX)
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
        header.setSectionResizeMode(1, qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(2, qt.QHeaderView.ResizeToContents)
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(ROW_PX)
        table.setTabKeyNavigation(False)  # Tab leaves the table

    def _fill(self, row: int, output: Any) -> None:
        node = slicer.mrmlScene.GetNodeByID(output.mean_id)
        spread = _("yes") if output.std_id else _("none: one sample")
        for column, text in enumerate((node.GetName() if node else output.modality, spread, output.units)):
            item = qt.QTableWidgetItem(text)
            item.setToolTip(f"{output.modality} {output.caption}." if output.caption else text)
            self._ui.outputsTable.setItem(row, column, item)

    def _fill_blink(self) -> None:
        """What the chosen output can blink with: the given images first, then the other outputs."""
        combo, kept = self._ui.blinkCombo, self._ui.blinkCombo.currentData
        form, own = self._form(), self.current.mean_id if self.current is not None else None
        first = self.current.reference_id if self.current is not None else ""
        inputs = [form.reference_volume, *(row.volume for row in form.rows.values() if row.uses_volume)]
        ids = [i for i in dict.fromkeys([first, *inputs, *(o.mean_id for o in self.outputs)]) if i]
        nodes = [node for node in map(slicer.mrmlScene.GetNodeByID, ids) if node is not None and node.GetID() != own]
        items = [(node.GetName(), node.GetID()) for node in nodes]
        if items != [(combo.itemText(i), combo.itemData(i)) for i in range(combo.count)]:
            combo.clear()
            for name, node_id in items:
                combo.addItem(name, node_id)
            combo.currentIndex = max(0, combo.findData(kept)) if items else -1
        self._ui.blinkButton.enabled = combo.enabled = bool(items) and own is not None

    # -- looking -------------------------------------------------------------------------------------------------------

    def _on_selected(self) -> None:
        output, ui = self.current, self._ui
        ui.compareButton.enabled = output is not None
        ui.stdCheck.enabled = output is not None and bool(output.std_id)
        if not ui.stdCheck.enabled:
            ui.stdCheck.checked = False
        self._fill_blink()
        if self._comparing and output is not None:
            self.compare()

    def _on_overlay(self) -> None:
        ui, output = self._ui, self.current
        on = bool(ui.stdCheck.checked) and output is not None and bool(output.std_id)
        ui.opacitySlider.enabled = on
        self._parts.views.overlay(output.std_id if on else None, ui.opacitySlider.value / 100)
        self._parts.views.legend(bool(ui.legendCheck.checked))

    def _on_blink(self, on: bool) -> None:
        self._blink_at = 0.0
        if not on and self._comparing:
            self.compare()

    def _warn(self, lines: Sequence[str]) -> None:
        self._ui.warningsLabel.text = "\n".join(f"⚠ {line}" for line in lines)
        self._ui.warningsLabel.visible = bool(lines)

    def _on_value(self, words: str) -> None:
        self._ui.readoutLabel.text = words or _("Move the mouse over an image to read values here.")


def _key(outputs: Sequence[Any]) -> list[tuple]:
    return [(output.mean_id, output.std_id, output.reference_id) for output in outputs]
