"""From a folder to study folders: names, privacy, resuming, commands, and a cohort that is prepared from DICOM."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pydicom
import pytest
from any2all.dicom import scan, studies_from
from any2all.dicom.privacy import naming_words, without_names
from any2all.errors import Any2allError
from any2all.preparation import find_subjects
from any2all.preparation.conversion import CONVERTED, from_dicom
from any2all.stack import load_stack
from any2all.study import load_study
from dicom_builders import (
    CT,
    FLAIR,
    MPRAGE,
    NAME,
    NUMBER,
    OBLIQUE,
    PERSON,
    PET,
    classic,
    enhanced_mr,
    pattern,
    ras,
    save,
    write_all,
)
from head_builders import head_series
from monai.bundle import ConfigWorkflow

STACK = load_stack()
CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"


def run_config(name: str, run: str = "run", **settings):
    made = ConfigWorkflow(str(CONFIGS / name), workflow_type="train", run_id=run, **settings)
    made.initialize()
    return made.run()


@pytest.fixture
def mixed(tmp_path):
    """Two patients' series in one heap, with what does not belong there."""
    heap = tmp_path / f"{NAME.split('^')[0]}_{NUMBER}"
    write_all(classic("MR", pattern(), OBLIQUE, {**MPRAGE, "SeriesNumber": 2}), heap / "a")
    save(enhanced_mr(pattern(seed=2), OBLIQUE, lambda k: (2.0, 1.0)), heap / "a" / "multi")
    named = {**CT, "SeriesNumber": 4, "SeriesDescription": f"Head {NUMBER} {NAME.split('^')[0]}"}
    write_all(classic("CT", pattern(seed=3), OBLIQUE, named, lambda k: (1.0, -1024.0)), heap / "b")
    late = {"PatientID": "ZZ9", "PatientName": "Someone^Else"}
    write_all(classic("PT", pattern(seed=4), OBLIQUE, PET, lambda k: (1.0 + k, 0.0), **late), heap / "c" / "d")
    (heap / "readme.txt").write_text(f"{NAME} was here " * 20)
    return heap


def test_mixed_patients_and_kinds_become_studies(mixed, tmp_path):
    first, second = studies_from(mixed, STACK, tmp_path / "out")
    assert (first.subject, list(first.files)) == ("subject01", ["T1", "T2FLAIR", "CT"])
    assert (second.subject, list(second.files)) == ("subject02", ["PET"])
    spec = load_study(first.folder / "study.json", STACK)
    assert spec.subject == "subject01" and spec.available == ("T1", "T2FLAIR", "CT")
    image = nib.load(first.files["T2FLAIR"])
    assert np.array_equal(np.asarray(image.dataobj), pattern(seed=2) * 2.0 + 1.0)
    assert np.abs(image.affine - ras(OBLIQUE)).max() < 1e-4
    rows = json.loads((first.folder / "series.json").read_text())["series"]
    assert [row["verdict"] for row in rows] == ["taken"] * 3
    assert {row["modality"]: row["units"] for row in rows} == {"T1": "a.u.", "T2FLAIR": "a.u.", "CT": "HU"}


def test_no_file_names_the_patient(mixed, tmp_path, capsys):
    made = studies_from(mixed, STACK, tmp_path / "out")
    naming = {part for value in PERSON.values() for part in value.split("^") if len(part) > 3} - {PERSON["StudyTime"]}
    naming |= {"Someone", "Else", "ZZ9", str(mixed)}
    written = [file for one in made for file in one.folder.iterdir()]
    assert len(written) == 3 + 1 + 2 * 4
    for file in written:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        assert not [word for word in naming if word.lower().encode() in content.lower()], file.name
    rows = json.loads((made[0].folder / "series.json").read_text())["series"]
    assert rows[-1]["description"] == "Head *** ***"
    with_uids = [
        file.name for file in written if pydicom.uid.UID(scan(mixed).series[0].uid).encode() in file.read_bytes()
    ]
    assert with_uids == ["dicom_source.json"]


