"""What there is, what to make, how: the scene is followed, the user is obeyed, and Apply says why it waits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import slicer
from panel_driver import add_volume, at_the_panel


@pytest.fixture
def person(load_module, run_events):
    with at_the_panel(load_module, run_events) as someone:
        yield someone


def test_volumes_are_assigned_on_connect_and_when_they_come(person):
    add_volume("MRBrainT1"), add_volume("localizer")
    person.connect()
    assert person.volumes() == {"T1": "MRBrainT1"} and person.ticks()["T1"] == "available"
    add_volume("t2_flair")
    person.idle()
    assert person.volumes() == {"T1": "MRBrainT1", "T2FLAIR": "t2_flair"}
    assert person.ui.readyLabel.text.startswith("Ready: T2, T2star, CT and PET from T1 and T2FLAIR")
    slicer.mrmlScene.RemoveNode(slicer.util.getNode("t2_flair"))
    person.idle()
    assert person.ticks()["T2FLAIR"] == "missing" and person.volumes() == {"T1": "MRBrainT1"}


def test_what_the_user_chose_is_never_overridden(person):
    add_volume("T1"), add_volume("scan 7")
    person.connect()
    person.choose("T1", "scan 7")
    person.click("T2_missing")
    add_volume("T2")
    person.idle()
    assert person.volumes()["T1"] == "scan 7" and person.ticks()["T2"] == "missing"
    person.click("assignButton")
    assert person.volumes() == {"T1": "T1", "T2": "T2"} and person.ticks()["T2"] == "available"


def test_choosing_an_image_for_a_missing_modality_makes_it_available(person):
    add_volume("scan 7")
    person.connect()
    person.choose("PET", "scan 7")
    assert person.ticks()["PET"] == "available" and not person.find("PET_wanted").enabled
    assert person.find("PET_wanted").toolTip == "PET is available: there is nothing to make"


@pytest.mark.parametrize("name", ["CT", "CT  synthesised  Any2all", "CT_uncertainty_(std)_Any2all_cropped"])
def test_a_result_that_is_chosen_by_hand_is_refused_on_its_row(person, name):
    add_volume("T1")
    person.connect()
    result = add_volume(name)
    if name == "CT":
        result.SetAttribute("Any2all.Role", "synthetic")
    person.idle()
    assert person.ticks()["CT"] == "missing" and person.ui.applyButton.enabled
    person.choose("CT", name)
    words = "The volume of CT is a result of Any2all, not an acquired image: choose the acquired one."
    label = person.panel._table.rows["CT"].label
    assert person.ui.readyLabel.text == label.toolTip == words and "color" in label.styleSheet
    assert not person.ui.applyButton.enabled
    add_volume("acquired")
    person.idle()
    person.choose("CT", "acquired")
    assert person.ui.readyLabel.text.startswith("Ready") and "color" not in label.styleSheet


def test_an_undersampled_modality_is_simulated_or_read_from_a_file(person, tmp_path):
    add_volume("T1"), add_volume("T2")
    person.connect()
    person.click("T2_undersampled")
    assert person.find("T2_acceleration").isVisibleTo(person.find("tableHost"))
    person.find("T2_acceleration").value = 6
    document = person.panel.form.study_document()["modalities"]["T2"]
    assert document["simulate"]["acceleration"] == 6 and document["status"] == "undersampled"
    raw = tmp_path / "t2.npy"
    np.save(raw, np.zeros((1, 2, 4, 4), np.complex64))
    person.pick("T2_source", 1)
    assert person.ui.readyLabel.text == "T2 is ticked as undersampled: choose its raw data file."
    person.find("T2_raw").currentPath = str(raw)
    assert person.ui.readyLabel.text == "The raw data of T2 does not say its voxel size: enter it (H, W, slice, in mm)."
    size = person.find("T2_voxel_size")
    assert size.isVisibleTo(person.find("tableHost"))
    size.text = "1, 1, 5"
    size.textEdited("1, 1, 5")
    assert person.ui.readyLabel.text.startswith("Ready") and not person.find("T2_volume").enabled
    assert person.panel.form.study_document()["modalities"]["T2"]["voxel_size_mm"] == [1, 1, 5]


def test_a_poor_image_is_noisy_blurred_or_of_thick_slices(person):
    add_volume("T1"), add_volume("PET")
    person.connect()
    host, noise = person.find("tableHost"), person.find("PET_image_noise_std")
    assert not noise.isVisibleTo(host)
    person.click("PET_degraded")
    assert noise.isVisibleTo(host) and noise.text == "noise: estimated" and person.find("PET_wanted").enabled
    document = person.panel.form.study_document()
    assert document["modalities"]["PET"] == {"status": "noisy", "file": "PET.nii.gz"} and "PET" in document["outputs"]
    noise.value = 0.15
    assert person.panel.form.study_document()["modalities"]["PET"]["noise_std"] == 0.15
    person.pick("PET_degraded_kind", 1)
    width, words = person.find("PET_psf_fwhm_mm"), "PET is ticked as blurred: enter the width of the blur in mm"
    assert width.isVisibleTo(host) and not person.find("PET_slice_profile").isVisibleTo(host)
    label = person.panel._table.rows["PET"].label
    assert person.ui.readyLabel.text.startswith(words) and label.toolTip.startswith(words)
    assert "color" in label.styleSheet and "color" not in person.panel._table.rows["T1"].label.styleSheet
    width.text = "5, 5, 7"
    width.textEdited("5, 5, 7")
    assert person.ui.readyLabel.text.startswith("Ready: T2, T2FLAIR, T2star, CT and PET from T1 and PET")
    assert label.toolTip == "PET, in SUVr" and "color" not in label.styleSheet
    document = person.panel.form.study_document()["modalities"]["PET"]
    assert document == {"status": "blurred", "file": "PET.nii.gz", "psf_fwhm_mm": [5, 5, 7], "noise_std": 0.15}
    person.pick("PET_degraded_kind", 2)
    person.pick("PET_slice_profile", 1)
    document = person.panel.form.study_document()["modalities"]["PET"]
    assert document == {"status": "lowres", "file": "PET.nii.gz", "slice_profile": "gaussian", "noise_std": 0.15}
    person.click("PET_available")
    assert not noise.isVisibleTo(host) and person.ticks()["PET"] == "available"
    person.click("PET_degraded")
    assert person.panel.form.rows["PET"].status == "lowres"


def test_a_server_that_takes_no_poor_images_is_not_offered_any(person):
    for sampler in person.server.info["samplers"].values():
        sampler.pop("takes", None)
    person.connect()
    assert not person.find("T1_degraded").enabled and person.find("T1_undersampled").enabled
    assert "takes no images that are noisy" in person.find("T1_degraded").toolTip


def test_the_trajectory_is_asked_for_where_the_raw_file_does_not_say_it(person, tmp_path):
    add_volume("T1")
    person.connect()
    person.click("T2_undersampled")
    person.pick("T2_source", 1)
    path, host = person.find("T2_trajectory"), person.find("tableHost")
    assert not path.isVisibleTo(host)
    arrays = {"kspace": np.zeros((1, 2, 64), np.complex64), "voxel_size_mm": [1.0, 1.0, 5.0]}
    np.savez(tmp_path / "alone.npz", **arrays)
    np.savez(tmp_path / "both.npz", **arrays, trajectory=np.zeros((64, 2)))
    np.save(tmp_path / "places.npy", np.zeros((64, 2)))
    person.find("T2_raw").currentPath = str(tmp_path / "both.npz")
    assert not path.isVisibleTo(host)
    person.find("T2_raw").currentPath = str(tmp_path / "alone.npz")
    assert path.isVisibleTo(host) and person.ui.readyLabel.text.startswith("Ready")
    path.currentPath = str(tmp_path / "nowhere.npy")
    assert person.ui.readyLabel.text == "The trajectory of T2 does not exist: nowhere.npy."
    path.currentPath = str(tmp_path / "places.npy")
    document = person.panel.form.study_document()["modalities"]["T2"]
    assert document == {"status": "undersampled", "kspace": "T2_raw.npz", "trajectory": "T2_trajectory.npy"}


@pytest.mark.parametrize("by_hand", [True, False])
def test_an_image_that_leaves_the_scene_makes_no_room_for_its_neighbour(person, by_hand):
    """Slicer's selector goes on to the volume before the one that was deleted: of another patient, perhaps."""
    add_volume("other head"), add_volume("T1")
    person.connect()
    if by_hand:
        person.choose("T1", "other head")
        person.choose("T1", "T1")
    slicer.mrmlScene.RemoveNode(slicer.util.getNode("T1"))
    assert person.panel.form.rows["T1"].volume != slicer.util.getNode("other head").GetID()
    person.idle()
    assert person.volumes() == {} and person.ticks()["T1"] == ("available" if by_hand else "missing")
    assert not person.ui.applyButton.enabled
    person.choose("T1", "other head")
    person.idle()
    assert person.volumes() == {"T1": "other head"}


