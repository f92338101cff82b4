"""What a row asks of an image that is there but poor: what is wrong with it, and its one or two numbers."""

from __future__ import annotations

import re
from collections.abc import Callable

import qt
from slicer.i18n import tr as _

from .given import DEGRADED, PROFILES, Row

MOST_NOISE, DECIMALS = 1e6, 4


class DegradedBox:
    """The second line of a degraded modality; writes into the `given.Row` that it shows.

    Args:
        name: of the modality.
        changed: called after every change by the user.
    """

    def __init__(self, name: str, changed: Callable[[], None]) -> None:
        self._name, self._changed = name, changed
        self._row, self._showing = Row(), False
        self.widget = qt.QWidget()
        self.kind = self._combo("degraded_kind", [_kind_words(status) for status in DEGRADED], self._on_kind)
        self.kind.toolTip = _("What is wrong with this image: noise, blur, or thick slices")
        self.profile = self._combo("slice_profile", [_("box profile"), _("gaussian profile")], self._on_profile)
        self.profile.toolTip = _("How the scanner weighs what lies in a slice, which is as thick as slices are apart")
        self.width = qt.QLineEdit()
        self.width.objectName = f"{name}_psf_fwhm_mm"
        self.width.placeholderText = _("blur in mm")
        self.width.toolTip = _(
            "Full width at half maximum of the blur: one number, or three along left-right, anterior-posterior and "
            "superior-inferior, for example 6 or 5, 5, 7"
        )
        self.width.connect("textEdited(QString)", self._on_width)
        self.noise = qt.QDoubleSpinBox()
        self.noise.objectName = f"{name}_image_noise_std"
        self.noise.minimum, self.noise.maximum, self.noise.decimals = 0.0, MOST_NOISE, DECIMALS
        self.noise.prefix, self.noise.specialValueText = _("noise: "), _("noise: estimated")
        self.noise.toolTip = _("Standard deviation of the noise in the image's own units; 0: the server estimates it")
        self.noise.connect("valueChanged(double)", self._on_noise)
        grid = qt.QGridLayout(self.widget)
        grid.setContentsMargins(0, 0, 0, 6)
        grid.addWidget(self.kind, 0, 0)
        grid.addWidget(self.width, 0, 1)
        grid.addWidget(self.profile, 0, 1)
        grid.addWidget(self.noise, 0, 2)
        grid.setColumnStretch(1, 1)
        grid.setColumnStretch(2, 1)

    @property
    def chosen(self) -> str:
        """The status that is chosen here."""
        return DEGRADED[self.kind.currentIndex]

    def widgets(self) -> list[qt.QWidget]:
        """Everything that takes the keyboard, in order."""
        return [self.kind, self.width, self.profile, self.noise]

    def offer(self, taken: frozenset[str]) -> None:
        """Let only what the server takes be chosen."""
        for index, status in enumerate(DEGRADED):
            self.kind.model().item(index).setEnabled(status in taken)

    def show(self, row: Row) -> None:
        """Bring everything up to this row of the form."""
        self._row, self._showing = row, True
        if row.status in DEGRADED:
            self.kind.currentIndex = DEGRADED.index(row.status)
        self.profile.currentIndex = PROFILES.index(row.slice_profile)
        if widths_of(self.width.text) != row.psf_fwhm_mm:
            self.width.text = "" if row.psf_fwhm_mm is None else ", ".join(f"{mm:g}" for mm in row.psf_fwhm_mm)
        self.noise.value = float(row.image_noise_std or 0.0)
        self._showing = False
        self.arrange()

    def arrange(self) -> None:
        """Show what the row's status needs."""
        status = self._row.status
        self.widget.visible = status in DEGRADED
        self.width.visible, self.profile.visible = status == "blurred", status == "lowres"

    def _combo(self, what: str, words: list[str], slot: Callable[[int], None]) -> qt.QComboBox:
        combo = qt.QComboBox()
        combo.objectName = f"{self._name}_{what}"
        for word in words:
            combo.addItem(word)
        combo.connect("activated(int)", slot)
        return combo

    def _on_kind(self, index: int) -> None:
        self._row.status = DEGRADED[index]
        self._changed()

    def _on_profile(self, index: int) -> None:
        self._row.slice_profile = PROFILES[index]
        self._changed()

    def _on_width(self, text: str) -> None:
        self._row.psf_fwhm_mm = widths_of(text)
        self._changed()

    def _on_noise(self, value: float) -> None:
        if not self._showing:
            self._row.image_noise_std = value or None
            self._changed()


def numbers_of(text: str, counts: tuple[int, ...]) -> tuple[float, ...] | None:
    """So many numbers; None for anything else."""
    parts = re.split(r"[,;x\s]+", text.strip())
    try:
        numbers = tuple(float(part) for part in parts)
    except ValueError:
        return None
    return numbers if len(numbers) in counts else None


def widths_of(text: str) -> tuple[float, ...] | None:
    """One number or three; None for anything else."""
    return numbers_of(text, (1, 3))


def _kind_words(status: str) -> str:
    return {"noisy": _("Noisy"), "blurred": _("Blurred"), "lowres": _("Thick slices")}[status]
