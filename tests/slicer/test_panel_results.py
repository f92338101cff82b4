"""The section "results": what has been made, how it is looked at, and how sure it is."""

from __future__ import annotations

import pytest
import slicer
from panel_driver import add_volume, at_the_panel, volume_bytes


@pytest.fixture
def person(load_module, run_events):
    """Has made CT with its uncertainty and PET from one sample, from a T1."""
    with at_the_panel(load_module, run_events) as someone:
        add_volume("T1")
        someone.server.volumes["PET.nii.gz"] = volume_bytes(1.5)
        someone.connect()
        someone.apply()
        assert someone.wait_for_end().startswith("Done.")
        someone.idle()
        yield someone


def column(person, index: int) -> list[str]:
    table = person.ui.outputsTable
    return [table.item(row, index).text() for row in range(table.rowCount)]


def shown() -> list[tuple[str, str]]:
    """Names of background and foreground volume in each visible view."""
    manager = slicer.app.layoutManager()
    composites = [manager.sliceWidget(name).mrmlSliceCompositeNode() for name in manager._visible_names()]

    def name(node_id) -> str:
        return slicer.mrmlScene.GetNodeByID(node_id).GetName() if node_id else ""

    return [(name(c.GetBackgroundVolumeID()), name(c.GetForegroundVolumeID())) for c in composites]


CT, STD, PET = "CT · synthesised · Any2all", "CT · uncertainty (std) · Any2all", "PET · synthesised · Any2all"


def test_the_list_says_what_was_made_and_how_sure_it_is(person):
    assert column(person, 0) == [CT, PET]
    assert column(person, 1) == ["yes", "none: one sample"] and column(person, 2) == ["HU", "SUVr"]
    assert person.ui.outputsTable.currentRow() == 0
    assert person.ui.outputsTable.item(0, 0).toolTip().startswith("CT cannot show haemorrhage")
    assert "Not a medical device" in person.ui.disclaimerLabel.text


def test_results_are_never_taken_for_inputs(person):
    assert person.ticks() == {"T1": "available", **dict.fromkeys(("T2", "T2FLAIR", "T2star", "CT", "PET"), "missing")}


def test_the_comparison_comes_by_itself_and_follows_the_choice(person):
    assert shown() == [("T1", ""), (CT, ""), (STD, "")]
    person.ui.outputsTable.selectRow(1)
    assert shown() == [("T1", ""), (PET, "")] and not person.ui.stdCheck.enabled
    view = slicer.app.layoutManager().sliceWidget("Any2allOutput").sliceView()
    assert "PET cannot show amyloid status" in view.cornerAnnotation().GetText(7).replace("\n", " ")


def test_compare_again_after_another_layout(person):
    slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    assert len(shown()) != 3 or shown()[0] != ("T1", "")
    person.ui.compareButton.click()
    assert shown() == [("T1", ""), (CT, ""), (STD, "")]


def test_the_uncertainty_is_laid_over_and_taken_off(person):
    assert not person.ui.opacitySlider.enabled
    person.ui.stdCheck.click()
    person.ui.opacitySlider.value = 70
    assert shown()[1] == (CT, STD) and person.ui.opacitySlider.enabled
    composite = slicer.app.layoutManager().sliceWidget("Any2allOutput").mrmlSliceCompositeNode()
    assert composite.GetForegroundOpacity() == pytest.approx(0.7)
    person.ui.stdCheck.click()
    assert shown()[1] == (CT, "")


def test_the_legend_is_a_matter_of_its_tick(person):
    def legend() -> bool:
        node = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(slicer.util.getNode(STD))
        return node is not None and bool(node.GetVisibility())

    assert legend()
    person.ui.legendCheck.click()
    assert not legend()
    person.ui.stdCheck.click()
    assert not legend()


def test_blink_between_the_output_and_another_image(person):
    combo = person.ui.blinkCombo
    assert [combo.itemText(i) for i in range(combo.count)] == ["T1", PET]
    person.ui.blinkButton.click()
    seen = set()
    person.wait(lambda: seen.add(shown()[1][0]) or seen >= {"T1", CT}, 5)
    person.ui.blinkButton.click()
    assert shown() == [("T1", ""), (CT, ""), (STD, "")]


def test_value_and_uncertainty_under_the_mouse(person, slicer_scene):
    person.ui.compareButton.click()
    centre = [0.0] * 6
    slicer.util.getNode(CT).GetRASBounds(centre)
    ras = tuple((centre[2 * axis] + centre[2 * axis + 1]) / 2 for axis in range(3))
    slicer_scene.move_cursor(ras, "Red")
    assert person.ui.readoutLabel.text == "CT 34 ± 12 HU · PET 1.50 SUVr"
    slicer_scene.move_cursor((900.0, 900.0, ras[2]), "Red")
    assert person.ui.readoutLabel.text == "Move the mouse over an image to read values here."


def test_views_say_that_the_image_was_not_acquired(person):
    view = slicer.app.layoutManager().sliceWidget("Any2allOutput").sliceView()
    assert "SYNTHETIC" in view.cornerAnnotation().GetText(7)
    slicer.mrmlScene.RemoveNode(slicer.util.getNode(CT))
    person.idle()
    assert column(person, 0) == [PET]


def test_removing_everything_empties_the_section(person):
    for name in (CT, STD, PET):
        slicer.mrmlScene.RemoveNode(slicer.util.getNode(name))
    person.idle()
    assert not person.ui.resultsHost.isVisibleTo(person.ui.resultsSection)
    assert person.ui.noResultsLabel.isVisibleTo(person.ui.resultsSection)


def test_the_comparison_shows_the_reference_that_a_result_was_made_on(person, tmp_path):
    """With two patients in one scene, the one who is in the panel now is not the one of an older result."""
    add_volume("other head")
    person.idle()
    person.choose("T1", "other head")
    person.ui.outputsTable.selectRow(1)
    assert shown() == [("T1", ""), (PET, "")]
    combo = person.ui.blinkCombo
    assert [combo.itemText(i) for i in range(combo.count)] == ["T1", "other head", CT]
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    person.idle()
    person.ui.compareButton.click()
    assert shown() == [("T1", ""), (CT, ""), (STD, "")]
    slicer.mrmlScene.RemoveNode(slicer.util.getNode("T1"))
    person.idle()
    person.ui.compareButton.click()
    assert shown() == [(CT, ""), (CT, ""), (STD, "")]
