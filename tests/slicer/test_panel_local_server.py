"""The box "start a server on this computer": the command is shown and asked about; the process is a fake here."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import slicer
from panel_driver import at_the_panel


class FakeProcess:
    """Remembers what was to be started."""

    def __init__(self, server, log, environment) -> None:
        self.server, self.log, self.environment = server, log, environment
        self.alive, self.exit_code, self.stopped = True, None, False

    def stop(self) -> None:
        self.stopped, self.alive = True, False

    def poll(self) -> bool:
        return self.alive

    def last_lines(self, count: int = 10) -> str:
        return "Traceback\nImportError: no module named torch"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder that looks like a clone in which `make serve` has been run."""
    for folder in (".venv/bin", "monai_app", "outputs/studies"):
        (tmp_path / "my clone" / folder).mkdir(parents=True)
    python = tmp_path / "my clone" / ".venv" / "bin" / "python"
    python.write_text("#!/bin/sh\n")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "my clone" / "monai_app" / "main.py").touch()
    return tmp_path / "my clone"


@pytest.fixture
def person(load_module, run_events, clone):
    """Has entered the clone and a port at which the fake server will answer."""
    with at_the_panel(load_module, run_events) as someone:
        started = []

        def start(*arguments):
            started.append(FakeProcess(*arguments))
            return started[-1]

        someone.started = started
        someone.panel.local_server._start = start
        someone.ui.localServerBox.click()
        someone.ui.clonePath.currentPath = str(clone)
        someone.ui.portSpin.value = someone.server.port
        someone.server.stop()
        yield someone


def test_the_command_is_shown_before_anything_runs(person, clone):
    text = person.ui.commandText.plainText
    assert text.startswith(f'"{clone}/.venv/bin/python" -m monailabel.main start_server --app "{clone}/monai_app"')
    assert text.endswith(f"--host 127.0.0.1 --port {person.server.port}") and person.started == []


def test_it_is_started_only_after_a_question_and_then_connected_to(person, slicer_scene):
    slicer_scene.dialogs.answer("cancel", "ok")
    person.ui.startServerButton.click()
    assert person.started == []
    person.ui.startServerButton.click()
    assert person.ui.commandText.plainText in slicer_scene.dialogs.texts()[-1]
    assert person.started[0].server.port == person.server.port
    assert "PYTHONHOME" not in person.started[0].environment
    assert person.ui.startServerButton.text == "Stop the server"
    person.wait(lambda: person.ui.statusLabel.text == "The server is starting …")
    person.server.start()
    person.wait(lambda: person.ui.statusLabel.text.startswith("Connected"))
    assert not person.ui.connectionSection.collapsed  # the box is open: it stays in sight
    person.ui.startServerButton.click()
    person.wait(lambda: person.ui.localServerLabel.text == "The server was stopped.")
    assert person.started[0].stopped and person.ui.startServerButton.text == "Start a local server…"


def test_a_server_that_dies_shows_its_last_lines(person, slicer_scene):
    slicer_scene.dialogs.answer("ok")
    person.ui.startServerButton.click()
    person.started[0].alive, person.started[0].exit_code = False, 3
    person.wait(lambda: "exit code 3" in person.ui.localServerLabel.text)
    assert "no module named torch" in person.ui.serverLog.plainText
    assert person.ui.startServerButton.enabled


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda clone: (clone / ".venv/bin/python").unlink(), "There is no Python program at"),
        (lambda clone: (clone / "monai_app/main.py").unlink(), "holds no MONAI Label app"),
        (lambda clone: (clone / "outputs/studies").rmdir(), "does not exist"),
    ],
)
def test_what_is_lacking_is_said_and_nothing_starts(person, clone, spoil, words):
    spoil(clone)
    person.ui.startServerButton.click()
    assert words in person.ui.localServerLabel.text and person.started == []


def test_no_folder_yet(person):
    person.ui.clonePath.currentPath = ""
    person.ui.startServerButton.click()
    assert person.ui.localServerLabel.text == "Choose the Any2all folder first."


def test_the_server_ends_with_the_module_and_the_folder_is_remembered(person, slicer_scene, clone):
    slicer_scene.dialogs.answer("ok")
    person.ui.startServerButton.click()
    person.widget.onReload()
    assert person.started[0].stopped
    ui = slicer.modules.Any2allSlicerWidget.ui
    assert ui.clonePath.currentPath == str(clone) and os.sep in ui.commandText.plainText
    slicer.modules.Any2allSlicerWidget.panel.close()
