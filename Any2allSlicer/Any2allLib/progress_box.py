"""Progress of a run: bar, stage, remaining time, place in the queue; and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slicer.i18n import tr as _

from .job import JobSnapshot
from .words import about, listed

WRONG, FINE = "color: #d64545", ""


class ProgressBox:
    """Progress bar and the line below it. ``ui``: the panel's named widgets."""

    def __init__(self, ui: Any) -> None:
        self._ui = ui

    def begin(self) -> None:
        """Apply was pressed."""
        self._ui.progressBar.value = 0
        self._ui.progressBar.visible = True
        self.say("")

    def show(self, shown: JobSnapshot) -> None:
        """How far it is."""
        ui = self._ui
        ui.progressBar.value = max(ui.progressBar.value, int(1000 * shown.fraction))
        ui.resumeButton.visible = shown.can_resume
        parts = [shown.title, shown.detail]
        if shown.remaining_s is not None:
            parts.append(_("{0} left").format(about(shown.remaining_s)))
        words = " · ".join(part for part in parts if part)
        if shown.error:
            words = f"{words}. {shown.error}"
        self.say(words, wrong=bool(shown.error))

    def end(self, shown: JobSnapshot, made: Sequence[str] = ()) -> None:
        """How it ended: with what was ``made``, or with the reason why nothing was."""
        self._ui.progressBar.visible = self._ui.resumeButton.visible = False
        words = _("{0} made.").format(listed(made)) if made else shown.error
        self.say(f"{shown.title}. {words}".strip(), wrong=shown.state in ("failed", "lost"))

    def say(self, words: str, wrong: bool = False) -> None:
        """A line of words; '' hides it."""
        label = self._ui.progressLabel
        if label.text != words:
            label.text = words
        label.styleSheet = WRONG if wrong else FINE
        label.visible = bool(words)
