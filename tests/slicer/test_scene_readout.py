"""How sure it is under the cursor: value and std of the voxel that lies there, whatever moves it."""

from __future__ import annotations

import lib_path  # noqa: F401  (makes Any2allLib importable)
import numpy as np
import pytest
import slicer
import slicer.util
from Any2allLib import nifti
from Any2allLib.readout import CursorReadout, value_at, words
from Any2allLib.results import show_pieces
from harness import pixels
from scene_files import SHAPE, STACK, ball, ct_run, facts, result, sent
from tiny_module import ball_volume, oblique

LEFT = (-20.0, 0.0, 0.0)


@pytest.fixture
def outputs(slicer_scene, tmp_path):
    """CT with std, and PET without."""
    pet = result(tmp_path, "PET.nii.gz", "PET", "mean", ball(LEFT, 1.314, 0.5))
    file = sent(tmp_path, ball_volume(LEFT, name="T1"))
    return nifti.exhaust(show_pieces(slicer.mrmlScene, tmp_path, [*ct_run(tmp_path), pet], STACK, facts(), file, ()))


def told(outputs, ras) -> str:
    return value_at(slicer.mrmlScene, outputs, ras)


def test_value_and_std_are_those_of_the_nearest_voxel(outputs):
    assert told(outputs, LEFT) == "CT 80 ± 12 HU · PET 1.31 SUVr"
    assert told(outputs, (20, 0, 0)) == "CT -1000 ± 0 HU · PET 0.50 SUVr"
    assert told(outputs, (500, 0, 0)) == "" and told([], LEFT) == ""
    mean = slicer.mrmlScene.GetNodeByID(outputs[0].mean_id)
    slicer.util.arrayFromVolume(mean)[7, 11, 13] = 34.4
    centre, step = oblique() @ [13, 11, 7, 1], oblique()[:3, 0]
    assert told(outputs[:1], centre[:3] + 0.49 * step) == "CT 34 ± 0 HU"
    assert told(outputs[:1], centre[:3] + 0.51 * step) == "CT -1000 ± 0 HU"


def test_the_edge_of_the_volume_is_half_a_voxel_out(outputs):
    for index, inside in ((-0.49, True), (-0.51, False), (SHAPE[0] - 0.51, True), (SHAPE[0] - 0.49, False)):
        assert bool(told(outputs, (oblique() @ [index, 5, 5, 1])[:3])) == inside


def test_a_transform_above_an_output_is_honoured(outputs):
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    move = np.array([[0, -1, 0, 10], [1, 0, 0, 0], [0, 0, 1, 5], [0, 0, 0, 1.0]])
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(move))
    for node_id in (outputs[0].mean_id, outputs[0].std_id):
        slicer.mrmlScene.GetNodeByID(node_id).SetAndObserveTransformNodeID(transform.GetID())
    assert told(outputs[:1], (move @ [*LEFT, 1])[:3]) == "CT 80 ± 12 HU"
    assert told(outputs[:1], LEFT) == "CT -1000 ± 0 HU"


def test_what_has_been_removed_is_not_told(outputs):
    slicer.mrmlScene.RemoveNode(slicer.mrmlScene.GetNodeByID(outputs[0].std_id))
    assert told(outputs[:1], LEFT) == "CT 80 HU"
    slicer.mrmlScene.RemoveNode(slicer.mrmlScene.GetNodeByID(outputs[0].mean_id))
    assert told(outputs[:1], LEFT) == ""


def test_zero_has_no_sign():
    assert words("CT", "HU", -0.3, 0.2) == "CT 0 ± 0 HU" and words("CT", "HU", -0.6, None) == "CT -1 HU"


def test_two_results_of_one_modality_are_told_apart(outputs, tmp_path):
    """Of two runs, or of two patients."""
    again = ct_run(tmp_path, centre=(20, 0, 0))
    file = sent(tmp_path, slicer.util.getNode("T1"))
    both = [*outputs, *nifti.exhaust(show_pieces(slicer.mrmlScene, tmp_path, again, STACK, facts(), file, ()))]
    name = "CT · synthesised · Any2all"
    assert told(both, LEFT) == f"{name} 80 ± 12 HU · PET 1.31 SUVr · {name} (2) -1000 ± 0 HU"


@pytest.mark.parametrize("scale, told", [(1.0, "T2 800 ± 12 a.u."), (1e-3, "T2 0.800 ± 0.012 a.u.")])
def test_arbitrary_units_are_told_as_finely_as_the_image_needs(slicer_scene, tmp_path, scale, told):
    """A scanner's numbers reach into the thousands; of an image that was scaled to 1 only zeros would be told."""
    ramp = scale * np.broadcast_to(np.linspace(0, 1000, SHAPE[2])[:, None, None], SHAPE[::-1])
    run = [
        result(tmp_path, "T2.nii.gz", "T2", "mean", ramp),
        result(tmp_path, "T2_std.nii.gz", "T2", "std", np.full(SHAPE[::-1], 12 * scale)),
    ]
    file = sent(tmp_path, ball_volume(LEFT, name="T1"))
    outputs = nifti.exhaust(show_pieces(slicer.mrmlScene, tmp_path, run, STACK, facts(), file, {"T2"}))
    slicer.util.arrayFromVolume(slicer.mrmlScene.GetNodeByID(outputs[0].mean_id))[7, 11, 13] = 800 * scale
    assert value_at(slicer.mrmlScene, outputs, (oblique() @ [13, 11, 7, 1])[:3]) == told


def test_the_cursor_is_followed_until_stopped(slicer_scene, outputs):
    heard: list[str] = []
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    readout = CursorReadout(slicer.mrmlScene, crosshair, heard.append)
    slicer.util.setSliceViewerLayers(background=slicer.mrmlScene.GetNodeByID(outputs[0].mean_id))
    pixels.render("Red", offset=0.0)
    slicer_scene.move_cursor(LEFT)
    assert heard == []  # not started
    readout.start()
    readout.start()
    slicer_scene.move_cursor((-19.0, 0.0, 0.0))
    slicer_scene.move_cursor((-20.0, 1.0, 0.0))  # the same is told once
    slicer_scene.move_cursor((20.0, 0.0, 0.0))
    crosshair.SetCursorPositionInvalid()
    slicer_scene.move_cursor(LEFT)
    readout.stop()
    slicer_scene.move_cursor((20.0, 0.0, 0.0))
    inside, outside = "CT 80 ± 12 HU · PET 1.31 SUVr", "CT -1000 ± 0 HU · PET 0.50 SUVr"
    assert heard == [inside, outside, "", inside, ""]
