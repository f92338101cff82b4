"""What a person sees: the output on the anatomy, the overlay, blinking, and words that say what it is."""

from __future__ import annotations

import lib_path  # noqa: F401  (makes Any2allLib importable)
import numpy as np
import pytest
import slicer
import slicer.util
from Any2allLib import nifti, views
from Any2allLib.annotations import words
from Any2allLib.outputs import Output
from Any2allLib.results import find_outputs, show_pieces
from harness import pixels
from scene_files import STACK, ball, ct_run, facts, result, sent
from tiny_module import ball_volume

LEFT = (-20, 0, 0)


@pytest.fixture
def shown(slicer_scene, tmp_path):
    """Reference and outputs: CT with std and samples, and T2, whose ball is on the right."""
    reference = ball_volume(LEFT, name="T1")
    t2 = result(tmp_path, "T2.nii.gz", "T2", "mean", ball((20, 0, 0), 800, 100))
    results, file = [*ct_run(tmp_path), t2], sent(tmp_path, reference)
    found = nifti.exhaust(show_pieces(slicer.mrmlScene, tmp_path, results, STACK, facts(), file, ()))
    yield reference, {output.modality: output for output in found}
    views.annotate(None, ())


def manager():
    return slicer.app.layoutManager()


def text(name: str) -> str:
    return manager().sliceWidget(name).sliceView().cornerAnnotation().GetText(7) or ""


def background(node_id: str) -> None:
    slicer.util.setSliceViewerLayers(background=slicer.mrmlScene.GetNodeByID(node_id))


def colour_at(view: str, ras) -> list[int]:
    picture = pixels.render(view, offset=0.0)
    return [int(part) for part in picture[pixels.pixel_of(view, ras)]]


@pytest.mark.parametrize(("view", "side"), [("axial", "right"), ("coronal", "right"), ("sagittal", None)])
def test_a_ball_on_the_left_is_on_the_left_in_every_view(shown, view, side):
    """Slicer's sagittal position grows to the left."""
    background(shown[1]["CT"].mean_id)
    picture = pixels.render(view, offset=20.0 if view == "sagittal" else 0.0)[..., 0] > 128
    rows, columns = np.nonzero(picture)
    assert len(rows) > 50
    assert np.hypot(*np.subtract(pixels.pixel_of(view, LEFT), (rows.mean(), columns.mean()))) < 2
    if side:
        assert columns.min() > picture.shape[1] / 2
    else:
        assert not (pixels.render(view, offset=-20.0)[..., 0] > 128).any()


def test_the_comparison_shows_three_views_linked_with_the_crosshair(shown):
    reference, outputs = shown
    ct = outputs["CT"]
    for _ in range(2):  # registered once, used as often as wanted
        assert views.compare(manager(), reference.GetID(), ct.mean_id, ct.std_id) == ""
    assert manager()._visible_names() == ["Any2allReference", "Any2allOutput", "Any2allUncertainty"]
    composites = [manager().sliceWidget(name).mrmlSliceCompositeNode() for name in manager()._visible_names()]
    assert [c.GetBackgroundVolumeID() for c in composites] == [reference.GetID(), ct.mean_id, ct.std_id]
    assert all(c.GetLinkedControl() and c.GetHotLinkedControl() for c in composites)
    groups = {manager().sliceWidget(name).mrmlSliceNode().GetViewGroup() for name in manager()._visible_names()}
    assert groups == {73} and manager().sliceWidget("Red").mrmlSliceNode().GetViewGroup() != 73
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    assert crosshair.GetCrosshairMode() == slicer.vtkMRMLCrosshairNode.ShowBasic
    for name in manager()._visible_names():
        picture = pixels.render(name, fit=False)
        row, column = pixels.pixel_of(name, LEFT)
        assert picture[row, column, 3] == 255 and picture[row, column, 0] > 150
    assert pixels.render("Any2allUncertainty", fit=False)[pixels.pixel_of("Any2allUncertainty", (20, 0, 0))][3] == 0


