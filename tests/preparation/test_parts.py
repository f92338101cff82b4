"""The parts of the preparation: who is who, what is refused, how one interpolation treats air, who validates."""

from __future__ import annotations

import json
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from any2all.errors import Any2allError
from any2all.geometry import Grid, Volume
from any2all.output.write import whole_folder
from any2all.preparation.checks import check_head, check_units, peak_warnings
from any2all.preparation.cohort import cohort_constants, fitted_stack, split
from any2all.preparation.parallel import in_processes
from any2all.preparation.sources import find_subjects
from any2all.preparation.subject import Settings, prepare_subject, resampled, working_grid
from any2all.stack import Stack, load_stack

STACK = load_stack()
AFFINE = np.array([[0, 0, -4.0, 0], [0, -4.0, 0, 0], [6.0, 0, 0, 0], [0, 0, 0, 1]])


def ball(inside: float = 1.0, air: float = 0.0, radius: float = 0.7, grid: Grid | None = None) -> Volume:
    grid = grid or Grid((12, 40, 40), AFFINE)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in grid.shape), indexing="ij")
    return Volume(np.where(sum(a**2 for a in axes) < radius**2, inside, air), grid)


def save(folder: Path, name: str, volume: Volume) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    shaded = volume.data * np.linspace(1, 1.01, volume.data.size).reshape(volume.data.shape)  # a ball has two values
    nib.save(nib.Nifti1Image(shaded.astype(np.float32), volume.grid.affine), folder / name)
    return folder / name


@pytest.mark.parametrize(
    "name, volume, words",
    [
        ("CT", ball(40, 0), "not seem to be in HU; got 'lowest value 0'"),
        ("CT", ball(1064, 24), "not seem to be in HU"),
        ("T1", ball(1.2, -0.9), "negative a.u."),
        ("PET", ball(-1.0, 0.0), "negative SUVr"),
    ],
)
def test_units_that_cannot_be(name, volume, words):
    with pytest.raises(Any2allError, match=f"^{name}: .*{words}"):
        check_units(STACK[name], volume)


def test_units_that_can_be():
    check_units(STACK["CT"], ball(40, -1000))
    check_units(STACK["CT"], ball(40, -3024))  # a scanner's padding
    check_units(STACK["T1"], ball(1.0, -0.02))  # ringing
    assert peak_warnings(STACK["PET"], 2.8) == [] and peak_warnings(STACK["T1"], 9000) == []
    assert "18000" in peak_warnings(STACK["PET"], 18000.0)[0]


def test_next_to_no_head():
    with pytest.raises(Any2allError, match="no head was found.*at least 30 ml"):
        check_head(STACK["T1"], ball(1.0, 0.0, radius=0.12))
    assert check_head(STACK["T1"], ball()).any()