def test_a_short_name_in_ideographs_is_taken_out_too():
    one = SimpleNamespace(header={**PERSON, "PatientName": "Wang^Li=王^丽"})
    assert without_names("Head 王丽 T1", naming_words([one])) == "Head ****** T1"


def test_a_finished_subject_is_kept_and_a_changed_one_is_not(mixed, tmp_path):
    out = tmp_path / "out"
    before = studies_from(mixed, STACK, out)[0].files["T1"].stat().st_mtime_ns
    again = studies_from(mixed, STACK, out)
    assert all(one.resumed for one in again) and again[0].files["T1"].stat().st_mtime_ns == before
    first, second = studies_from(mixed, STACK, out, {"2": None})
    assert not first.resumed and list(first.files) == ["T2FLAIR", "CT"] and not (first.folder / "T1.nii.gz").exists()
    again[1].files["PET"].unlink()
    assert [one.resumed for one in studies_from(mixed, STACK, out, {"2": None})] == [True, False]
    assert not list(out.glob(".*"))


def test_an_edited_study_is_kept_beside_the_new_one(mixed, tmp_path):
    out = tmp_path / "out"
    first = studies_from(mixed, STACK, out)[0]
    edited = first.folder / "study.json"
    for number, name in (("1", "study_edited.json"), ("2", "study_edited_2.json")):
        words = edited.read_text().replace('"available"', '"missing"', 1)
        edited.write_text(words)
        again = studies_from(mixed, STACK, out, {number: None})[0]
        assert not again.resumed and any(name in warning for warning in again.warnings)
        assert (first.folder / name).read_text() == words and edited.read_text() != words
    assert studies_from(mixed, STACK, out, {"2": None})[0].resumed and (first.folder / "study_edited.json").is_file()


def test_a_patient_keeps_the_number_when_others_join_or_leave(tmp_path):
    def series(name: str, where: str) -> None:
        person = {"PatientID": name, "PatientName": name}
        slices = classic("MR", pattern(seed=len(name)), OBLIQUE, MPRAGE, uid=f"1.2.{ord(name[0])}", **person)
        write_all(slices, tmp_path / "in" / where)

    def numbers() -> dict[str, str]:
        made = studies_from(tmp_path / "in", STACK, tmp_path / "out")
        uids = {one.subject: json.loads((one.folder / "dicom_source.json").read_text()) for one in made}
        return {document["modalities"]["T1"]["series_uid"]: name for name, document in uids.items()}

    series("b", "b")
    series("d", "d")
    assert numbers() == {"1.2.98": "subject01", "1.2.100": "subject02"}
    series("a", "a")  # before both by the names of the files
    assert numbers() == {"1.2.97": "subject03", "1.2.98": "subject01", "1.2.100": "subject02"}
    shutil.rmtree(tmp_path / "in")
    series("c", "c")  # another cohort into the same folder
    assert numbers() == {"1.2.99": "subject04"}
    (tmp_path / "in" / "readme").write_bytes(b"")
    first = next((tmp_path / "in" / "c").iterdir())
    shutil.copy(first, tmp_path / "in" / "top")
    converted = tmp_path / "cohort" / CONVERTED
    shutil.copytree(tmp_path / "out" / "subject04", converted / "subject09")
    assert [one.name for one in find_subjects(tmp_path / "in", STACK, converted)] == ["subject09"]


def test_one_patient_is_told_by_whatever_way_the_name_is_written(tmp_path):
    for where, name in (("a", "Doe^John"), ("b", "DOE^JOHN^^^")):
        tags = {**(MPRAGE if where == "a" else FLAIR), "SeriesNumber": ord(where)}
        write_all(classic("MR", pattern(), OBLIQUE, tags, PatientName=name), tmp_path / "in" / where)
    (made,) = studies_from(tmp_path / "in", STACK, tmp_path / "out")
    assert list(made.files) == ["T1", "T2FLAIR"]


