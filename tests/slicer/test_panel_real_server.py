"""The whole way against a real server process: real volumes go out, real results come back onto the anatomy."""

from __future__ import annotations

import gzip
import urllib.request

import numpy as np
import pytest
import slicer
from harness.scripted import SampleDataLogic
from panel_driver import MODULE, Person, affine
from real_server import real_server, server_python, write_tiny_prior

SHAPE = (6, 40, 32)


def head(scale: float) -> np.ndarray:
    """An ellipsoid with a brighter half, so that left and right differ."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    inside = z**2 / 4 + y**2 + x**2 < 0.8
    return (scale * inside * (1.0 + 0.3 * (x > 0))).astype(np.float32)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """Of a real server with an untrained prior."""
    python = server_python()
    if python is None:
        pytest.skip("no server environment: set ANY2ALL_SERVER_PYTHON, or the whole way is NOT tested")
    folder = tmp_path_factory.mktemp("real")
    with real_server(python, folder / "server", write_tiny_prior(python, folder / "prior")) as url:
        yield url


@pytest.fixture
def person(url, load_module, run_events):
    """At a panel that is connected to the server."""
    someone = Person(load_module(MODULE), None, run_events)
    someone.ui.urlCombo.setEditText(url)
    someone.panel.connection.test(90.0)
    someone.wait(lambda: someone.panel.connection.info is not None, 90)
    return someone


def test_the_whole_way(person):
    for name, scale in (("T1", 800.0), ("t2_tse", 500.0)):
        slicer.util.addVolumeFromArray(head(scale), affine(), name)
    person.idle()
    assert person.ticks()["T1"] == person.ticks()["T2"] == "available"
    person.click("T2_undersampled")  # measured by the simulation of the server
    for name in ("T2FLAIR", "T2star", "PET"):
        person.find(f"{name}_wanted").checked = False
    person.ui.stepsSpin.value, person.ui.samplesSpin.value = 5, 2
    person.apply()
    person.wait(lambda: person.panel.run is None, 120)
    assert person.ui.progressLabel.text.startswith("Done."), person.ui.progressLabel.text
    assert sorted(person.made()) == [
        "CT · synthesised · Any2all",
        "CT · uncertainty (std) · Any2all",
        "T2 · reconstructed · Any2all",
        "T2 · uncertainty (std) · Any2all",
    ]
    t1, t2 = slicer.util.getNode("T1"), slicer.util.getNode("T2 · reconstructed · Any2all")
    values = slicer.util.arrayFromVolume(t2)
    assert values.shape == SHAPE and np.isfinite(values).all()
    assert np.allclose(slicer.util.arrayFromVolume(t1) > 0, head(1.0) > 0)
    given = head(500.0)
    assert np.corrcoef(values.ravel(), given.ravel())[0, 1] > 0.5  # the data was seen: not turned, not flipped
    assert t2.GetAttribute("Any2all.Steps") == "5" and person.left_behind() == []
    the_sample_data_is_there(person)


def the_sample_data_is_there(person) -> None:
    """What the module has registered can be fetched from this server."""
    for uri in SampleDataLogic.registered[0]["uris"]:
        address = uri.replace("http://127.0.0.1:8000", person.panel.connection.url)
        with urllib.request.urlopen(address, timeout=10) as reply:
            assert gzip.decompress(reply.read())[344:347] == b"n+1", uri


def test_poor_images_on_the_whole_way(person):
    """A noisy image beside a clean one; then the only image has thick slices, and results have thinner ones."""
    rng = np.random.default_rng(0)
    noisy = head(500.0) + rng.normal(0, 40, SHAPE).astype(np.float32)
    thick_slices = affine() @ np.diag([1.0, 1.0, 3.0, 1.0])
    for name, image in (("T1", head(800.0)), ("t2_tse", noisy)):
        slicer.util.addVolumeFromArray(image, thick_slices, name)
    person.idle()
    person.click("T2_degraded")
    for name in ("T2FLAIR", "T2star", "CT", "PET"):
        person.find(f"{name}_wanted").checked = False
    person.ui.stepsSpin.value, person.ui.samplesSpin.value = 5, 2
    person.apply()
    person.wait(lambda: person.panel.run is None, 120)
    assert person.ui.progressLabel.text.startswith("Done."), person.ui.progressLabel.text
    made = slicer.util.arrayFromVolume(slicer.util.getNode("T2 · reconstructed · Any2all"))
    assert made.shape == SHAPE
    assert np.abs(made - head(500.0)).mean() < np.abs(noisy - head(500.0)).mean(), "less noise than what was given"

    person.click("T2_missing")
    person.click("T1_degraded")
    person.pick("T1_degraded_kind", 2)
    person.apply()
    person.wait(lambda: person.panel.run is None, 120)
    assert person.ui.progressLabel.text.startswith("Done."), person.ui.progressLabel.text
    thick, thin = slicer.util.getNode("T1"), slicer.util.getNode("T1 · reconstructed · Any2all (2)")
    assert slicer.util.arrayFromVolume(thin).shape[0] > slicer.util.arrayFromVolume(thick).shape[0]
    assert box_mm(thin) == pytest.approx(box_mm(thick), abs=8.0), "no image beside the anatomy"


def box_mm(node) -> list[float]:
    """Where a volume lies: the least and the largest coordinate along each axis."""
    bounds = [0.0] * 6
    node.GetRASBounds(bounds)
    return bounds