def test_modalities_without_raw_data_cannot_be_undersampled(person):
    person.connect()
    assert not person.find("CT_undersampled").enabled and person.find("T1_undersampled").enabled


def nothing_given(person):
    pass


def no_volume(person):
    person.click("T1_available")


def gone_volume(person):
    add_volume("x")
    person.choose("T1", "x")
    slicer.mrmlScene.RemoveNode(slicer.util.getNode("x"))


def used_twice(person):
    add_volume("x")
    person.choose("T1", "x")
    person.choose("T2", "x")


def no_output(person):
    add_volume("T1")
    person.idle()
    for name in ("T2", "T2FLAIR", "T2star", "CT", "PET"):
        person.find(f"{name}_wanted").checked = False


def all_given(person):
    for name in ("T1", "T2", "T2FLAIR", "T2star", "CT", "PET"):
        add_volume(name)


def too_many_steps_for_one_sample(person):
    add_volume("T1")
    person.idle()
    person.ui.presetFast.click()
    person.ui.samplesSpin.value = 3


def raw_file_away(person):
    person.click("T1_undersampled")
    person.pick("T1_source", 1)
    person.find("T1_raw").currentPath = str(Path("/nowhere/k.h5"))


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (nothing_given, "Tick at least one modality as available or undersampled."),
        (no_volume, "T1 is ticked as available: choose its volume."),
        (gone_volume, "The volume of T1 is no longer in the scene: choose another one."),
        (used_twice, "The volume 'x' is used for both T1 and T2."),
        (no_output, "Tick at least one output."),
        (all_given, "Every modality is available: nothing is left to fill in."),
        (too_many_steps_for_one_sample, "One step gives the same image every time: choose one sample, or more steps."),
        (raw_file_away, "The raw data of T1 does not exist: k.h5."),
    ],
)
def test_why_apply_is_disabled_is_always_said(person, act, words):
    person.connect()
    act(person)
    person.idle()
    assert person.ui.readyLabel.text == words
    assert not person.ui.applyButton.enabled and person.ui.applyButton.toolTip == words