def test_nameless_examinations_are_not_put_together(tmp_path):
    for visit in ("1", "2"):
        tags = {**(MPRAGE if visit == "1" else FLAIR), "SeriesNumber": int(visit), "StudyInstanceUID": f"1.2.{visit}"}
        person = {"PatientID": "", "PatientName": "Anonymous"}
        write_all(classic("MR", pattern(), OBLIQUE, tags, uid=f"1.2.{visit}.1", **person), tmp_path / "in" / visit)
    with pytest.raises(Any2allError, match="nobody can tell whose they are; got '2 Study Instance UIDs'"):
        studies_from(tmp_path / "in", STACK, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (made,) = studies_from(tmp_path / "in", STACK, tmp_path / "out", subject="p1")  # somebody who knows
    assert list(made.files) == ["T1", "T2FLAIR"] and any("examinations" in words for words in made.warnings)


@pytest.mark.parametrize("name", ["study.json", "summary.json"])
def test_a_folder_that_no_conversion_made_is_not_replaced(mixed, tmp_path, name):
    (tmp_path / "out" / "p1").mkdir(parents=True)
    there = tmp_path / "out" / "p1" / name
    there.write_text('{"any2all_summary": 1, "files": ["summary.json"], "provenance": {}}')
    shutil.rmtree(mixed / "c")
    with pytest.raises(Any2allError, match=f"would be replaced; got '{name}'"):
        studies_from(mixed, STACK, tmp_path / "out", subject="p1")
    assert [path.name for path in there.parent.iterdir()] == [name]


def test_the_command_converts_and_writes_back(mixed, tmp_path, capsys):
    overrides = tmp_path / "overrides.json"
    overrides.write_text('{"4": null}')
    run_config("dicom.json", source=str(mixed), output_dir=str(tmp_path / "out"), overrides=str(overrides))
    said = capsys.readouterr()
    assert "subject01: T1, T2FLAIR; study.json and series.json are in" in said.out
    assert "warning: subject02: PET: the image is in SUV" in said.err


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "source: no DICOM folder was given"),
        ({"source": "/nowhere"}, "there is no such folder"),
        ({"source": "HERE"}, "there is no DICOM image in this folder"),
        ({"source": "HERE", "overrides": "/nowhere.json"}, "the overrides cannot be read"),
    ],
)
def test_the_commands_errors_are_one_line(tmp_path, capsys, settings, words):
    settings = {key: str(tmp_path) if value == "HERE" else value for key, value in settings.items()}
    with pytest.raises(SystemExit) as left:
        run_config("dicom.json", output_dir=str(tmp_path.parent / f"{tmp_path.name}_out"), **settings)
    said = capsys.readouterr().err.strip().splitlines()
    assert left.value.code == 2 and len(said) == 1 and said[0].startswith("error: ") and words in said[0]


def test_an_override_of_no_series_in_the_folder_is_refused(mixed, tmp_path, capsys):
    settings = {"source": str(mixed), "output_dir": str(tmp_path / "out")}
    with pytest.raises(SystemExit) as left:
        run_config("dicom.json", **settings, overrides={"4": None, "99": "T2"})
    line = capsys.readouterr().err.strip()
    assert left.value.code == 2 and line.startswith("error: overrides.99: no series here") and "numbers 1, 2" in line
    assert not (tmp_path / "out").exists()


