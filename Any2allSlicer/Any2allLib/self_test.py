"""What the self-test inside Slicer runs: the panel with a server that lives in this process and computes nothing.

The "server" gives back the first image that it was sent, as a CT: enough to see the whole way through the real widgets,
scene and views. No socket, no thread, no network.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import slicer

from .client import Client
from .protocol import JobStatus, ResultInfo, ServerInfo, Submitted
from .route import ServerUrl

_DISPLAY = {"window": [0, 100], "window_in": "units", "colormap": "gray"}
INFO = {
    "protocol": 1,
    "version": "self-test",
    "stack": [
        {"name": "T1", "kind": "MR", "raw_data": True, "units": "a.u.", "patterns": ["t1"], "display": _DISPLAY},
        {"name": "CT", "kind": "CT", "raw_data": False, "units": "HU", "patterns": ["ct"], "display": _DISPLAY},
    ],
    "presets": {"balanced": {"steps": 10, "samples": 4, "seconds_per_slice": {"images": 0.1, "raw": 0.1}}},
    "samplers": {"mcs": {"steps": 10, "samples": 4}},
    "slice_mm": 5.0,
    "limits": {},
    "prior": {"sha256": "00" * 32, "version": "self-test"},
}


class Answered:
    """A call that is over at once."""

    is_over, failure, status = True, None, 200
    bytes_sent = bytes_total = bytes_received = 0
    bytes_expected = None

    def __init__(self, value: Any) -> None:
        self.value = value

    def tick(self, _budget_s: float = 0.02) -> bool:
        return True

    def abort(self) -> None:
        """Nothing is under way."""


class ClientInside:
    """Has the calls of `client.Client` that a run needs."""

    url, is_loopback, is_private = ServerUrl("http", "localhost", 1), True, True

    def __init__(self, folder: Path) -> None:
        self._folder, self._polls = folder, 0

    def info(self) -> Answered:
        return Answered(ServerInfo.parse(INFO))

    def submit(self, _study: Mapping[str, Any], files: Mapping[str, Path]) -> Answered:
        sent = next(iter(files.values()))
        for name in ("CT.nii.gz", "CT_std.nii.gz"):
            shutil.copyfile(sent, self._folder / name)
        return Answered(Submitted("self-test", 1))

    def status(self, _job_id: str) -> Answered:
        self._polls += 1
        if self._polls == 1:
            return Answered(JobStatus("running", "sampling", 1, 2, 1.0, None, (), None, ()))
        results = tuple(self._result(name) for name in ("CT.nii.gz", "CT_std.nii.gz"))
        return Answered(JobStatus("done", None, 2, 2, None, None, ("self-test: nothing was computed",), None, results))

    def cancel(self, _job_id: str) -> Answered:
        return Answered(None)

    def result(self, _job_id: str, name: str, file: Path, _sha256: str) -> Answered:
        shutil.copyfile(self._folder / name, file)
        return Answered(file)

    def _result(self, name: str) -> ResultInfo:
        checksum = hashlib.sha256((self._folder / name).read_bytes()).hexdigest()
        return ResultInfo(name, "CT", "std" if "_std" in name else "mean", checksum)


def whole_run(widget: Any, folder: Path, process_events: Callable[[], None], seconds: float = 30.0) -> list[Any]:
    """Connect, assign, Apply, wait → the outputs in the scene.

    Args:
        widget: the module's widget, set up.
        folder: for the server's files.
        process_events: lets Qt go on.

    Raises:
        AssertionError: a step does not come within ``seconds``.
    """
    ui, panel = widget.ui, widget.panel
    store = folder / "Any2all-self-test"
    store.mkdir(exist_ok=True)
    ramp = np.arange(12 * 16 * 16, dtype=np.int16).reshape(12, 16, 16) % 100
    slicer.util.addVolumeFromArray(ramp, name="T1")

    def wait(met: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + seconds
        while not met():
            assert time.monotonic() < deadline, f"the self-test waited in vain for {what}: {ui.readyLabel.text}"
            process_events()

    panel.connection.use(lambda _url, _token: ClientInside(store))
    try:
        ui.testButton.click()
        wait(lambda: ui.applyButton.enabled, "Apply")
        ui.applyButton.click()
        wait(lambda: panel.run is None and ui.outputsTable.rowCount > 0, "results")
        return list(panel.results.outputs)
    finally:
        panel.connection.use(Client)
        shutil.rmtree(store, ignore_errors=True)
