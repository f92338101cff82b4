"""A scene that is saved and loaded brings back ticks, choices and results; one that is closed takes them away."""

from __future__ import annotations

import pytest
import slicer
from lib_servers import fake_server
from panel_driver import add_volume, at_the_panel

TOKEN = "secret-secret-secret"


@pytest.fixture
def person(load_module, run_events):
    with at_the_panel(load_module, run_events) as someone:
        yield someone


@pytest.fixture
def saved(person, tmp_path):
    """Path of a bundle with choices of every kind and results in it; the panel is still open."""
    add_volume("T1"), add_volume("scan 7"), add_volume("T2")
    person.ask(token=TOKEN)
    person.idle()
    person.choose("T2FLAIR", "scan 7")
    person.click("T2FLAIR_undersampled")
    person.find("T2FLAIR_acceleration").value = 6
    person.click("T2_missing")
    person.find("PET_wanted").checked = False
    person.ui.presetBest.click()
    person.ui.seedSpin.value = 11
    person.apply()
    assert person.wait_for_end().startswith("Done.")
    path = tmp_path / "scene.mrb"
    assert slicer.util.saveScene(str(path))
    return path


def described(person) -> dict:
    form = person.panel.form
    return {
        "ticks": person.ticks(),
        "volumes": person.volumes(),
        "wanted": form.outputs,
        "settings": form.settings_document(),
        "acceleration": form.rows["T2FLAIR"].acceleration,
        "results": [person.ui.outputsTable.item(r, 0).text() for r in range(person.ui.outputsTable.rowCount)],
    }


def test_a_scene_saved_and_loaded_again(person, saved):
    before = described(person)
    assert before["volumes"] == {"T1": "T1", "T2": "T2", "T2FLAIR": "scan 7"} and len(before["results"]) == 1
    assert before["settings"] == {"preset": "best", "sampler": {"seed": 11}}
    slicer.mrmlScene.Clear(0)
    person.idle()
    assert described(person)["ticks"] == dict.fromkeys(before["ticks"], "missing")
    slicer.util.loadScene(str(saved))
    person.idle()
    assert described(person) == before
    add_volume("T2 tse")  # a row that was decided before saving still does not follow the scene
    person.idle()
    assert person.ticks()["T2"] == "missing"


def test_a_scene_is_added_to_one_whose_node_ids_differ(person, saved):
    """Ids change where they are taken: assignments are node references, and follow."""
    slicer.mrmlScene.Clear(0)
    add_volume("other")
    slicer.util.loadScene(str(saved))
    person.idle()
    assert person.volumes()["T2FLAIR"] == "scan 7" and person.volumes()["T1"] == "T1"


def test_a_module_opened_on_a_loaded_scene_knows_it_before_it_connects(person, saved, load_module):
    person.widget.onReload()
    widget = slicer.modules.Any2allSlicerWidget
    assert widget.ui.urlCombo.currentText == person.server.url and widget.ui.presetBest.checked
    assert widget.panel.form.rows["T2FLAIR"].status == "undersampled"
    assert widget.ui.readyLabel.text == "Connect to a server first."
    widget.ui.testButton.click()
    person.wait(lambda: widget.ui.applyButton.enabled)
    assert widget.panel._table.rows["T2FLAIR"].selector.currentNode().GetName() == "scan 7"
    widget.panel.close()


def test_the_token_is_in_no_scene(person, saved):
    import zipfile

    with zipfile.ZipFile(saved) as bundle:
        scene = next(name for name in bundle.namelist() if name.endswith(".mrml"))
        text = bundle.read(scene).decode()
    assert TOKEN not in text and "serverUrl" in text


def test_closing_the_scene_forgets_the_study_and_keeps_the_connection(person, saved):
    slicer.mrmlScene.Clear(0)
    person.idle()
    assert person.ui.statusLabel.text.startswith("Connected") and person.volumes() == {}
    assert person.ui.outputsTable.rowCount == 0 and person.panel.form.preset == "balanced"
    assert person.ui.readyLabel.text == "Tick at least one modality as available or undersampled."


def test_the_token_goes_to_no_server_that_a_scene_names(person, saved):
    """Whoever made the scene wrote its address."""
    with fake_server() as other:
        person.ask(other.url, token="token-of-the-other-one")
        slicer.util.loadScene(str(saved))
        assert person.ui.urlCombo.currentText == person.server.url and person.ui.tokenEdit.text == ""
        person.ui.testButton.click()
        person.wait(lambda: not person.panel.connection.busy)
    assert person.server.tokens[-1] is None and "Bearer token-of-the-other-one" not in person.server.tokens
    person.ask(token=TOKEN)
    slicer.util.loadScene(str(saved))
    assert person.ui.tokenEdit.text == TOKEN  # the same server


@pytest.mark.parametrize("connected", [True, False])
def test_a_scene_of_a_panel_that_was_never_connected(person, tmp_path, connected):
    person.panel.connection.set_url("http://127.0.0.1:1")
    person.panel.refresh()
    path = tmp_path / "bare.mrb"
    assert slicer.util.saveScene(str(path))
    person.connect()
    if not connected:
        person.ui.urlCombo.setEditText("http://127.0.0.1:2")
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(path))
    person.idle()
    assert set(person.ticks().values()) == {"missing"}
    assert person.ui.readyLabel.text == "Connect to a server first."
    person.click("T1_available")  # a line that is shown can be used
    assert person.panel.form.rows["T1"].status == "available"


def test_closing_the_scene_while_the_server_is_away(person):
    add_volume("T1")
    person.connect()
    person.ui.urlCombo.setEditText("http://127.0.0.1:1")
    slicer.mrmlScene.Clear(0)
    person.idle()
    assert set(person.ticks().values()) == {"missing"} and person.volumes() == {}
    add_volume("T1")
    person.connect()
    assert person.ticks()["T1"] == "available"


def test_a_raw_file_is_not_offered_to_the_next_study(person, tmp_path):
    (tmp_path / "scan.npy").write_bytes(b"raw")
    person.connect()
    person.click("T2_undersampled")
    person.pick("T2_source", 1)
    person.find("T2_raw").currentPath = str(tmp_path / "scan.npy")
    person.pick("T2_source", 0)
    person.pick("T2_source", 1)
    assert person.panel.form.rows["T2"].raw_file.endswith("scan.npy")  # of the same study it is
    slicer.mrmlScene.Clear(0)
    person.idle()
    person.click("T2_undersampled")
    person.pick("T2_source", 1)
    assert person.find("T2_raw").currentPath == "" and person.panel.form.rows["T2"].raw_file == ""