def test_inference_writes_series_beside_its_results(phantom_files, tiny_model_file, tmp_path, capsys):
    head_series(phantom_files, tmp_path / "in")
    (made,) = studies_from(tmp_path / "in", STACK, tmp_path / "studies", subject="p01")
    document = json.loads((made.folder / "study.json").read_text())
    document |= {"outputs": ["T2", "CT"], "sampler": {"steps": 2, "samples": 2}}
    (made.folder / "study.json").write_text(json.dumps(document))
    settings = {"study": str(made.folder / "study.json"), "output_dir": str(tmp_path / "results")}
    settings |= {"model_file": str(tiny_model_file), "dicom": "true", "dicom_dir": str(tmp_path / "in")}
    workflow = ConfigWorkflow(str(CONFIGS / "inference.json"), workflow_type="infer", **settings)
    workflow.initialize()
    workflow.run()
    for name in ("T2", "T2_std", "CT", "CT_std"):
        found = [pydicom.dcmread(file) for file in sorted((tmp_path / "results" / "dicom" / name).glob("*.dcm"))]
        assert len(found) == 12 and found[0].PatientID == NUMBER
        image = nib.load(tmp_path / "results" / f"{name}.nii.gz")
        planes = [one.pixel_array.T * float(one.RescaleSlope) + float(one.RescaleIntercept) for one in found]
        limit = 0.5 * float(found[0].RescaleSlope) * (1 + 1e-6)
        assert np.abs(np.stack(planes, axis=2) - np.asarray(image.dataobj)).max() <= limit
        assert len(found[0].SourceImageSequence) == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dicom_dir": "FILES"}, "dicom_dir: DICOM files are only used where series are asked for"),
        ({"dicom": "maybe"}, "dicom: "),
        ({"dicom": "true", "dicom_dir": "FILES"}, "only where dicom_source.json lies beside the study"),
        ({"dicom": "true", "dicom_dir": "OTHER", "source": "OURS"}, "the series that the study came from is not in"),
        ({"dicom": "true", "dicom_dir": "/nowhere", "source": "OURS"}, "there is no such folder"),
        ({"dicom": "true", "source": "OURS", "source_text": "{}"}, "this is no dicom_source.json"),
        ({"dicom": "true", "overwrite": "true", "foreign": "notes.txt"}, "the folder is in use"),
    ],
)
def test_series_that_cannot_be_written_are_refused_before_anything_is_sampled(
    phantom_files, tiny_model_file, tmp_path, capsys, settings, words
):
    files, other, results = tmp_path / "in", tmp_path / "other", tmp_path / "results"
    head_series(phantom_files, files)
    head_series(phantom_files, other, ("T2FLAIR",))
    (made,) = studies_from(files, STACK, tmp_path / "studies", subject="p01")
    source = made.folder / "dicom_source.json"
    if "source_text" in settings:
        source.write_text(settings["source_text"])
    elif "source" not in settings:
        source.unlink()
    if "foreign" in settings:
        (results / "dicom").mkdir(parents=True)
        (results / "dicom" / settings["foreign"]).write_text("mine")
    known = {"FILES": str(files), "OTHER": str(other)}
    keys = ("dicom", "dicom_dir", "overwrite")
    given = {key: known.get(value, value) for key, value in settings.items() if key in keys}
    study, model = str(made.folder / "study.json"), str(tiny_model_file)
    with pytest.raises(SystemExit) as left:
        run_config("inference.json", study=study, output_dir=str(results), model_file=model, **given)
    said = capsys.readouterr().err.strip().splitlines()
    assert left.value.code == 2 and len(said) == 1 and said[0].startswith("error: ") and words in said[0]
    assert not list(results.glob("*.nii.gz"))


def test_the_patient_is_taken_from_any_series_of_the_study(phantom_files, tiny_model_file, tmp_path, capsys):
    """The folder that is given holds T2FLAIR; the results lie on T1."""
    head_series(phantom_files, tmp_path / "in", ("T1", "T2FLAIR"))
    (made,) = studies_from(tmp_path / "in", STACK, tmp_path / "studies", subject="p01")
    settings = {"study": str(made.folder / "study.json"), "output_dir": str(tmp_path / "out"), "outputs": ["CT"]}
    settings |= {"model_file": str(tiny_model_file), "preset": "fast"}
    run_config("inference.json", dicom="true", dicom_dir=str(tmp_path / "in" / "T2FLAIR"), **settings)
    first = pydicom.dcmread(next((tmp_path / "out" / "dicom" / "CT").glob("*.dcm")))
    assert first.PatientID == NUMBER
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run_config("inference.json", overwrite="true", **settings)
    assert "series of the results that are being replaced would stay" in capsys.readouterr().err
    run_config("inference.json", overwrite="true", dicom="true", **settings)
    assert (tmp_path / "out" / "dicom" / "CT").is_dir()


