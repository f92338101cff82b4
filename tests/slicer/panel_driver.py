"""A person at the panel: presses what has a name, waits for what is shown. The server at the other end is a fake."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lib_path
import numpy as np
import slicer
from harness import qmrml, scripted
from harness.pythonqt import slowest_slot
from lib_servers import FakeServer, assert_brief, fake_server, job_status

MODULE = lib_path.MODULE / "Any2allSlicer.py"
SHAPE = (6, 10, 8)  # (K, J, I) of the volumes in these tests

RUNNING = [job_status("running", stage="sampling", step=i, total=4, eta_s=4 - i) for i in range(1, 4)]
DONE = job_status("done", step=4, total=4, warnings=["the brain is cut off at the top"])


def affine() -> np.ndarray:
    """IJK to RAS of the volumes: oblique and flipped, 2 x 2 x 5 mm."""
    turn = np.array([[1, 0, 0], [0, np.cos(0.2), -np.sin(0.2)], [0, np.sin(0.2), np.cos(0.2)]])
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.diag([-2.0, -2.0, 5.0])
    matrix[:3, 3] = (7, 9, -12)
    return matrix


def add_volume(name: str, value: float = 100.0) -> slicer.vtkMRMLScalarVolumeNode:
    """A volume of the scene, with a ramp in it."""
    ramp = value + np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    return slicer.util.addVolumeFromArray(ramp, affine(), name)


def volume_bytes(value: float) -> bytes:
    """A result as a server sends it: on the grid of `add_volume`, every voxel ``value``."""
    from Any2allLib import nifti

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.nii.gz"
        for _ in nifti.written(path, np.full(SHAPE, value, np.float32), affine()):
            pass
        return path.read_bytes()


class Person:
    """Sits at the loaded module with a server to connect to."""

    def __init__(self, loaded: scripted.Loaded, server: FakeServer, run_events: Callable) -> None:
        self.loaded, self.server, self._run_events = loaded, server, run_events
        self.widget, self.ui, self.panel = loaded.widget, loaded.widget.ui, loaded.widget.panel

    def find(self, name: str) -> Any:
        """A widget by its name, also one that was made after the panel."""
        return slicer.util.findChild(self.widget.parent, name)

    def wait(self, until: Callable[[], bool], timeout: float = 10.0) -> None:
        self._run_events(until, timeout)

    def idle(self, seconds: float = 0.15) -> None:
        """Let the timer tick a few times."""
        self._run_events(seconds)

    def ask(self, url: str = "", token: str = "") -> None:
        """Type an address and press Test; wait for an answer in words."""
        self.ui.urlCombo.setEditText(url or self.server.url)
        self.ui.tokenEdit.text = token
        self.ui.testButton.click()
        self.wait(lambda: not self.panel.connection.busy)

    def connect(self) -> Person:
        self.ask()
        assert self.ui.statusLabel.text.startswith("Connected"), self.ui.statusLabel.text
        self.idle()
        return self

    def click(self, name: str) -> None:
        self.find(name).click()

    def pick(self, combo: str, index: int) -> None:
        """Choose an item of a combo box with the mouse."""
        self.find(combo).currentIndex = index
        self.find(combo).activated(index)

    def choose(self, modality: str, volume: str) -> None:
        qmrml.choose(self.find(f"{modality}_volume"), volume)

    def ticks(self) -> dict[str, str]:
        """Modality → status, as the buttons show it."""
        return {
            name: next(status for status, button in line.buttons.items() if button.checked)
            for name, line in self.panel._table.rows.items()
        }

    def volumes(self) -> dict[str, str]:
        """Modality → name of the chosen volume, where there is one."""
        nodes = {name: line.selector.currentNode() for name, line in self.panel._table.rows.items()}
        return {name: node.GetName() for name, node in nodes.items() if node is not None}

    def apply(self) -> None:
        """Press Apply, which has to be possible. The fake server knows one job at a time."""
        self.wait(lambda: not self.panel._leaving)
        if self.server is not None:
            self.server.cancelled = False
        assert self.ui.applyButton.enabled and self.ui.applyButton.text == "Apply", self.ui.readyLabel.text
        self.ui.applyButton.click()

    def wait_for_end(self) -> str:
        """The words at the end of a run."""
        self.wait(lambda: self.panel.run is None)
        return self.ui.progressLabel.text

    def left_behind(self) -> list[str]:
        """Folders of runs that are still there."""
        return [path.name for path in Path(slicer.app.temporaryPath).glob("Any2all-*")]

    def made(self) -> list[str]:
        """Names of the volumes in the scene that Any2all has made."""
        nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        return [node.GetName() for node in nodes if node.GetAttribute("Any2all.Role")]


@contextmanager
def at_the_panel(load_module: Callable, run_events: Callable) -> Iterator[Person]:
    """The module, loaded, and a fake server that makes CT and its uncertainty. Polls come quickly.

    Afterwards no slot may have kept the panel from answering, and no file of a run may be left.
    """
    with fake_server() as server:
        person = Person(load_module(MODULE), server, run_events)
        server.volumes = {"CT.nii.gz": volume_bytes(34.0), "CT_std.nii.gz": volume_bytes(12.0)}
        server.plan = [*RUNNING, DONE]
        slowest_slot.forget()
        with patch.object(sys.modules["Any2allLib.job"], "POLL_S", 0.02):
            yield person
        assert_brief(f"{slowest_slot.hardest} or {slowest_slot.name}", slowest_slot.worked, slowest_slot.seconds)
        if person.panel.run is None:
            assert person.left_behind() == []
