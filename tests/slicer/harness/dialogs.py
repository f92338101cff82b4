"""Dialogs that nobody sits in front of: what they say is recorded, what they answer is written down by the test.

A dialog without an answer fails the test. ``answer`` takes the answers in the order in which the dialogs come.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from PySide6 import QtWidgets

from . import problems

StandardButton = QtWidgets.QMessageBox.StandardButton
ASKING = StandardButton.Cancel | StandardButton.No | StandardButton.Retry


@dataclass(frozen=True)
class Shown:
    """One dialog that came up: ``kind`` (message, file or desktop), its text, and the details below it."""

    kind: str
    text: str
    details: str = ""


@dataclass
class Script:
    """The dialogs shown so far and the answers still to give."""

    shown: list[Shown] = field(default_factory=list)
    answers: deque = field(default_factory=deque)

    def answer(self, *answers: Any) -> None:
        """Answers to come: "ok", "cancel", "yes", "no", "retry", "close" for messages; a path (or list) for files."""
        self.answers.extend(answers)

    def texts(self) -> list[str]:
        return [dialog.text for dialog in self.shown]

    def clear(self) -> None:
        self.shown.clear()
        self.answers.clear()

    def next_answer(self, text: str) -> Any:
        if not self.answers:
            problems.report("dialog", f"no answer was written down for: {text}")
            return None
        return self.answers.popleft()


script = Script()


def ask_message(text: str, details: str, buttons: StandardButton) -> StandardButton:
    """The button that is pressed. A message with OK alone needs no answer."""
    script.shown.append(Shown("message", text, details))
    if not buttons & ASKING:
        return StandardButton.Ok
    answer = script.next_answer(text)
    if answer is None:
        return StandardButton.Cancel
    pressed = {button.name.lower(): button for button in StandardButton if button.name}.get(answer)
    if pressed is None or not buttons & pressed:
        problems.report("dialog", f"{answer!r} is not among the buttons of: {text}")
        return StandardButton.Cancel
    return pressed


class MessageBox:
    """``qt.QMessageBox`` and ``ctk.ctkMessageBox`` (CTK Libs/Widgets/ctkMessageBox.h)."""

    def __init__(self, _parent: Any = None) -> None:
        self.text = self.windowTitle = self.informativeText = self.detailedText = ""
        self.icon = QtWidgets.QMessageBox.Icon.NoIcon
        self.standardButtons = StandardButton.Ok
        self.dontShowAgainSettingsKey = ""

    def __setattr__(self, name: str, value: Any) -> None:
        known = {"text", "windowTitle", "informativeText", "detailedText", "icon", "standardButtons"}
        if name not in known | {"dontShowAgainSettingsKey"}:
            raise AttributeError(f"QMessageBox has no property {name!r}")
        object.__setattr__(self, name, value)

    def setText(self, text: str) -> None:
        self.text = text

    def setInformativeText(self, text: str) -> None:
        self.informativeText = text

    def setDetailedText(self, text: str) -> None:
        self.detailedText = text

    def setWindowTitle(self, text: str) -> None:
        self.windowTitle = text

    def setIcon(self, icon: QtWidgets.QMessageBox.Icon) -> None:
        self.icon = icon

    def setStandardButtons(self, buttons: StandardButton) -> None:
        self.standardButtons = buttons

    def deleteLater(self) -> None:
        """The real one frees its window here."""

    def exec_(self) -> StandardButton:
        details = "\n".join(filter(None, [self.informativeText, self.detailedText]))
        return ask_message(self.text, details, self.standardButtons)


def _static_message(_parent: Any, title: str, text: str, buttons: StandardButton = StandardButton.Ok) -> StandardButton:
    return ask_message(text, title, buttons)


def _expose_buttons_and_icons() -> None:
    for member in [*StandardButton, *QtWidgets.QMessageBox.Icon]:
        setattr(MessageBox, member.name, member)
    for name in ("information", "warning", "critical", "question"):
        setattr(MessageBox, name, staticmethod(_static_message))


_expose_buttons_and_icons()


class FileDialog:
    """The static questions of ``qt.QFileDialog``; PythonQt returns the path alone, "" for a cancelled dialog."""

    @staticmethod
    def _ask(caption: str) -> Any:
        script.shown.append(Shown("file", caption))
        return script.next_answer(caption)

    @staticmethod
    def getOpenFileName(parent: Any = None, caption: str = "", folder: str = "", name_filter: str = "") -> str:
        return str(FileDialog._ask(caption) or "")

    getSaveFileName = getOpenFileName

    @staticmethod
    def getExistingDirectory(parent: Any = None, caption: str = "", folder: str = "") -> str:
        return str(FileDialog._ask(caption) or "")

    @staticmethod
    def getOpenFileNames(parent: Any = None, caption: str = "", folder: str = "", name_filter: str = "") -> tuple:
        return tuple(str(path) for path in FileDialog._ask(caption) or ())


class DesktopServices:
    """``qt.QDesktopServices``: addresses are recorded, nothing is opened."""

    @staticmethod
    def openUrl(url: Any) -> bool:
        script.shown.append(Shown("desktop", url.toString()))
        return True
