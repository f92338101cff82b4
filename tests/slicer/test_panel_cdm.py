"""CDM with the released weights: the panel and a script over HTTP get the same images from a real server."""

from __future__ import annotations

import json
import time
import urllib.request
import uuid
from pathlib import Path

import lib_path
import numpy as np
import pytest
import slicer
import vtk
from panel_driver import MODULE, Person
from real_server import real_server, server_python

DEMONSTRATION = lib_path.REPOSITORY / "bundle" / "demo"
RELEASED = lib_path.REPOSITORY / "bundle" / "models" / "cdm.pt"
GIVEN, MADE = ("T1", "T2star"), ("T2FLAIR", "CT")
FIRST, SLICES = 6, 3  # of the demonstration's 14
STUDY = {
    "version": 1,
    "subject": "study",  # as the panel calls everyone: draws depend on the subject
    "modalities": {name: {"status": "available", "file": f"{name}.nii.gz"} for name in GIVEN},
    "outputs": list(MADE),
    "sampler": {"name": "cdm", "samples": 2},
}


@pytest.fixture
def python() -> Path:
    found = server_python()
    if found is None or not RELEASED.is_file():
        pytest.skip("no server environment or no released CDM: its whole way is NOT tested")
    return found


@pytest.fixture
def person(python, load_module, run_events, tmp_path):
    """At a panel that is connected to a real server with the released weights."""
    with real_server(python, tmp_path / "server") as url:
        someone = Person(load_module(MODULE), None, run_events)
        someone.ui.urlCombo.setEditText(url)
        someone.panel.connection.test(90.0)
        someone.wait(lambda: someone.panel.connection.info is not None, 90)
        yield someone


@pytest.fixture
def images(slicer_scene, tmp_path) -> Path:
    """A folder with the middle slices of the demonstration's images."""
    from Any2allLib import nifti

    folder, matrix = tmp_path / "images", vtk.vtkMatrix4x4()
    folder.mkdir()
    for name in GIVEN:
        node = slicer.util.loadVolume(str(DEMONSTRATION / f"{name}.nii.gz"), {"show": False})
        node.GetIJKToRASMatrix(matrix)
        affine = slicer.util.arrayFromVTKMatrix(matrix)
        affine[:3, 3] += FIRST * affine[:3, 2]
        part = slicer.util.arrayFromVolume(node)[FIRST : FIRST + SLICES].astype(np.float32)
        for _ in nifti.written(folder / f"{name}.nii.gz", part, affine):
            pass
        slicer.mrmlScene.RemoveNode(node)
    return folder


def over_http(url: str, images: Path, folder: Path) -> dict[str, Path]:
    """The study as a script sends it: multipart by hand, nothing of the module's own client → the images' files."""
    mark = uuid.uuid4().hex
    parts = [('name="study"', json.dumps(STUDY).encode())]
    parts += [(f'name="files"; filename="{name}.nii.gz"', (images / f"{name}.nii.gz").read_bytes()) for name in GIVEN]
    body = b"".join(
        f"--{mark}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + content + b"\r\n"
        for head, content in parts
    )
    headers = {"Content-Type": f"multipart/form-data; boundary={mark}"}
    jobs = f"{url}/any2all/v1/jobs"
    job = f"{jobs}/{json.loads(fetch(jobs, body + f'--{mark}--'.encode(), headers))['job_id']}"
    until = time.monotonic() + 120
    while (status := json.loads(fetch(job)))["state"] in ("queued", "running") and time.monotonic() < until:
        time.sleep(0.1)
    assert status["state"] == "done", status
    return saved(folder, {name: fetch(f"{job}/results/{name}.nii.gz") for name in MADE})


def fetch(url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, body, headers or {}), timeout=60) as reply:
        return reply.read()


def saved(folder: Path, contents: dict[str, bytes]) -> dict[str, Path]:
    folder.mkdir()
    for name, content in contents.items():
        (folder / f"{name}.nii.gz").write_bytes(content)
    return {name: folder / f"{name}.nii.gz" for name in contents}


def values(file: Path) -> np.ndarray:
    return slicer.util.arrayFromVolume(slicer.util.loadVolume(str(file), {"show": False}))


def test_the_panel_and_a_script_get_the_same_images(person, images, tmp_path):
    for name in GIVEN:
        slicer.util.loadVolume(str(images / f"{name}.nii.gz"), {"show": False}).CreateDefaultDisplayNodes()
    person.idle()
    assert set(person.volumes()) == set(GIVEN)
    for name in ("T2", "PET"):
        person.find(f"{name}_wanted").checked = False
    person.pick("samplerCombo", person.ui.samplerCombo.findData("cdm"))
    person.ui.samplesSpin.value = 2
    person.apply()
    person.wait(lambda: person.panel.run is None, 120)
    assert person.ui.progressLabel.text.startswith("Done."), person.ui.progressLabel.text
    panel = {name: slicer.util.getNode(f"{name} · synthesised · Any2all") for name in MADE}
    assert panel["CT"].GetAttribute("Any2all.Sampler") == "cdm"
    assert slicer.util.getNode("CT · uncertainty (std) · Any2all") is not None
    http = over_http(person.panel.connection.url, images, tmp_path / "http")
    for name in MADE:
        seen = slicer.util.arrayFromVolume(panel[name])
        assert seen.shape[0] == SLICES and seen.std() > 50  # HU, and a.u. in thousandths
        assert np.array_equal(seen, values(http[name]))
