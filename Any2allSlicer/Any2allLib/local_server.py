"""The box "start a server on this computer": the command in full view, and the process that it starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ctk
import qt
import slicer
from slicer.i18n import tr as _

from .launch import LocalServer, clean_environment, in_clone
from .parts import Process

CLONE_KEY, STUDIES_KEY = "Any2all/clone", "Any2all/studies"
PATIENCE_S = 180.0  # that a server may need until it answers
CHECK_S = 0.5


class LocalServerBox:
    """Starts and stops one server.

    Args:
        ui: the panel's named widgets.
        start: `launch.ServerProcess` or a fake of it.
        started: called with the address and seconds of patience once a server is under way.
    """

    def __init__(
        self,
        ui: Any,
        start: Callable[[LocalServer, Path, Mapping[str, str]], Process],
        started: Callable[[str, float], None],
    ) -> None:
        self._ui, self._start, self._started = ui, start, started
        self._process: Process | None = None
        self._stopping = False
        self._check_at = 0.0
        settings = qt.QSettings()
        for path, key in ((ui.clonePath, CLONE_KEY), (ui.studiesPath, STUDIES_KEY)):
            path.filters = ctk.ctkPathLineEdit.Dirs
            path.currentPath = str(settings.value(key) or "")
            path.connect("currentPathChanged(QString)", lambda _path: self._show_command())
        ui.portSpin.connect("valueChanged(int)", lambda _port: self._show_command())
        ui.startServerButton.connect("clicked(bool)", lambda: self._on_button())
        self._show_command()

    @property
    def server(self) -> LocalServer:
        """As the fields say; without a study folder, one inside the clone's outputs."""
        clone = Path(self._ui.clonePath.currentPath.strip() or ".")
        studies = self._ui.studiesPath.currentPath.strip() or str(clone / "outputs" / "studies")
        return in_clone(clone, Path(studies), int(self._ui.portSpin.value))

    def tick(self, now: float) -> None:
        """Look after the process once in a while."""
        if self._process is None or now < self._check_at:
            return
        self._check_at = now + CHECK_S
        if not self._process.poll():
            self._ended()

    def close(self) -> None:
        """The module goes away, and its server with it."""
        if self._process is not None:
            self._process.stop()

    def _on_button(self) -> None:
        if self._process is not None:
            self._stopping = True
            self._process.stop()
            self._ui.startServerButton.enabled = False
            self._say(_("The server is being stopped …"))
            return
        server = self.server
        problem = server.problem() if self._ui.clonePath.currentPath.strip() else _("Choose the Any2all folder first.")
        if problem:
            self._say(problem)
            return
        question = _("This command will be run on this computer:\n\n{0}").format(_joined(server.command()))
        if slicer.util.confirmOkCancelDisplay(question, _("Start a local server")):
            self._run(server)

    def _run(self, server: LocalServer) -> None:
        log = Path(slicer.app.temporaryPath) / f"any2all-server-{server.port}.log"
        try:
            environment = clean_environment(os.environ, Path(slicer.app.slicerHome))
            self._process = self._start(server, log, environment)
        except OSError as error:
            self._say(_("The server cannot be started: {0}.").format(error.strerror or type(error).__name__))
            return
        settings = qt.QSettings()
        settings.setValue(CLONE_KEY, self._ui.clonePath.currentPath)
        settings.setValue(STUDIES_KEY, self._ui.studiesPath.currentPath)
        self._stopping = False
        self._ui.serverLog.visible = False
        self._ui.startServerButton.text = _("Stop the server")
        self._say(_("Started. It takes up to a minute until it answers."))
        self._started(server.url, PATIENCE_S)

    def _ended(self) -> None:
        process, self._process = self._process, None
        self._ui.startServerButton.text = _("Start a local server…")
        self._ui.startServerButton.enabled = True
        if self._stopping:
            self._say(_("The server was stopped."))
            return
        self._say(_("The server ended by itself (exit code {0}). Its last lines:").format(process.exit_code))
        self._ui.serverLog.plainText = process.last_lines(12)
        self._ui.serverLog.visible = True

    def _show_command(self) -> None:
        self._ui.commandText.plainText = _joined(self.server.command())

    def _say(self, words: str) -> None:
        self._ui.localServerLabel.text = words
        self._ui.localServerLabel.visible = True


def _joined(command: list[str]) -> str:
    """The arguments as a person would type them."""
    return " ".join(f'"{part}"' if " " in part else part for part in command)