def test_what_images_cannot_show_is_said_before_they_are_made(person):
    add_volume("T1")
    person.connect()
    assert "PET cannot show amyloid status" in person.ui.captionLabel.text
    assert "cannot show" in person.find("CT_wanted").toolTip
    for name in ("CT", "PET"):
        person.find(f"{name}_wanted").checked = False
    assert not person.ui.captionLabel.isVisibleTo(person.ui.wantedSection)


def test_presets_tell_their_time_for_this_study(person):
    add_volume("T1")  # 6 slices of 5 mm, tilted: as many of the prior's
    person.connect()
    assert [b.text for b in (person.ui.presetFast, person.ui.presetBalanced)] == ["Fast  ~ 1 s", "Balanced  ~ 10 s"]
    person.click("T1_undersampled")
    assert person.ui.presetBalanced.text == "Balanced  ~ 35 s" and person.ui.presetBest.text == "Best"
    person.ui.presetFast.click()
    assert person.panel.form.preset == "fast" and "One sample" in person.ui.readyLabel.text


def test_advanced_settings_go_into_the_study(person):
    add_volume("T1"), add_volume("T2")
    person.connect()
    ui = person.ui
    ui.stepsSpin.value, ui.samplesSpin.value, ui.seedSpin.value = 20, 2, 7
    ui.registrationCheck.checked = False
    person.pick("referenceCombo", ui.referenceCombo.findData("T2"))
    document = person.panel.form.study_document()
    assert document["sampler"] == {"steps": 20, "samples": 2, "seed": 7}
    assert (document["reference"], document["registration"]) == ("T2", "none")
    assert "~ 10 s" in ui.presetBalanced.text  # 20 × 2 passes instead of 10 × 4


def offered(person):
    combo = person.ui.samplerCombo
    return [combo.itemData(i) for i in range(combo.count)]


def test_cdm_is_offered_only_where_it_applies_and_the_tool_tip_says_why_not(person):
    add_volume("T1"), add_volume("T2")
    person.connect()
    ui = person.ui
    assert offered(person) == ["", "mcs", "mds", "mps", "cdm"]
    person.click("T2_undersampled")
    assert offered(person) == ["", "mcs", "mds", "mps"]
    assert "cdm takes only what is available, and T2 is undersampled" in ui.samplerCombo.toolTip
    person.click("T2_available")
    person.pick("samplerCombo", ui.samplerCombo.findData("cdm"))
    assert person.panel.form.study_document()["sampler"] == {"name": "cdm"} and ui.applyButton.enabled
    assert not ui.stepsSpin.enabled and ui.presetFast.text == "Fast  ~ 1 s"
    person.click("T2_undersampled")
    assert "cdm" in offered(person) and not ui.applyButton.enabled
    assert ui.readyLabel.text.startswith("cdm takes only what is available")
