"""The section "how": presets with their expected times, and what overrules them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import qt
from slicer.i18n import tr as _

from .form import OWN_STEPS, PRESETS, Form
from .protocol import ServerInfo
from .words import about


class HowSection:
    """Three radio buttons and the group "Advanced". ``ui``: the panel's named widgets."""

    def __init__(self, ui: Any, changed: Callable[[], None]) -> None:
        self._ui, self._changed = ui, changed
        self._form, self._showing = Form(), False
        self._about_samplers = ui.samplerCombo.toolTip
        self._presets = {"fast": ui.presetFast, "balanced": ui.presetBalanced, "best": ui.presetBest}
        for name, button in self._presets.items():
            button.connect("clicked(bool)", lambda _on, name=name: self._on_preset(name))
        for spin in (ui.stepsSpin, ui.samplesSpin, ui.seedSpin):
            spin.keyboardTracking = False
            spin.connect("valueChanged(int)", self._on_advanced)
        for combo in (ui.samplerCombo, ui.referenceCombo):
            combo.connect("activated(int)", self._on_advanced)
        ui.registrationCheck.connect("toggled(bool)", self._on_advanced)

    def build(self, info: ServerInfo) -> None:
        """Take on the limits of a server."""
        self._showing = True
        self._ui.stepsSpin.maximum = int(info.limits.get("steps", 1000))
        self._ui.samplesSpin.maximum = int(info.limits.get("samples", 32))
        self._showing = False

    def show(self, form: Form, info: ServerInfo | None, slices: int | None) -> None:
        """Bring everything up to the form; expected times are for ``slices`` slices on this server."""
        self._form, self._showing, ui = form, True, self._ui
        if form.preset in self._presets:
            self._presets[form.preset].checked = True
        for name, button in self._presets.items():
            seconds = expected(form, name, info, slices)
            words = _preset_words()[name]
            button.text = f"{words}  {about(seconds)}" if seconds is not None else words
            button.enabled = info is None or name in info.presets
        self._offer_samplers(form, info)
        ui.stepsSpin.value, ui.samplesSpin.value = form.steps or 0, form.samples or 0
        ui.seedSpin.value = form.seed or 0
        given = form.given
        first = _("first one ({0})").format(replace(form, reference="").reference_modality) if given else _("first one")
        _fill(ui.referenceCombo, [(first, ""), *((name, name) for name in given)])
        _choose(ui.referenceCombo, form.reference if form.reference in given else "")
        ui.registrationCheck.checked = form.registration == "rigid"
        self._showing = False

    def _offer_samplers(self, form: Form, info: ServerInfo | None) -> None:
        """The samplers that fit what is given, and the chosen one; why others do not is in the tool tip."""
        combo, samplers = self._ui.samplerCombo, info.samplers if info is not None else ()
        reasons = {} if info is None else {name: form.misfit(name, info) for name in (*samplers, *OWN_STEPS)}
        offered = [name for name in samplers if name == form.sampler or not reasons[name]]
        _fill(combo, [(_("as the preset"), ""), *((name, name) for name in offered)])
        _choose(combo, form.sampler or "")
        combo.toolTip = "\n".join([self._about_samplers, *filter(None, reasons.values())])
        self._ui.stepsSpin.enabled = form.sampler not in OWN_STEPS

    def _on_preset(self, name: str) -> None:
        self._form.preset = name
        self._changed()

    def _on_advanced(self, _value: object) -> None:
        if self._showing:
            return
        ui, form = self._ui, self._form
        form.sampler = ui.samplerCombo.currentData or None
        form.steps, form.samples = ui.stepsSpin.value or None, ui.samplesSpin.value or None
        form.seed = ui.seedSpin.value or None
        form.reference = ui.referenceCombo.currentData or ""
        form.registration = "rigid" if ui.registrationCheck.checked else "none"
        self._changed()


def expected(form: Form, preset: str, info: ServerInfo | None, slices: int | None) -> float | None:
    """Seconds that this form would take with a preset; None where that is not known."""
    if info is None or slices is None or not form.outputs or preset not in info.presets:
        return None
    return replace(form, preset=preset).expected_seconds(info, slices)


def _preset_words() -> dict[str, str]:
    return dict(zip(PRESETS, (_("Fast"), _("Balanced"), _("Best"))))


def _fill(combo: qt.QComboBox, items: list[tuple[str, str]]) -> None:
    """Give a combo box these texts and data, unless it has them."""
    if [(combo.itemText(i), combo.itemData(i)) for i in range(combo.count)] != items:
        combo.clear()
        for text, data in items:
            combo.addItem(text, data)


def _choose(combo: qt.QComboBox, data: str) -> None:
    combo.currentIndex = max(0, combo.findData(data))