def test_images_of_other_places_and_single_slices_are_left_out(tmp_path):
    apart = ball()
    apart = Volume(apart.data, apart.grid.moved(np.array([[1, 0, 0, 900.0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])))
    save(tmp_path / "in" / "p1", "T1.nii.gz", ball())
    save(tmp_path / "in" / "p1", "T2.nii.gz", apart)
    nib.save(nib.Nifti1Image(ball().data[6:7], AFFINE), tmp_path / "in" / "p1" / "flair.nii.gz")
    (subject,) = find_subjects(tmp_path / "in", STACK)
    record = prepare_subject(subject, tmp_path / "out", STACK, Settings())
    assert list(record["modalities"]) == ["T1"] and record["reference"] == "T1"
    assert "does not overlap with the reference T1" in record["refused"]["T2"]
    assert "at least 2 along every axis" in record["refused"]["T2FLAIR"]


@pytest.mark.parametrize("labels", [2, 30])
def test_a_mask_is_no_image(labels, tmp_path):
    save(tmp_path / "in" / "p1", "T1.nii.gz", ball(1000))
    inside = ball().data * np.random.default_rng(0).integers(1, labels, ball().data.shape)
    nib.save(nib.Nifti1Image(inside.astype(np.int16), AFFINE), tmp_path / "in" / "p1" / "T2_lesions.nii.gz")
    (subject,) = find_subjects(tmp_path / "in", STACK)
    record = prepare_subject(subject, tmp_path / "out", STACK, Settings())
    assert list(record["modalities"]) == ["T1"]
    assert record["refused"]["T2"].startswith(f"T2: this is a mask or a label map, and no image; got '{labels} diff")


def test_results_of_a_study_are_not_replaced(tmp_path):
    save(tmp_path / "in" / "p1", "T1.nii.gz", ball(1000))
    there = save(tmp_path / "out" / "p1", "CT.nii.gz", ball())
    summary = {"any2all_summary": 1, "files": ["CT.nii.gz", "summary.json"], "provenance": {}}
    (there.parent / "summary.json").write_text(json.dumps(summary))
    (subject,) = find_subjects(tmp_path / "in", STACK)
    with pytest.raises(Any2allError, match="output_dir: the folder holds results of a study"):
        prepare_subject(subject, tmp_path / "out", STACK, Settings())
    assert there.is_file()


def test_a_registration_below_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("any2all.registration.WORKING_MM", 6.0)
    save(tmp_path / "in" / "p1", "T1.nii.gz", ball(1000))
    save(tmp_path / "in" / "p1", "T2.nii.gz", ball(1000, radius=0.4, grid=Grid((12, 40, 41), AFFINE)))
    (subject,) = find_subjects(tmp_path / "in", STACK)
    record = prepare_subject(subject, tmp_path / "out", STACK, Settings())
    assert "does not come to lie on that of T1" in record["refused"]["T2"] and list(record["modalities"]) == ["T1"]
    trusted = prepare_subject(subject, tmp_path / "out", STACK, Settings(registration="none"))
    assert list(trusted["modalities"]) == ["T1", "T2"] and "overlap by 0." in trusted["warnings"][0]
    assert not trusted["resumed"] and (tmp_path / "out" / "p1" / "T2.nii.gz").is_file()


def test_one_interpolation_keeps_the_range_and_fills_with_air():
    ct, mr = ball(60, -3024), ball(900)
    grid = Grid((14, 44, 44), AFFINE @ np.diag([0.9, 1.1, 1.1, 1]) + np.outer([7, 5, -8, 0], [0, 0, 0, 1]))
    there = resampled(STACK["CT"], ct, grid).data
    assert there.min() == -1000 and there.max() <= 60 and there[0, -1, -1] == -1000
    there = resampled(STACK["T1"], mr, grid).data
    assert there.min() == 0 and there.max() <= 900 and np.median(there[there > 450]) == pytest.approx(900, rel=0.01)


def test_the_working_grid_has_the_same_middle():
    grid = Grid((12, 40, 40), AFFINE)
    other = working_grid(grid, (2.0, 3.0, 5.0))
    assert other.spacing_mm == pytest.approx((5.0, 2.0, 3.0)) and np.allclose(other.centre_mm, grid.centre_mm)
    assert other.shape == (15, 80, 54)


def test_files_are_told_apart(tmp_path):
    for name in ("anat/s_T1w.nii.gz", "s_T1c.nii.gz", "s_T2_FLAIR.nrrd", "s_T2w.nii", "notes.txt", ".s_ct.nii.gz"):
        (tmp_path / "s" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "s" / name).touch()
    (tmp_path / ".hidden").mkdir()
    (subject,) = find_subjects(tmp_path, STACK)
    assert {name: file.name for name, file in subject.files.items()} == {
        "T1": "s_T1w.nii.gz",
        "T2": "s_T2w.nii",
        "T2FLAIR": "s_T2_FLAIR.nrrd",
    }
    assert subject.ignored == ("s_T1c.nii.gz",)


@pytest.mark.parametrize(
    "entries, names",
    [
        ([{"T1": "a/t1.nii"}, {"CT": "b/ct.nii"}], ["a", "b"]),
        ([{"T1": "a_t1.nii"}, {"T1": "b_t1.nii"}], ["subject_0001", "subject_0002"]),
        ([{"subject": "x", "T1": "a/t1.nii"}, {"subject": "../y", "T1": "a/t1.nii"}], ["x", "y"]),
    ],
)
def test_names_in_a_datalist(entries, names, tmp_path):
    (tmp_path / "list.json").write_text(json.dumps({"training": entries}))
    found = find_subjects(tmp_path / "list.json", STACK)
    assert [subject.name for subject in found] == names and {subject.section for subject in found} == {None}


def record(name: str, section: str | None = None, **peaks: float) -> dict:
    heads = {m: {"head": {"lowest": 0.0, "highest": 2 * p, "percentile_99_9": p}} for m, p in peaks.items()}
    return {"subject": name, "section": section, "modalities": heads or {"T1": {}}}


def test_a_subject_stays_in_its_section_when_others_join():
    few, many = ([record(f"p{i:02d}") for i in range(n)] for n in (40, 400))
    (small, _), (large, _) = split(few, 0.2, 0), split(many, 0.2, 0)
    assert all(large[name] == section for name, section in small.items())
    assert 50 < list(large.values()).count("validation") < 110 and split(few, 0.2, 1)[0] != small
    given, notes = split([record("a", "training"), record("b", "validation")], 0.5, 0)
    assert given == {"a": "training", "b": "validation"} and notes == []
    drawn = [record("p01"), record("p02")]
    assert set(split(drawn, 0.999999, 0)[0].values()) == {"training"}
    kept, notes = split([record("a", "validation")], 0.5, 0)  # the source's word wins
    assert kept == {"a": "validation"} and any("no subject is left to train on" in note for note in notes)


def test_constants_come_from_the_cohort():
    constants = cohort_constants(
        [record("a", PET=10.0), record("b", PET=14.0), record("c", PET=30.0, CT=1500.0)], STACK
    )
    assert constants["PET"]["percentile_99_9"] == 14.0 and constants["PET"]["highest"] == 60.0
    assert constants["CT"]["subjects"] == 1
    fitted = Stack.model_validate(fitted_stack(STACK, constants))
    assert fitted["PET"].normalisation.maximum == 14.0
    assert fitted["PET"].display.window[1] == pytest.approx(2.5 * 14 / 3)
    assert fitted["CT"] == STACK["CT"] and fitted["T1"] == STACK["T1"]


def _slow(folder: Path) -> str:
    if folder.name == "quick":
        return "done"
    if folder.name == "wrong":
        raise Any2allError("a reason")
    with whole_folder(folder, [], overwrite=True) as partial:
        (partial / "half.png").touch()
        time.sleep(60)
    return "never"


def test_breaking_off_leaves_nothing_half_written(tmp_path):
    answers = in_processes(_slow, [tmp_path / name for name in ("slow", "quick", "wrong", "later")], 2)
    first = dict([next(answers), next(answers)])
    assert first[tmp_path / "quick"] == "done" and str(first[tmp_path / "wrong"]) == "a reason"
    deadline = time.time() + 20
    while not list(tmp_path.glob(".slow.*/half.png")) and time.time() < deadline:
        time.sleep(0.05)
    began = time.time()
    answers.close()
    assert time.time() - began < 20 and list(tmp_path.iterdir()) == []
