"""``prepare.json`` as a user runs it: a folder of images becomes a cohort that ``train.json`` takes."""

from __future__ import annotations

import base64
import json
import re
import shutil
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from any2all.diffusion.prior import load_prior
from any2all.geometry import canonical, read_volume
from any2all.preparation.command import Preparation
from any2all.stack import load_stack
from matplotlib.image import imread
from monai.bundle import ConfigWorkflow
from small_runs import CONFIGS, workflow


def prepare(source: Path | None, folder: Path | None, **settings) -> Path:
    config = {
        "source": str(source) if source else None,
        "output_dir": str(folder),
        "validation_fraction": 0,
        **settings,
    }
    made = ConfigWorkflow(str(CONFIGS / "prepare.json"), workflow_type="train", **config)
    made.initialize()
    return made.run()[0]


@pytest.fixture(scope="module")
def prepared(cohort_folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("any2all.registration.WORKING_MM", 4.0)
        return prepare(cohort_folder, tmp_path_factory.mktemp("prepared") / "out", fit_stack="true").parent


@pytest.fixture
def coarse(monkeypatch):
    monkeypatch.setattr("any2all.registration.WORKING_MM", 4.0)


def report(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


def voxels(file: Path) -> np.ndarray:
    return canonical(read_volume(file, "image")).data


def test_the_datalist_holds_what_can_be_used(prepared):
    found = json.loads((prepared / "datalist.json").read_text())
    stacks = {next(iter(entry.values())).split("/")[0]: list(entry) for entry in found["training"]}
    assert stacks == {"anna": list(load_stack().names), "<ben>": ["T1", "T2FLAIR"], "cleo": ["T1", "T2FLAIR"]}
    assert found["validation"] == []
    assert all((prepared / path).is_file() for entry in found["training"] for path in entry.values())
    assert report(prepared)["counts"] == {"training": 3, "validation": 0, "refused": 1}


def test_images_on_one_grid_keep_their_voxels_and_units(prepared, cohort_folder):
    for name in load_stack().names:
        written, source = prepared / "anna" / f"{name}.nii.gz", cohort_folder / "anna" / f"{name}.nii.gz"
        expected = np.maximum(voxels(source), -1000) if name == "CT" else voxels(source)  # below air is padding
        assert np.array_equal(voxels(written), expected)
        assert np.allclose(nib.load(written).affine, nib.load(source).affine, atol=1e-5)
        assert nib.load(written).get_data_dtype() == np.float32 and nib.load(written).header["sform_code"] == 1


def test_an_image_on_another_grid_is_brought_to_the_reference(prepared, cohort_folder, small_cohort):
    truth = voxels(small_cohort.parent / "p3" / "T2FLAIR.nii.gz")
    written = voxels(prepared / "cleo" / "T2FLAIR.nii.gz")
    assert written.shape == voxels(prepared / "cleo" / "T1.nii.gz").shape == truth.shape
    assert np.corrcoef(written.ravel(), truth.ravel())[0, 1] > 0.96
    facts = next(r for r in report(prepared)["subjects"] if r["subject"] == "cleo")["modalities"]["T2FLAIR"]
    assert facts["registered"] and facts["overlap"] > max(0.93, facts["overlap_before"])
    assert facts["angle_deg"] == pytest.approx(11.4, abs=2.5)


def test_refusals_say_why(prepared):
    record = next(r for r in report(prepared)["subjects"] if r["subject"] == "dan")
    assert record["refused"]["T1"] == "2 files for one modality: first_T1.nii.gz, second_T1.nii.gz"
    assert "not seem to be in HU" in record["refused"]["CT"] and "truncated" in record["refused"]["PET"]
    assert record["refused"]["dan"] == "no modality of it can be used" and not (prepared / "dan").exists()
    ben = next(r for r in report(prepared)["subjects"] if r["subject"] == "<ben>")
    assert ben["ignored"] == ["lesions.nii.gz"]


def test_the_page_needs_no_other_file(prepared):
    page = (prepared / "qc.html").read_text()
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == 3 and page.count("src=") == 3 and "href" not in page
    assert all(imread(BytesIO(base64.b64decode(data))).std() > 0.05 for data in pictures)
    assert "<ben>" not in page and "&lt;ben&gt;" in page
    assert "first_T1.nii.gz, second_T1.nii.gz" in page and "not used: lesions.nii.gz" in page


def test_the_prepared_cohort_trains(prepared, tmp_path):
    files = {"datalist_file": str(prepared / "datalist.json"), "stack_file": str(prepared / "stack.json")}
    run = workflow("train.json", output_dir=str(tmp_path), total_iterations=2, **files)
    run.run()
    prior = load_prior(tmp_path / "model.pt")
    fitted = report(prepared)["constants"]["PET"]["percentile_99_9"]
    assert prior.card.training["stacks_seen"] == 4
    assert prior.stack["PET"].normalisation.maximum == pytest.approx(fitted)
    inside = voxels(prepared / "anna" / "PET.nii.gz")
    assert fitted == pytest.approx(np.percentile(inside[inside > 0.15], 99.9), rel=0.02)


def test_a_second_run_does_only_what_changed(prepared, cohort_folder, tmp_path, coarse):
    source, out = tmp_path / "cohort", tmp_path / "out"
    shutil.copytree(cohort_folder, source, ignore=shutil.ignore_patterns("dan"))
    shutil.copytree(prepared, out)
    shutil.copy(source / "anna" / "T1.nii.gz", source / "<ben>" / "mr" / "T1.nii.gz")
    (out / "cleo" / "T1.nii.gz").unlink()
    (out / ".anna.0123abcd.partial").mkdir()
    before = (out / "anna" / "T1.nii.gz").stat().st_mtime_ns
    prepare(source, out)
    assert {r["subject"]: r["resumed"] for r in report(out)["subjects"]} == {
        "<ben>": False,
        "anna": True,
        "cleo": False,
    }
    assert (out / "anna" / "T1.nii.gz").stat().st_mtime_ns == before
    assert np.array_equal(voxels(out / "<ben>" / "T1.nii.gz"), voxels(source / "anna" / "T1.nii.gz"))
    assert (out / "cleo" / "T1.nii.gz").is_file() and not list(out.glob(".*"))


def test_a_datalist_with_its_own_split_and_a_working_spacing(small_cohort, tmp_path):
    out = prepare(small_cohort, tmp_path / "out", spacing_mm=[8, 8, 6], validation_fraction=0.9).parent
    found = json.loads((out / "datalist.json").read_text())
    assert [entry["T1"] for entry in found["training"]] == ["p1/T1.nii.gz", "p2/T1.nii.gz"]
    assert [entry["T1"] for entry in found["validation"]] == ["p3/T1.nii.gz"]
    assert read_volume(out / "p1" / "CT.nii.gz", "CT").grid.spacing_mm == pytest.approx((8, 8, 6))
    assert voxels(out / "p1" / "CT.nii.gz").min() >= -1000.0


def refusal(capsys, source, folder, **settings) -> str:
    with pytest.raises(SystemExit) as status:
        Preparation(source, folder, load_stack(), **settings).run()
    lines = capsys.readouterr().err.strip().splitlines()
    assert status.value.code == 2 and lines[-1].startswith("error: ")
    return lines[-1]


def test_without_one_usable_subject_the_status_is_2(cohort_folder, tmp_path, capsys):
    source = tmp_path / "cohort"
    shutil.copytree(cohort_folder / "dan", source / "dan")
    words = refusal(capsys, source, tmp_path / "out")
    assert "no subject can be used" in words and "first_T1.nii.gz, second_T1.nii.gz" in words
    assert not (tmp_path / "out" / "datalist.json").exists() and (tmp_path / "out" / "qc.html").is_file()


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"source": None}, "no cohort was given"),
        ({"source": "nowhere"}, "no such folder or datalist"),
        ({"folder": None}, "no folder for the results"),
        ({"folder": "inside"}, "must not lie in the cohort"),
        ({"folder": "foreign"}, "would be replaced"),
        ({"folder": "below a file"}, "output_dir: nothing can be written here"),
        ({"registration": "affine"}, "allowed: rigid, none"),
        ({"spacing_mm": [1, 1]}, "[H, W, slice]"),
        ({"workers": 0}, "workers"),
        ({"validation_fraction": 1}, "validation_fraction"),
        ({"least_overlap": "much"}, "numbers are needed"),
    ],
)
def test_settings_that_cannot_be_used(settings, words, cohort_folder, tmp_path, capsys):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "datalist.json").write_text("{}")
    folders = {"inside": cohort_folder / "out", "foreign": tmp_path / "foreign", None: None, "out": tmp_path / "out"}
    folders["below a file"] = tmp_path / "foreign" / "datalist.json" / "out"
    settings = {"source": cohort_folder, "folder": "out", **settings}
    source, folder = settings.pop("source"), folders[settings.pop("folder")]
    assert words in refusal(capsys, source, folder, **settings)
    assert not (tmp_path / "out").exists() and not (cohort_folder / "out").exists()


def test_a_result_of_ours_is_not_trained_on(small_cohort, tmp_path, coarse):
    shutil.copytree(small_cohort.parent / "p2", tmp_path / "in" / "p2")
    image = nib.load(small_cohort.parent / "p1" / "CT.nii.gz")
    image.header["descrip"] = b"SYNTHETIC Any2all CT mean"
    nib.save(image, tmp_path / "in" / "p2" / "CT.nii.gz")
    made = prepare(tmp_path / "in", tmp_path / "out").parent
    (subject,) = report(made)["subjects"]
    assert "CT" not in subject["modalities"] and "not an acquired image" in subject["refused"]["CT"]
