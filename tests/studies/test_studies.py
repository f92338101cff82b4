"""The study store: who is a subject, what its files are, and names that lead nowhere."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from any2all.errors import Any2allError
from any2all.preparation import find_subjects
from any2all.stack import load_stack
from any2all.studies import StudyFolder
from any2all.study import parse_study

STACK = load_stack()
GIVEN = {"status": "available", "file": "T1.nii.gz"}


def image(path: Path, descrip: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = nib.Nifti1Image(np.arange(8, dtype=np.float32).reshape(2, 2, 2), np.eye(4))
    made.header["descrip"] = descrip
    nib.save(made, path)
    return path


@pytest.fixture
def store(tmp_path: Path) -> StudyFolder:
    """anna (T1, FLAIR), ben (a study.json); beside the root lies a folder that nobody may reach."""
    root = tmp_path / "store"
    image(root / "anna" / "anna_t1w.nii.gz")
    image(root / "anna" / "mr" / "anna_FLAIR.nii")
    image(root / "ben" / "T1.nii.gz")
    (root / "ben" / "study.json").write_text(json.dumps({"subject": "other", "modalities": {"T1": GIVEN}}))
    image(tmp_path / "secret" / "T1.nii.gz")
    (tmp_path / "secret" / "summary.json").write_text("{}")
    return StudyFolder(root, STACK)


def test_subjects_are_visible_folders_inside(store):
    (store.root / ".hidden").mkdir()
    (store.root / "a+b").mkdir()
    (store.root / ("x" * 65)).mkdir()
    (store.root / "notes.txt").touch()
    (store.root / "away").symlink_to(store.root.parent / "secret")
    (store.root / "itself").symlink_to(".")
    (store.root / "alias").symlink_to("anna")
    assert store.subjects() == ["alias", "anna", "ben"]
    with pytest.raises(Any2allError, match="^studies: there is no such folder"):
        StudyFolder(store.root / "nowhere", STACK)


ATTACKS = [
    "..",
    "../secret",
    "/etc",
    "anna/../../secret",
    "a/b",
    "",
    ".",
    "x\0y",
    "~",
    "anna\n",
    "away",
    "x" * 5000,
    None,
]


@pytest.mark.parametrize("name", ATTACKS, ids=lambda name: repr(name)[:20])
def test_no_subject_leads_out(store, name):
    (store.root / "away").symlink_to(store.root.parent / "secret")
    for reach in (store.folder, store.document, store.results, lambda n: store.results_folder(n, "run")):
        with pytest.raises(Any2allError) as refused:
            reach(name)
        assert (refused.value.code, refused.value.key) == ("unknown_subject", "subject")
        assert len(refused.value.sentence()) < 200 and "secret" not in refused.value.sentence().replace(str(name), "")
    assert store.modalities(name) == {} and "there is no such subject" in store.problem(name)


@pytest.mark.parametrize("label", [*ATTACKS[:-3], "...", "a b", "ä", "x" * 65, "run\n", "linked", None], ids=repr)
def test_no_label_leads_out(store, label):
    (store.root / "anna" / "any2all-linked").symlink_to(store.root.parent / "secret")
    with pytest.raises(Any2allError) as refused:
        store.results_folder("anna", label)
    assert (refused.value.code, refused.value.key) == ("invalid_label", "label")
    assert store.results("anna") == []


def test_results_lie_beside_the_files(store):
    folder = store.results_folder("anna", "2024-05_fast.v1")
    assert folder == store.root / "anna" / "any2all-2024-05_fast.v1" and not folder.exists()
    for label in ("b", "a", "unfinished"):
        store.results_folder("anna", label).mkdir()
    for label in ("b", "a"):
        (store.results_folder("anna", label) / "summary.json").write_text("{}")
    assert store.results("anna") == ["a", "b"] and store.results("ben") == []


def test_files_become_a_study(store):
    (store.root / "anna" / "anna_T2.h5").touch()
    document = store.document("anna")
    assert document == {
        "version": 1,
        "subject": "anna",
        "modalities": {
            "T1": {"status": "available", "file": "anna_t1w.nii.gz"},
            "T2": {"status": "undersampled", "kspace": "anna_T2.h5"},
            "T2FLAIR": {"status": "available", "file": "mr/anna_FLAIR.nii"},
        },
    }
    spec = parse_study(document, STACK, store.folder("anna"))
    assert spec.available == ("T1", "T2FLAIR") and spec.undersampled == ("T2",) and store.problem("anna") is None
    missing = dict.fromkeys(("T2star", "CT", "PET"), "missing")
    given = {"T1": "available", "T2": "undersampled", "T2FLAIR": "available"}
    assert store.modalities("anna") == given | missing


def test_a_study_file_is_taken_as_it_is_under_the_folders_name(store):
    assert store.document("ben") == {"subject": "ben", "modalities": {"T1": GIVEN}}
    assert parse_study(store.document("ben"), STACK, store.folder("ben")).subject == "ben"
    assert store.problem("ben") is None


def test_results_and_hidden_files_are_no_inputs(store):
    anna = store.root / "anna"
    before = store.document("anna")
    image(anna / "any2all-fast" / "CT.nii.gz")
    image(anna / ".trash" / "T2.nii.gz")
    image(anna / "._anna_t2.nii.gz")
    image(anna / "export" / "anna_CT.nii.gz", "SYNTHETIC Any2all CT mean")
    image(anna / "export" / "anna_T1.nii", "RECONSTRUCTED Any2all T1 mean")
    extended = nib.load(image(anna / "export" / "PET.nii.gz"))
    extended.header.extensions.append(nib.nifti1.Nifti1Extension(6, b'{"any2all": {"role": "synthetic"}}'))
    nib.save(extended, anna / "export" / "PET.nii.gz")
    assert store.document("anna") == before
    image(anna / "CT.nii.gz", "a scanner's own words")
    assert store.document("anna")["modalities"]["CT"]["file"] == "CT.nii.gz"
    (subject,) = (s for s in find_subjects(store.root, STACK) if s.name == "anna")
    assert "any2all-fast/CT.nii.gz" not in str(subject) and "trash" not in str(subject)


def test_two_files_for_one_modality_are_named(store):
    image(store.root / "anna" / "again" / "T1.nii.gz")
    with pytest.raises(Any2allError) as refused:
        store.document("anna")
    assert refused.value.key == "modalities.T1" and "again/T1.nii.gz, anna_t1w.nii.gz" in refused.value.message
    assert "2 files for one modality" in store.problem("anna") and store.modalities("anna") == {}


def broken(text: str | bytes):
    return lambda ben: (ben / "study.json").write_bytes(text if isinstance(text, bytes) else text.encode())


def linked_study(ben: Path) -> None:
    (ben / "study.json").unlink()
    (ben / "study.json").symlink_to(ben.parents[1] / "secret" / "summary.json")


def linked_image(ben: Path) -> None:
    (ben / "study.json").unlink()
    (ben / "T1.nii.gz").unlink()
    (ben / "T1.nii.gz").symlink_to(ben.parents[1] / "secret" / "T1.nii.gz")


def only_a_pipe(ben: Path) -> None:
    for file in ("study.json", "T1.nii.gz"):
        (ben / file).unlink()
        os.mkfifo(ben / file)


def no_files(ben: Path) -> None:
    shutil.rmtree(ben)
    ben.mkdir()


PROBLEMS = {
    "no JSON": (broken("{"), "not readable as JSON"),
    "no text": (broken(b"\xff\xfe\x00"), "not readable as JSON"),
    "no object": (broken("[1]"), "a study is a JSON object"),
    "a key twice": (broken('{"preset": "fast", "preset": "best"}'), "names this key twice"),
    "deep": (broken("[" * 100_000), "not readable as JSON"),
    "unknown key": (broken('{"modality": {}}'), "unknown key"),
    "a path out": (broken('{"modalities": {"T1": {"status": "available", "file": "../anna/x"}}}'), "leaves the study"),
    "study linked out": (linked_study, "no file in the subject's folder"),
    "image linked out": (linked_image, "leaves the study's folder"),
    "a pipe": (only_a_pipe, "no file in the subject's folder"),
    "empty": (no_files, "every modality is missing"),
}


@pytest.mark.parametrize("change, words", PROBLEMS.values(), ids=PROBLEMS)
def test_a_broken_subject_is_listed_with_its_problem(store, change, words):
    change(store.root / "ben")
    problem = store.problem("ben")
    assert words in problem and str(store.root.parent) not in problem and "\n" not in problem
    assert isinstance(store.modalities("ben"), dict) and store.subjects() == ["anna", "ben"]


def test_a_complete_subject_says_that_nothing_is_left(store):
    for name in STACK.names:
        image(store.root / "cleo" / f"{name}.nii.gz")
    assert "nothing is left to fill" in store.problem("cleo")
    assert set(store.modalities("cleo").values()) == {"available"}
