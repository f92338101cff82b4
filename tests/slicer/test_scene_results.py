"""A job's files in the scene: named, coloured and told apart from acquired images, all of them or none."""

from __future__ import annotations

import gzip
import json

import lib_path  # noqa: F401  (makes Any2allLib importable)
import numpy as np
import pytest
import slicer
import slicer.util
from Any2allLib import nifti
from Any2allLib.assign import assign
from Any2allLib.results import find_outputs, show_pieces, unique_names
from Any2allLib.upload import scene_volumes, volume_facts
from harness import pixels
from scene_files import STACK, ball, ct_run, facts, result, sent
from tiny_module import ball_volume, oblique


def show(folder, results, reference, undersampled=(), **changed):
    file = None if reference is None else sent(folder, reference)
    return nifti.exhaust(show_pieces(slicer.mrmlScene, folder, results, STACK, facts(**changed), file, undersampled))


def nodes(output):
    return [slicer.mrmlScene.GetNodeByID(node_id) for node_id in output.ids]


def items():
    """Name of a subject hierarchy's folder → names of what is in it."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    children, found = [], {}
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), children, True)
    for item in children:
        found.setdefault(hierarchy.GetItemName(hierarchy.GetItemParent(item)), []).append(hierarchy.GetItemName(item))
    return found


def state():
    scene = slicer.mrmlScene
    return sorted(scene.GetNthNode(i).GetID() for i in range(scene.GetNumberOfNodes())), items()


def test_outputs_are_named_grouped_and_lie_on_the_reference(slicer_scene, tmp_path):
    reference = ball_volume((0, 0, 0), name="MRBrainT1")
    (output,) = show(tmp_path, ct_run(tmp_path), reference)
    assert (output.modality, output.role, output.units) == ("CT", "synthetic", "HU") and "haemorrhage" in output.caption
    names = ["synthesised", "uncertainty (std)", "sample 1", "sample 2"]
    assert [n.GetName() for n in nodes(output)] == [f"CT · {name} · Any2all" for name in names]
    (folder,) = [name for name in items() if name.startswith("Any2all 20")]
    assert sorted(items()[folder]) == sorted(n.GetName() for n in nodes(output))
    for node in nodes(output):
        matrix = slicer.vtkMRMLSliceNode().GetXYToRAS()
        node.GetIJKToRASMatrix(matrix)
        np.testing.assert_allclose(slicer.util.arrayFromVTKMatrix(matrix), oblique(), atol=1e-5)
        assert node.GetParentTransformNode() is None and node.GetStorageNode() is None
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(nodes(output)[0]), ball((-20, 0, 0), 80, -1000))
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(nodes(output)[3]), ball((-20, 0, 0), 79, -1001))


def test_attributes_say_how_it_was_made_and_no_uid_of_the_source(slicer_scene, tmp_path):
    reference = ball_volume((0, 0, 0), name="MRBrainT1")
    reference.SetAttribute("DICOM.instanceUIDs", "1.2.840.7")
    (output,) = show(tmp_path, ct_run(tmp_path), reference)
    mean, std, sample, _ = nodes(output)
    told = {key: mean.GetAttribute(f"Any2all.{key}") for key in ("Sampler", "Steps", "Seed", "PriorSHA256", "Software")}
    assert told == {
        "Sampler": "mcs", "Steps": "10", "Seed": "7", "PriorSHA256": "ab" * 32, "Software": "Any2all 0.2.0"
    }  # fmt: skip
    assert json.loads(mean.GetAttribute("Any2all.Inputs")) == {"T1": "MRBrainT1"}
    assert [n.GetAttribute("Any2all.Role") for n in nodes(output)] == ["synthetic", "std", "sample", "sample"]
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    for node, words in ((mean, "SYNTHETIC Any2all CT"), (std, "SYNTHETIC Any2all CT std")):
        item = hierarchy.GetItemByDataNode(node)
        assert node.GetAttribute("DICOM.SeriesDescription") == words
        assert hierarchy.GetItemAttribute(item, "DICOM.SeriesDescription") == words
        assert hierarchy.GetItemAttribute(item, "DICOM.Modality") == "CT"
        assert not hierarchy.HasItemUID(item, "DICOM") and node.GetAttribute("DICOM.instanceUIDs") is None
        assert not any("1.2.840.7" in (node.GetAttribute(name) or "") for name in node.GetAttributeNames())


def with_origin(file, origin):
    """A result as the server writes it: with its origin behind the header."""
    import struct

    raw = gzip.decompress(file.read_bytes())
    content = json.dumps({"any2all": origin}).encode()
    content += bytes(-(8 + len(content)) % 16)
    head = bytearray(raw[:348])
    struct.pack_into("<f", head, 108, 352 + 8 + len(content))
    behind = bytes([1, 0, 0, 0]) + struct.pack("<ii", 8 + len(content), 6) + content
    file.write_bytes(gzip.compress(bytes(head) + behind + raw[352:]))


def test_the_origin_is_what_the_file_itself_says(slicer_scene, tmp_path):
    """The server may have been replaced, with its prior, since it answered at *Test*."""
    origin = {
        "software": "any2all 0.9.0",
        "prior": {"sha256": "ef" * 32, "version": "0.9.0"},
        "sampler": {"name": "mds", "steps": 150, "samples": "many"},
        "seed": 3,
    }
    run = ct_run(tmp_path)
    with_origin(tmp_path / "CT.nii.gz", origin)
    (output,) = show(tmp_path, run, ball_volume((0, 0, 0)), filled_by="any2all 0.2.0", software="Slicer's module")
    mean, std = nodes(output)[:2]
    keys = ("Sampler", "Steps", "Samples", "Seed", "PriorSHA256", "PriorVersion", "Software")
    assert [mean.GetAttribute(f"Any2all.{key}") for key in keys] == [
        "mds", "150", "4", "3", "ef" * 32, "0.9.0", "Slicer's module, any2all 0.9.0"
    ]  # fmt: skip
    assert [std.GetAttribute(f"Any2all.{key}") for key in keys] == [
        "mcs", "10", "4", "7", "ab" * 32, "0.2.0", "Slicer's module, any2all 0.2.0"
    ]  # fmt: skip
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(mean), ball((-20, 0, 0), 80, -1000))


@pytest.mark.parametrize("origin", [[], {"prior": 3, "sampler": None, "seed": True}, "x" * 100_000, None])
def test_an_origin_that_cannot_be_used_is_passed_over(slicer_scene, tmp_path, origin):
    run = ct_run(tmp_path)
    with_origin(tmp_path / "CT.nii.gz", origin)
    (output,) = show(tmp_path, run, ball_volume((0, 0, 0)))
    assert nodes(output)[0].GetAttribute("Any2all.Seed") == "7"


def test_measured_data_makes_it_reconstructed_and_shows_it_in_its_own_units(slicer_scene, tmp_path):
    image = ball((0, 0, 0), 4000, 0) + np.linspace(1, 100, 40)[:, None, None].astype(np.float32)
    made = result(tmp_path, "T2FLAIR.nii.gz", "T2FLAIR", "mean", image)
    reference = ball_volume((0, 0, 0))
    (measured,) = show(tmp_path, [made], reference, undersampled={"T2FLAIR"})
    (invented,) = show(tmp_path, [made], reference)
    first, second = nodes(measured)[0], nodes(invented)[0]
    assert (measured.role, first.GetName()) == ("reconstructed", "T2FLAIR · reconstructed · Any2all")
    assert first.GetAttribute("DICOM.SeriesDescription") == "RECONSTRUCTED Any2all T2FLAIR"
    levels = [(n.GetDisplayNode().GetWindowLevelMin(), n.GetDisplayNode().GetWindowLevelMax()) for n in (first, second)]
    assert levels[0] == pytest.approx(tuple(np.percentile(image, (0.5, 99.5))), rel=1e-4)
    assert levels[1] == pytest.approx((0, 850))


def test_window_colours_and_legend_follow_the_modality(slicer_scene, tmp_path):
    pet = result(tmp_path, "PET.nii.gz", "PET", "mean", ball((0, 0, 0), 2, 0.5))
    ct, made = show(tmp_path, [pet, *ct_run(tmp_path)], ball_volume((0, 0, 0)))
    assert (ct.modality, made.modality) == ("CT", "PET")  # in the stack's order
    mean, std = (node.GetDisplayNode() for node in nodes(ct)[:2])
    colour = nodes(made)[0].GetDisplayNode()
    assert (mean.GetWindowLevelMin(), mean.GetWindowLevelMax()) == (-40, 120)
    assert (colour.GetWindowLevelMin(), colour.GetWindowLevelMax()) == (0, 2.5)
    assert [d.GetColorNode().GetName() for d in (mean, std, colour)] == ["Grey", "Warm1", "Iron"]
    assert std.GetApplyThreshold() and (std.GetLowerThreshold(), std.GetUpperThreshold()) == pytest.approx((2.4, 12))
    legend = slicer.modules.colors.logic().GetColorLegendDisplayNode(nodes(ct)[1])
    assert legend.GetTitleText() == "CT std (HU)" and not legend.GetVisibility()


def test_the_second_run_has_its_own_names_and_folder(slicer_scene, tmp_path):
    reference = ball_volume((0, 0, 0))
    for _ in range(2):
        show(tmp_path, ct_run(tmp_path), reference)
    first, second = find_outputs(slicer.mrmlScene)
    assert nodes(second)[0].GetName() == "CT · synthesised · Any2all (2)" and not set(first.ids) & set(second.ids)
    assert nodes(second)[1].GetName() == "CT · uncertainty (std) · Any2all (2)"
    assert len([names for names in items().values() if "CT · sample 2 · Any2all (2)" in names]) == 1
    assert unique_names(["a", "b"], {"b (2)", "b"}) == ["a (3)", "b (3)"]


def test_a_result_is_never_taken_for_an_input(slicer_scene, tmp_path):
    show(tmp_path, ct_run(tmp_path), ball_volume((0, 0, 0), name="T1"))
    assert list(assign(scene_volumes(slicer.mrmlScene), STACK)) == ["T1"]


@pytest.mark.parametrize(
    "words", [b"SYNTHETIC Any2all CT mean", b"RECONSTRUCTED Any2all CT mean", b"a scanner's words"]
)
@pytest.mark.parametrize("packed", [True, False])
def test_a_file_of_the_server_is_told_by_its_header(slicer_scene, tmp_path, words, packed):
    """As it lies on the server, or was downloaded by hand: its name is that of an acquired image."""
    file = tmp_path / "CT.nii.gz"
    nifti.exhaust(nifti.written(file, np.ones((4, 6, 5), np.float32), np.eye(4)))
    head = bytearray(gzip.decompress(file.read_bytes()))
    head[nifti.DESCRIP : nifti.DESCRIP + len(words)] = words
    file = tmp_path / ("CT.nii.gz" if packed else "CT.nii")
    file.write_bytes(gzip.compress(head) if packed else head)
    node = slicer.util.loadVolume(str(file))
    ours = b"Any2all" in words
    assert volume_facts(node).made_here == ours
    assert list(assign(scene_volumes(slicer.mrmlScene), STACK)) == ([] if ours else ["CT"])
    file.unlink()
    assert not volume_facts(node).made_here, "nobody knows any more, and nothing breaks"


def off_grid(folder):
    moved = oblique()
    moved[0, 3] += 0.01
    return result(folder, "CT_std.nii.gz", "CT", "std", ball((0, 0, 0), 1, 1), moved)


def too_small(folder):
    return result(folder, "CT_std.nii.gz", "CT", "std", np.ones((40, 60, 59)))


def no_number(folder):
    return result(folder, "CT_std.nii.gz", "CT", "std", np.full((40, 60, 60), np.nan))


def below_zero(folder):
    return result(folder, "CT_std.nii.gz", "CT", "std", ball((0, 0, 0), -1, 1))


def truncated(folder):
    made = result(folder, "CT_std.nii.gz", "CT", "std", ball((0, 0, 0), 1, 1))
    (folder / made.name).write_bytes((folder / made.name).read_bytes()[:-100])
    return made


def missing(folder):
    made = result(folder, "CT_std.nii.gz", "CT", "std", ball((0, 0, 0), 1, 1))
    (folder / made.name).unlink()
    return made


def without_mean(folder):
    return result(folder, "PET_std.nii.gz", "PET", "std", ball((0, 0, 0), 1, 1))


def unknown(folder):
    return result(folder, "ADC.nii.gz", "ADC", "mean", ball((0, 0, 0), 1, 1))


def twice(folder):
    return result(folder, "CT_again.nii.gz", "CT", "mean", ball((0, 0, 0), 1, 1))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (off_grid, "0.01 mm off"),
        (too_small, "59 × 60 × 40 instead of 60 × 60 × 40"),
        (no_number, "no numbers"),
        (below_zero, "below zero"),
        (truncated, "'CT_std.nii.gz' cannot be read"),
        (missing, "'CT_std.nii.gz' cannot be read"),
        (without_mean, "no image of PET"),
        (unknown, "no image of ADC"),
        (twice, "2 volumes as the mean of CT"),
    ],
)
def test_results_that_are_half_bad_leave_nothing(slicer_scene, tmp_path, bad, said):
    reference = ball_volume((0, 0, 0))
    good = result(tmp_path, "CT.nii.gz", "CT", "mean", ball((0, 0, 0), 80, -1000))
    before = state()
    with pytest.raises(ValueError, match=said):
        show(tmp_path, [good, bad(tmp_path)], reference)
    assert state() == before
    with pytest.raises(ValueError, match="no volume"):
        show(tmp_path, [], reference)


def test_in_pieces_the_scene_hears_of_it_in_the_last_one_only(slicer_scene, tmp_path):
    reference, results = ball_volume((0, 0, 0)), ct_run(tmp_path)
    file = sent(tmp_path, reference)
    before, arguments = state(), (slicer.mrmlScene, tmp_path, results, STACK, facts(), file, ())
    pieces, count = show_pieces(*arguments), 0
    with pytest.raises(StopIteration) as end:
        while True:
            assert state() == before
            next(pieces)
            count += 1
    assert count >= 4 * len(results), "read, checked, looked at, made ready"
    assert end.value.value == find_outputs(slicer.mrmlScene) and state() != before


def test_what_fails_while_nodes_are_made_is_taken_back(slicer_scene, tmp_path, monkeypatch):
    display = show_pieces.__globals__["display"]  # another test may have loaded the package anew
    reference, before = ball_volume((0, 0, 0)), state()
    shown = display.show
    monkeypatch.setattr(display, "show", lambda node, look: shown(node, look) if not look.legend else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        show(tmp_path, ct_run(tmp_path), reference)
    assert state() == before


def test_the_references_transform_is_in_the_results_already(slicer_scene, tmp_path):
    reference = ball_volume((-20, 0, 0))
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    move = np.array([[0, -1, 0, 4], [1, 0, 0, -9], [0, 0, 1, 3], [0, 0, 0, 1.0]])
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(move))
    reference.SetAndObserveTransformNodeID(transform.GetID())
    with pytest.raises(ValueError, match="grid of the image that was sent: it is .* mm off"):
        show(tmp_path, ct_run(tmp_path), reference)
    _, grid = nifti.read(sent(tmp_path, reference))  # the server answers on the grid that it was sent
    made = result(tmp_path, "CT.nii.gz", "CT", "mean", ball(tuple((move @ [-20, 0, 0, 1])[:3]), 80, -1000, grid), grid)
    (output,) = show(tmp_path, [made], reference)
    bounds = [[0.0] * 6, [0.0] * 6]
    reference.GetRASBounds(bounds[0])
    nodes(output)[0].GetRASBounds(bounds[1])
    assert nodes(output)[0].GetParentTransformNode() is None and bounds[0] == pytest.approx(bounds[1], abs=1e-3)
    both = []
    for volume in (reference, nodes(output)[0]):
        slicer.util.setSliceViewerLayers(background=volume)
        both.append(pixels.render("Red", offset=3.0)[..., 0] > 128)
    middles = [np.mean(np.nonzero(picture), axis=1) for picture in both]
    assert all(picture.sum() > 50 for picture in both) and np.hypot(*(middles[0] - middles[1])) < 1.5


def test_a_left_handed_and_a_little_sheared_grid_come_back_as_they_went(slicer_scene, tmp_path):
    affine = np.diag([1.0, 2.0, -3.0, 1.0])
    affine[0, 1] = 0.01
    reference = slicer.util.addVolumeFromArray(np.ones((40, 60, 60), np.int16), affine, "T1")
    made = result(tmp_path, "CT.nii.gz", "CT", "mean", ball((20, 50, -60), 80, -1000, affine), affine)
    (output,) = show(tmp_path, [made], reference)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(nodes(output)[0]), ball((20, 50, -60), 80, -1000, affine))


def test_the_grid_of_a_raw_file_needs_no_reference(slicer_scene, tmp_path):
    (output,) = show(tmp_path, ct_run(tmp_path), None)
    assert output.mean_id
    with pytest.raises(ValueError, match="CT · synthesised · Any2all"):
        show(tmp_path, [ct_run(tmp_path)[0], off_grid(tmp_path)], None)


@pytest.mark.parametrize("ending", ["mrb", "mrml"])
def test_a_saved_scene_brings_outputs_back_with_everything(slicer_scene, tmp_path, ending):
    (tmp_path / "job").mkdir()
    show(tmp_path / "job", ct_run(tmp_path / "job"), ball_volume((0, 0, 0), name="T1"))
    (before,) = find_outputs(slicer.mrmlScene)
    for file in (tmp_path / "job").iterdir():
        file.unlink()  # the job's folder is a temporary one
    if ending == "mrml":
        for node in nodes(before):
            slicer.util.saveNode(node, str(tmp_path / f"{node.GetID()}.nrrd"))
    assert slicer.util.saveScene(str(tmp_path / f"scene.{ending}"))
    slicer.mrmlScene.Clear(0)
    assert find_outputs(slicer.mrmlScene) == []
    slicer.util.loadScene(str(tmp_path / f"scene.{ending}"))
    (output,) = find_outputs(slicer.mrmlScene)
    assert (output.modality, output.role, output.caption) == (before.modality, "synthetic", before.caption)
    assert len(output.ids) == 4 and len(output.sample_ids) == 2
    mean, std, *_ = nodes(output)
    assert mean.GetName() == "CT · synthesised · Any2all" and mean.GetAttribute("Any2all.Seed") == "7"
    assert mean.GetDisplayNode().GetWindowLevelMax() == 120 and std.GetDisplayNode().GetApplyThreshold()
    assert std.GetDisplayNode().GetColorNode().GetName() == "Warm1"
    assert slicer.modules.colors.logic().GetColorLegendDisplayNode(std).GetTitleText() == "CT std (HU)"
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(mean), ball((-20, 0, 0), 80, -1000))
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(mean)
    assert hierarchy.GetItemAttribute(item, "DICOM.SeriesDescription") == "SYNTHETIC Any2all CT"
    assert hierarchy.GetItemName(hierarchy.GetItemParent(item)).startswith("Any2all 20")
    slicer.mrmlScene.RemoveNode(std)
    assert find_outputs(slicer.mrmlScene)[0].std_id == ""
