"""A scene that is saved and loaded brings back ticks, choices and results; one that is closed takes them away."""

from __future__ import annotations

import pytest
import slicer
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
