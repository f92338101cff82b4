"""Apply, from the press to the volumes in the scene; and every way in which it can end otherwise."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import slicer
from lib_servers import job_status
from panel_driver import DONE, RUNNING, add_volume, affine, at_the_panel, volume_bytes


@pytest.fixture
def person(load_module, run_events):
    """Connected, with a T1 in the scene and CT ticked alone."""
    with at_the_panel(load_module, run_events) as someone:
        add_volume("T1")
        someone.connect()
        for name in ("T2", "T2FLAIR", "T2star", "PET"):
            someone.find(f"{name}_wanted").checked = False
        yield someone


def matrix_of(node) -> list[float]:
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return [matrix.GetElement(r, c) for r in range(4) for c in range(4)]


def test_from_apply_to_volumes_in_the_scene(person):
    seen = []
    person.server.plan = [job_status("queued", position=3), *RUNNING, DONE]
    person.apply()
    assert person.ui.applyButton.text == "Cancel" and not person.ui.readyLabel.isVisibleTo(person.widget.parent)

    def over() -> bool:
        seen.append((person.ui.progressBar.value, person.ui.progressLabel.text))
        return person.panel.run is None

    person.wait(over)
    texts, bars = [text for _, text in seen], [bar for bar, _ in seen]
    assert bars == sorted(bars) and max(bars) > 500
    assert any(text.startswith("Waiting for 2 other jobs") for text in texts)
    assert any("Computing · sampling, step 2 of 4 · ~ " in text and text.endswith("left") for text in texts), texts
    assert texts[-1] == "Done. CT made." and person.ui.applyButton.text == "Apply"
    ct, std = slicer.util.getNode("CT · synthesised · Any2all"), slicer.util.getNode("CT · uncertainty*")
    assert matrix_of(ct) == pytest.approx(affine().ravel().tolist(), abs=1e-5)
    assert float(slicer.util.arrayFromVolume(ct).mean()) == 34 and float(slicer.util.arrayFromVolume(std).mean()) == 12
    assert ct.GetAttribute("Any2all.Sampler") == "mcs" and ct.GetAttribute("Any2all.Inputs") == '{"T1": "T1"}'
    assert person.ui.warningsLabel.text == "⚠ the brain is cut off at the top"
    person.wait(lambda: person.server.log[-1] == "DELETE /any2all/v1/jobs/j1")  # the server may forget them
    assert person.left_behind() == []


def moved(node) -> None:
    move = slicer.vtkMRMLLinearTransformNode()
    move.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.diag([1.0, 1, 1, 1]) + 9 * np.eye(4, k=3)))
    slicer.mrmlScene.AddNode(move)
    node.SetAndObserveTransformNodeID(move.GetID())


def cropped(node) -> None:
    slicer.util.updateVolumeFromArray(node, slicer.util.arrayFromVolume(node)[1:].copy())


def removed(node) -> None:
    slicer.mrmlScene.RemoveNode(node)


@pytest.mark.parametrize(("change", "is_said"), [(moved, True), (cropped, True), (removed, False)])
def test_results_are_kept_where_the_reference_was_when_it_was_sent(person, change, is_said):
    person.server.plan = [job_status("running", stage="sampling", step=1, total=4)]
    person.apply()
    person.wait(lambda: person.panel.run.snapshot().state == "running")
    change(slicer.util.getNode("T1"))
    person.server.plan = [DONE]
    assert person.wait_for_end() == "Done. CT made." and len(person.made()) == 2
    assert matrix_of(slicer.util.getNode("CT · synth*")) == pytest.approx(affine().ravel().tolist(), abs=1e-5)
    words = "The volume 'T1' was moved or resized while the server was computing: the results lie where it was when"
    assert (words in person.ui.warningsLabel.text) == is_said
    assert "the brain is cut off at the top" in person.ui.warningsLabel.text


def test_only_voxels_and_geometry_are_sent(person):
    node = slicer.util.getNode("T1")
    node.SetName("T1 Mustermann 1961")
    node.SetAttribute("DICOM.instanceUIDs", "1.2.840.99999")
    person.idle()
    person.apply()
    person.wait_for_end()
    sent = person.server.received[0]
    assert sorted(sent) == ["T1.nii.gz", "study"]
    for part in sent.values():
        assert b"Mustermann" not in part and b"1.2.840.99999" not in part
    import gzip

    assert b"Mustermann" not in gzip.decompress(sent["T1.nii.gz"])


def test_the_panel_cannot_be_changed_while_it_runs(person):
    person.server.hold_upload.clear()
    person.apply()
    person.idle()
    for name in ("tableHost", "wantedHost", "assignButton", "presetFast", "advancedBox"):
        assert not person.find(name).enabled, name
    person.ui.applyButton.click()
    person.server.hold_upload.set()
    person.wait_for_end()
    for name in ("tableHost", "wantedHost", "assignButton", "presetFast", "advancedBox"):
        assert person.find(name).enabled, name


@pytest.mark.parametrize("moment", ["writing", "uploading", "running", "downloading"])
def test_cancel_at_any_moment_leaves_nothing(person, moment):
    if moment == "uploading":
        person.server.hold_upload.clear()
    if moment == "running":
        person.server.plan = [job_status("running", stage="sampling", step=1, total=4)]
    if moment == "downloading":
        person.server.volumes["CT.nii.gz"] += bytes(300_000)
        person.server.slow_download.set()
    person.apply()
    if moment != "writing":
        person.wait(lambda: person.panel.run.snapshot().state == moment)
    person.idle(0.05)
    person.ui.applyButton.click()
    person.server.hold_upload.set()
    assert person.wait_for_end().startswith("Cancelled.")
    assert person.made() == [] and person.left_behind() == []
    assert person.ui.applyButton.text == "Apply" and person.ui.applyButton.enabled
    assert person.server.cancelled or moment in ("writing", "uploading")


def test_a_server_killed_mid_way(person, monkeypatch):
    import Any2allLib.connection as connection

    monkeypatch.setattr(connection, "AGAIN_S", 0.05)
    person.server.plan = [job_status("running", stage="sampling", step=1, total=4)]
    person.apply()
    person.wait(lambda: person.panel.run.snapshot().state == "running")
    person.panel.run._job.give_up_s = 0.3
    person.server.stop()
    person.wait(lambda: "does not answer" in person.ui.progressLabel.text)
    person.wait(lambda: person.ui.resumeButton.isVisibleTo(person.widget.parent))
    assert person.ui.progressLabel.text.startswith("The server cannot be reached")
    person.ui.applyButton.click()
    words = person.wait_for_end()
    assert "may go on computing" in words and person.made() == []
    person.wait(lambda: "tried again by itself" in person.ui.statusLabel.text)
    assert person.ui.readyLabel.text == "Connect to a server first."
    person.server.start()
    person.wait(lambda: person.ui.applyButton.enabled)  # connected again by itself, and usable
    person.server.plan = [DONE]
    person.apply()
    assert person.wait_for_end().startswith("Done.") and len(person.made()) == 2


def test_a_connection_that_comes_back_goes_on_with_the_same_job(person):
    person.server.plan = [job_status("running", stage="sampling", step=1, total=4)]
    person.apply()
    person.wait(lambda: person.panel.run.snapshot().state == "running")
    person.server.stop()
    person.wait(lambda: "trying again" in person.ui.progressLabel.text)
    person.server.plan = [DONE]
    person.server.start()
    assert person.wait_for_end().startswith("Done.")
    assert sum(line.startswith("POST") for line in person.server.log) == 1 and len(person.made()) == 2


def test_try_again_after_a_long_absence(person):
    person.server.plan = [job_status("running", stage="sampling", step=1, total=4)]
    person.apply()
    person.wait(lambda: person.panel.run.snapshot().state == "running")
    person.panel.run._job.give_up_s = 0.2
    person.server.stop()
    person.wait(lambda: person.ui.resumeButton.isVisibleTo(person.widget.parent))
    person.server.plan = [DONE]
    person.server.start()
    person.ui.resumeButton.click()
    assert person.wait_for_end().startswith("Done.") and len(person.made()) == 2


def test_a_full_queue(person):
    document = {"code": "queue_full", "message": "the queue is full", "allowed": "at most 2 jobs"}
    person.server.refusals["POST", "/any2all/v1/jobs"] = (429, document)
    person.apply()
    words = person.wait_for_end()
    assert "The server's queue is full (at most 2 jobs)." in words and "Press Apply again" in words
    assert person.ui.applyButton.enabled and person.made() == []


def test_a_job_that_fails_says_why(person):
    error = {"code": "registration", "message": "the images do not overlap", "hint": "check their positions"}
    person.server.plan = [job_status("failed", error=error)]
    person.apply()
    assert person.wait_for_end() == "Failed. The images do not overlap. Check their positions."


@pytest.mark.parametrize("broken", [b"no volume", None])
def test_broken_results_are_not_half_loaded(person, broken):
    person.server.volumes["CT_std.nii.gz"] = broken or volume_bytes(float("nan"))
    person.apply()
    words = person.wait_for_end()
    assert words.startswith("Failed.") and person.made() == [] and person.left_behind() == []


@pytest.mark.parametrize("how", ["broken results", "scene closed", "cancelled behind the last step"])
def test_results_that_are_not_shown_do_not_stay_on_the_server(person, how):
    if how == "broken results":
        person.server.volumes["CT_std.nii.gz"] = b"no volume"
    if how == "scene closed":
        person.panel._parts.results.__dict__["show_pieces"], whole = endless, person.panel._parts.results.show_pieces
    if how == "cancelled behind the last step":
        person.server.plan = [job_status("running", stage="restoring", step=4, total=4)]
    person.apply()
    if how == "scene closed":
        person.wait(lambda: person.panel.run.snapshot().state == "loading")
        slicer.mrmlScene.Clear(0)
        person.panel._parts.results.__dict__["show_pieces"] = whole
    if how == "cancelled behind the last step":
        person.wait(lambda: person.panel.run.snapshot().state == "running")
        person.ui.applyButton.click()
        person.wait(lambda: person.server.cancelled)
        person.server.cancelled, person.server.plan = False, [DONE]
    person.wait_for_end()
    person.wait(lambda: not person.panel._leaving)
    told = person.server.log.count("DELETE /any2all/v1/jobs/j1")
    assert told == (2 if how.startswith("cancelled") else 1) and person.made() == []


def endless(*_arguments):
    while True:
        yield


def test_a_volume_that_cannot_be_sent(person):
    slicer.util.arrayFromVolume(slicer.util.getNode("T1"))[0, 0, 0] = float("nan")
    person.apply()
    assert "holds voxels that are no numbers" in person.wait_for_end() and person.server.received == []


def test_closing_the_scene_cancels_the_job_in_words(person):
    person.server.plan = [job_status("running", stage="sampling", step=1, total=4)]
    person.apply()
    person.wait(lambda: person.panel.run.snapshot().state == "running")
    slicer.mrmlScene.Clear(0)
    assert person.ui.progressLabel.text == "Cancelled. The scene was closed: the job was cancelled."
    person.idle()
    assert person.ui.readyLabel.text == "Tick at least one modality as available or undersampled."
    person.wait(lambda: person.server.cancelled)  # the server does not go on for nothing
    assert person.left_behind() == []


def test_leaving_the_module_lets_the_job_go_on_and_reloading_ends_it(person):
    person.server.plan = [job_status("running", stage="sampling", step=1, total=4)]
    person.apply()
    person.wait(lambda: person.panel.run.snapshot().state == "running")
    person.widget.exit()
    person.idle()
    assert person.panel.run is not None
    person.widget.enter()
    temporary = Path(slicer.app.temporaryPath)
    person.widget.onReload()
    assert list(temporary.glob("Any2all-*")) == []
    slicer.modules.Any2allSlicerWidget.panel.close()


def test_a_large_volume_is_written_in_pieces(person):
    """64 MB: one tick may not write it all."""
    rng = np.random.default_rng(0)
    big = rng.integers(0, 2000, (128, 512, 512), np.int16)
    slicer.util.updateVolumeFromArray(slicer.util.getNode("T1"), big)
    person.server.info["limits"]["upload_bytes"] = 2**30
    person.idle()
    began = time.monotonic()
    person.apply()
    person.wait(lambda: person.panel.run is None or person.panel.run.snapshot().state != "writing", 30)
    assert time.monotonic() - began > 0.2
    person.ui.applyButton.click()
    person.wait_for_end()


def test_what_is_sent_has_been_seen_before(person):
    """A volume that is renamed makes no event in the scene, and would fill another line behind the press."""
    add_volume("series 5")
    person.find("T2_wanted").checked = True
    person.idle()
    assert person.ticks()["CT"] == "missing"
    slicer.util.getNode("series 5").SetName("CT")
    person.ui.applyButton.click()
    assert person.panel.run is None and "The scene has changed" in person.ui.progressLabel.text
    assert person.ticks()["CT"] == "available" and person.server.received == []
    person.server.volumes = {"T2.nii.gz": volume_bytes(34.0)}
    person.apply()
    assert person.wait_for_end().startswith("Done.")


def test_what_is_sent_is_what_was_agreed_to(person, slicer_scene, monkeypatch):
    """A question lets events through: a volume may come in the meantime, as from a module that goes on behind it."""
    import Any2allLib.consent as consent

    monkeypatch.setattr(type(person.panel.connection.client), "is_loopback", property(lambda self: False))
    asked = []

    def slow_answer(question, title):
        asked.append(question)
        add_volume("T2")
        person.idle()
        return True

    monkeypatch.setattr(consent.slicer.util, "confirmOkCancelDisplay", slow_answer)
    person.apply()
    assert person.wait_for_end().startswith("Done.")
    assert "T2" not in asked[0] and sorted(person.server.received[0]) == ["T1.nii.gz", "study"]


def test_consent_is_asked_once_for_another_computer(person, slicer_scene, monkeypatch):
    monkeypatch.setattr(type(person.panel.connection.client), "is_loopback", property(lambda self: False))
    slicer_scene.dialogs.answer("cancel", "ok")
    person.ui.applyButton.click()
    assert person.panel.run is None and person.ui.progressLabel.text == "Nothing was sent."
    question = slicer_scene.dialogs.texts()[0]
    assert person.server.url in question and "T1: voxels and geometry of the volume 'T1', without its name" in question
    assert "POST /any2all/v1/jobs" not in person.server.log
    for _ in range(2):
        person.server.plan = [DONE]
        person.apply()
        assert person.wait_for_end().startswith("Done.")
    assert len(slicer_scene.dialogs.shown) == 2


def test_agreeing_to_images_does_not_cover_raw_files(slicer_scene):
    """They go as they are, with whatever the scanner wrote into them."""
    from types import SimpleNamespace

    from Any2allLib.consent import Consent

    client = SimpleNamespace(url="https://far.example", is_loopback=False, is_private=True)
    consent = Consent()
    slicer_scene.dialogs.answer("ok", "ok")
    assert consent.given(client, ["T1: voxels"]) and consent.given(client, ["T1: voxels"])
    assert len(slicer_scene.dialogs.shown) == 1 and "Neither patient names" in slicer_scene.dialogs.texts()[0]
    assert consent.given(client, ["T2: the raw data file 'a.h5' as it is"], raw=True)
    assert "Raw data files go as they are" in slicer_scene.dialogs.texts()[1]
    assert "Neither patient names" not in slicer_scene.dialogs.texts()[1]