def test_a_scene_that_was_saved_in_the_comparison_comes_back_in_it(shown, tmp_path):
    reference, outputs = shown
    views.compare(manager(), reference.GetID(), outputs["CT"].mean_id, outputs["CT"].std_id)
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    manager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert manager()._visible_names() == ["Any2allReference", "Any2allOutput", "Any2allUncertainty"]
    (found,) = [output for output in find_outputs(slicer.mrmlScene) if output.modality == "CT"]
    composite = manager().sliceWidget("Any2allOutput").mrmlSliceCompositeNode()
    assert composite.GetBackgroundVolumeID() == found.mean_id


def test_a_fresh_application_knows_the_layout_once_it_is_registered(slicer_scene):
    views.register(None)
    node = manager().layoutLogic().GetLayoutNode()
    assert not any(node.IsLayoutDescription(layout) for layout in views.LAYOUTS.values())
    views.register(manager())
    assert all(node.IsLayoutDescription(layout) for layout in views.LAYOUTS.values())


def test_without_a_std_there_are_two_views_and_without_a_window_there_are_words(shown):
    reference, outputs = shown
    assert views.compare(manager(), reference.GetID(), outputs["T2"].mean_id, "") == ""
    assert manager()._visible_names() == ["Any2allReference", "Any2allOutput"]
    assert "without its window" in views.compare(None, reference.GetID(), outputs["T2"].mean_id, "")


def test_the_overlay_colours_what_is_uncertain_and_goes_again(shown):
    ct = shown[1]["CT"]
    background(ct.mean_id)
    plain = colour_at("Red", LEFT)
    assert plain[0] == plain[1] == plain[2]
    views.overlay(ct.std_id, 1.0)
    over = colour_at("Red", LEFT)
    assert over[0] == 255 and over[2] < 50  # warm
    assert colour_at("Red", (20, 0, 0)) == [0, 0, 0, 255]  # below the threshold the image is seen
    legend = slicer.modules.colors.logic().GetColorLegendDisplayNode(slicer.mrmlScene.GetNodeByID(ct.std_id))
    assert legend.GetVisibility()
    views.legend(False)
    assert not legend.GetVisibility()
    views.overlay(ct.std_id, 0.5)
    half = colour_at("Red", LEFT)
    assert half[2] == pytest.approx((plain[2] + over[2]) / 2, abs=2) and legend.GetVisibility()
    views.overlay(None)
    assert colour_at("Red", LEFT) == plain and not legend.GetVisibility()


def test_the_overlay_comes_with_its_output_where_no_view_shows_it(shown):
    reference, outputs = shown
    background(reference.GetID())
    views.overlay(outputs["CT"].std_id, 0.5)
    composite = manager().sliceWidget("Green").mrmlSliceCompositeNode()
    assert composite.GetBackgroundVolumeID() == outputs["CT"].mean_id
    assert composite.GetForegroundVolumeID() == outputs["CT"].std_id
    slicer.util.setSliceViewerLayers(foreground=reference, foregroundOpacity=0.3)
    views.overlay(None)
    assert composite.GetForegroundVolumeID() == reference.GetID()  # what is not ours stays


def test_the_overlay_looks_at_the_views_of_this_layout_only(shown):
    reference, outputs = shown
    ct = outputs["CT"]
    views.compare(manager(), reference.GetID(), ct.mean_id, ct.std_id)
    manager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    background(reference.GetID())
    manager().sliceWidget("Any2allOutput").mrmlSliceCompositeNode().SetBackgroundVolumeID(ct.mean_id)
    views.overlay(ct.std_id, 0.5)
    assert manager().sliceWidget("Red").mrmlSliceCompositeNode().GetForegroundVolumeID() == ct.std_id
    assert manager().sliceWidget("Any2allOutput").mrmlSliceCompositeNode().GetForegroundVolumeID() is None