def test_a_cohort_of_dicom_is_prepared_and_refusals_reach_the_page(phantom_files, tmp_path, monkeypatch):
    monkeypatch.setattr("any2all.registration.WORKING_MM", 4.0)
    cohort = tmp_path / "cohort"
    head_series(phantom_files, cohort / "p1", ("T1", "T2FLAIR"))
    head_series(phantom_files, cohort / "p2", ("T1", "T2FLAIR"), drop={"T2FLAIR": 4})
    head_series(phantom_files, cohort / "two", ("T1",))
    head_series(phantom_files, cohort / "two" / "more", ("T1",), PatientID="B", PatientName="B")
    assert [subject.dicom for subject in find_subjects(cohort, STACK)] == [
        (cohort / name,) for name in ("p1", "p2", "two")
    ]
    out = tmp_path / "out"
    run_config("prepare.json", source=str(cohort), output_dir=str(out), validation_fraction=0, workers=2)
    entries = json.loads((out / "datalist.json").read_text())["training"]
    assert [sorted(entry) for entry in entries] == [["T1", "T2FLAIR"], ["T1"]]
    page = (out / "qc.html").read_text()
    assert "p2: T2FLAIR: series 2: 1 slice is missing" in page and "the files are of several patients" in page
    assert (out / CONVERTED / "p1" / "series.json").is_file()
    report = json.loads((out / "report.json").read_text())["subjects"]
    assert [record["resumed"] for record in report] == [False] * 3
    run_config("prepare.json", source=str(cohort), output_dir=str(out), validation_fraction=0, workers=1)
    report = json.loads((out / "report.json").read_text())["subjects"]
    assert [record["resumed"] for record in report] == [True, True, False]


def test_a_heap_of_patients_is_a_cohort_too(mixed, tmp_path):
    (mixed / "top.dcm").write_bytes((mixed / "a" / "multi").read_bytes())
    subjects = find_subjects(mixed, STACK)
    assert [subject.name for subject in subjects] == ["subject01", "subject02"]
    made = from_dicom(subjects[1], tmp_path / "out", STACK)
    assert list(made.files) == ["PET"] and any("in SUV" in warning for warning in made.warnings)
    flair_only = classic("MR", pattern(), OBLIQUE, {**FLAIR, "SeriesDescription": "perf", "EchoTime": 50.0})
    write_all(flair_only, tmp_path / "c" / "p1")
    (subject,) = find_subjects(tmp_path / "c", STACK)
    refused = from_dicom(subject, tmp_path / "out2", STACK).refused
    assert "no DICOM series of it is a modality of the stack: series 1" in refused["p1"]


def test_dicom_beside_other_images_is_read_or_its_absence_said(tmp_path):
    for name in ("p1", "p2"):
        write_all(classic("MR", pattern(), OBLIQUE, MPRAGE), tmp_path / "c" / name / "dicom")
    for file in ("p1/lesions.nii.gz", "p2/T1.nii.gz"):
        nib.save(nib.Nifti1Image(pattern().astype(np.int16), np.eye(4)), tmp_path / "c" / file)
    with_mask, with_image = find_subjects(tmp_path / "c", STACK)
    assert not with_mask.files and with_mask.dicom == (tmp_path / "c" / "p1",)
    made = from_dicom(with_mask, tmp_path / "out", STACK)
    assert list(made.files) == ["T1"] and "lesions.nii.gz" in made.ignored
    assert list(with_image.files) == ["T1"] and not with_image.dicom
    assert "DICOM files are not read" in with_image.warnings[0]
