"""The harness's MRML is the real one, and its pictures show what a view would."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from harness import pixels, screens
from PySide6 import QtGui
from tiny_module import ball_volume, oblique, write


def test_node_combo_box_follows_the_scene(slicer_scene):
    combo, heard = slicer.qMRMLNodeComboBox(), []
    combo.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    combo.connect("currentNodeChanged(vtkMRMLNode*)", lambda node: heard.append(node and node.GetName()))
    combo.connect("currentNodeChanged(bool)", lambda valid: heard.append(valid))
    combo.setMRMLScene(slicer.mrmlScene)
    first, second = ball_volume((0, 0, 0), name="first"), ball_volume((0, 0, 0), name="second")
    hidden = ball_volume((0, 0, 0), name="hidden")
    hidden.SetHideFromEditors(True)
    label = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
    assert combo.nodeCount() == 2 and combo.currentNode() is first and label is not None
    combo.setCurrentNode(second)
    second.SetName("renamed")
    slicer.mrmlScene.RemoveNode(second)
    assert heard == ["first", True, "second", True, "first", True]
    combo.noneEnabled = True
    combo.setCurrentNode(None)
    assert combo.currentNodeID == "" and heard[-2:] == [None, False]


@pytest.mark.parametrize("ending", ["nrrd", "nii.gz", "mha"])
def test_an_oblique_volume_survives_a_file(slicer_scene, tmp_path, ending):
    volume = ball_volume((12, -7, 5))
    assert slicer.util.saveNode(volume, str(tmp_path / f"v.{ending}"))
    again = slicer.util.loadVolume(str(tmp_path / f"v.{ending}"), {"show": False})
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(again), slicer.util.arrayFromVolume(volume))
    matrix = slicer.vtkMRMLSliceNode().GetXYToRAS()
    again.GetIJKToRASMatrix(matrix)
    np.testing.assert_allclose(slicer.util.arrayFromVTKMatrix(matrix), oblique(), atol=1e-5)


def test_a_scene_comes_back_from_its_bundle(slicer_scene, tmp_path):
    volume = ball_volume((12, -7, 5), name="kept")
    volume.SetAttribute("Any2all.seed", "7")
    folders = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    folder = folders.CreateFolderItem(folders.GetSceneItemID(), "Results")
    folders.SetItemParent(folders.GetItemByDataNode(volume), folder)
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    again = slicer.util.getNode("kept")
    folders = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    parent = folders.GetItemParent(folders.GetItemByDataNode(again))
    assert (again.GetAttribute("Any2all.seed"), folders.GetItemName(parent)) == ("7", "Results")


# --- pixels


@pytest.mark.parametrize(
    ("view", "ras", "side"),
    [
        ("axial", (-20, 0, 0), "right"),  # the patient's left is on the picture's right
        ("axial", (0, 20, 0), "top"),
        ("coronal", (-20, 0, 0), "right"),
        ("coronal", (0, 0, 15), "top"),
        ("sagittal", (0, 20, 0), "left"),
    ],
)
def test_the_ball_lies_on_its_side(slicer_scene, view, ras, side):
    volume = ball_volume(ras)
    slicer.util.setSliceViewerLayers(background=volume)
    picture = pixels.render(view, offset=0.0)
    rows, columns = np.nonzero(picture[..., 0] > 200)
    assert len(rows) > 50
    centre = picture.shape[0] / 2
    found = {"right": columns.min() > centre, "left": columns.max() < centre, "top": rows.max() < centre}
    assert found[side]
    assert np.hypot(*np.subtract(pixels.pixel_of(view, ras), (rows.mean(), columns.mean()))) < 2


def test_the_foreground_is_blended_by_its_opacity(slicer_scene):
    background, foreground = ball_volume((-20, 0, 0), name="b"), ball_volume((20, 0, 0), name="f")
    slicer.util.setSliceViewerLayers(background=background, foreground=foreground, foregroundOpacity=0.0)
    row, column = 0, 0
    values = []
    for opacity in (0.0, 0.5, 1.0):
        slicer.util.setSliceViewerLayers(foregroundOpacity=opacity)
        picture = pixels.render("Red", offset=0.0)
        row, column = pixels.pixel_of("Red", (20, 0, 0))
        values.append(int(picture[row, column, 0]))
    assert values[0] == pytest.approx(25, abs=2) and values[2] == 255
    assert values[1] == pytest.approx(140, abs=3)


def test_a_comparison_layout_gets_its_views(slicer_scene):
    views = "".join(
        f'<item><view class="vtkMRMLSliceNode" singletontag="{name}">'
        f'<property name="orientation" action="default">Axial</property>'
        f'<property name="viewlabel" action="default">{name[0]}</property></view></item>'
        for name in ("Reference", "Output")
    )
    manager = slicer.app.layoutManager()
    node = manager.layoutLogic().GetLayoutNode()
    node.AddLayoutDescription(7301, f'<layout type="horizontal">{views}</layout>')
    manager.setLayout(7301)
    assert manager.layout == 7301 and {"Reference", "Output", "Red"} <= set(manager.sliceViewNames())
    volume = ball_volume((-20, 0, 0))
    manager.sliceWidget("Output").mrmlSliceCompositeNode().SetBackgroundVolumeID(volume.GetID())
    assert (pixels.render("Output", offset=0.0)[..., 0] > 200).any()
    assert not pixels.render("Reference").any()


def test_the_data_probe_takes_the_corners_and_leaves_the_edges(slicer_scene):
    annotation = slicer.app.layoutManager().sliceWidget("Red").sliceView().cornerAnnotation()
    annotation.SetText(2, "upper left")
    annotation.SetText(7, "upper edge")
    slicer.util.setSliceViewerLayers(background=ball_volume((0, 0, 0), name="head"))
    pixels.render("Red")
    assert (annotation.GetText(0), annotation.GetText(2), annotation.GetText(7)) == ("B: head", "", "upper edge")


def test_the_cursor_is_reported(slicer_scene):
    crosshair, heard = slicer.util.getNode("Crosshair"), []
    slicer.util.setSliceViewerLayers(background=ball_volume((0, 0, 0)))
    pixels.render("Red")
    event = slicer.vtkMRMLCrosshairNode.CursorPositionModifiedEvent
    tag = crosshair.AddObserver(event, lambda *_: heard.append(1))
    slicer_scene.move_cursor((5.0, -3.0, 0.0))
    ras, xyz = [0.0] * 3, [0.0] * 3
    assert crosshair.GetCursorPositionRAS(ras) and ras == pytest.approx([5.0, -3.0, 0.0]) and heard
    assert crosshair.GetCursorPositionXYZ(xyz).GetLayoutName() == "Red"
    crosshair.RemoveObserver(tag)


def test_a_screen_shows_panel_and_views(slicer_scene, load_module, tmp_path):
    panel = load_module(write(tmp_path)).panel
    slicer.util.setSliceViewerLayers(background=ball_volume((-20, 0, 0)))
    screens.save_screen(panel, tmp_path / "screen.png", (1000, 500), 300)
    image = QtGui.QImage(str(tmp_path / "screen.png"))
    assert (image.width(), image.height()) == (1000, 500)
    colours = {image.pixelColor(x, y).name() for x in range(0, 1000, 7) for y in range(0, 500, 7)}
    assert {"#2d2f31", "#000000", "#ffffff"} <= colours