def test_blinking_swaps_two_outputs(shown):
    reference, outputs = shown
    first, second = outputs["CT"].mean_id, outputs["T2"].mean_id
    background(reference.GetID())
    seen = []
    for _ in range(3):
        views.blink(first, second)
        sides = [colour_at(view, ras)[0] > 128 for view in ("Red", "Green") for ras in (LEFT, (20, 0, 0))]
        seen.append(sides)
    assert seen == [[True, False] * 2, [False, True] * 2, [True, False] * 2]


def test_in_the_comparison_the_reference_stands_still_while_the_output_blinks(shown):
    reference, outputs = shown
    ct = outputs["CT"]
    views.compare(manager(), reference.GetID(), ct.mean_id, ct.std_id)
    composites = [manager().sliceWidget(name).mrmlSliceCompositeNode() for name in manager()._visible_names()]
    for expected in (reference.GetID(), ct.mean_id):
        views.blink(ct.mean_id, reference.GetID())
        assert [c.GetBackgroundVolumeID() for c in composites] == [reference.GetID(), expected, ct.std_id]


def test_words_stand_where_an_output_is_shown_and_only_there(shown):
    reference, outputs = shown
    ct = outputs["CT"]
    background(reference.GetID())
    views.annotate(manager(), list(outputs.values()))
    assert text("Red") == ""
    manager().sliceWidget("Red").mrmlSliceCompositeNode().SetBackgroundVolumeID(ct.mean_id)
    assert text("Red").startswith("SYNTHETIC – Any2all – not acquired\nCT cannot show haemorrhage") and not text(
        "Green"
    )
    pixels.render("Red")  # the DataProbe writes its corners meanwhile
    assert text("Red").startswith("SYNTHETIC")
    views.compare(manager(), reference.GetID(), ct.mean_id, ct.std_id)  # views that come later
    assert text("Any2allReference") == "" and text("Any2allOutput").startswith("SYNTHETIC")
    assert text("Any2allUncertainty").endswith("acquired\nCT: uncertainty (std) in HU")
    views.overlay(ct.std_id, 0.5)
    assert "CT cannot show" in text("Any2allOutput") and "std" not in text("Any2allOutput")
    manager().sliceWidget("Red").mrmlSliceCompositeNode().SetBackgroundVolumeID(reference.GetID())
    assert text("Red") == ""
    slicer.mrmlScene.RemoveNode(slicer.mrmlScene.GetNodeByID(ct.mean_id))
    assert "uncertainty" in text("Any2allOutput")  # the overlay is still there
    slicer.mrmlScene.Clear(0)
    assert {text(name) for name in manager().sliceViewNames()} == {""}


def test_words_follow_the_foreground_and_go_with_the_last_call(shown):
    reference, outputs = shown
    background(reference.GetID())
    views.annotate(manager(), [outputs["T2"]])
    views.annotate(manager(), list(outputs.values()))
    slicer.util.setSliceViewerLayers(
        foreground=slicer.mrmlScene.GetNodeByID(outputs["T2"].mean_id), foregroundOpacity=0.4
    )
    assert text("Yellow") == "SYNTHETIC – Any2all – not acquired\nT2"
    slicer.util.setSliceViewerLayers(foregroundOpacity=0.0)
    assert text("Yellow") == ""
    background(outputs["CT"].mean_id)
    assert text("Yellow")
    views.annotate(manager(), [])
    assert text("Yellow") == ""
    background(outputs["T2"].mean_id)
    assert text("Yellow") == ""


def test_words_tell_both_kinds_apart_and_stay_narrow():
    ct = Output("CT", "synthetic", "a", "b", ("c",), "cannot show " + "calcification " * 6, "HU")
    flair = Output("T2FLAIR", "reconstructed", "d", "", (), "", "a.u.")
    assert words(["d"], [ct, flair]) == "RECONSTRUCTED – Any2all – partly acquired\nT2FLAIR"
    lines = words(["a", "d"], [ct, flair]).split("\n")
    assert lines[0] == "SYNTHETIC – Any2all – not acquired" and lines[1].startswith("RECONSTRUCTED")
    assert max(len(line) for line in lines) <= 48 and words(["x"], [ct, flair]) == "" and words(["c"], [ct])
