"""Files as they are given: results of ours are refused, and so is a file that is exchanged while it is read."""

import shutil

import pytest
from any2all import pipeline
from any2all.diffusion.prior import file_sha256
from any2all.errors import Any2allError
from any2all.geometry import read_volume
from any2all.output.volumes import save_volume
from any2all.run import Run

GIVEN = {"status": "available", "file": "T1.nii.gz"}


def result_of_ours(file, name, role="synthetic"):
    save_volume(file, read_volume(file, name), {"role": role, "modality": name, "statistic": "mean"})


@pytest.mark.parametrize(
    ("entry", "role"),
    [
        ({"status": "available"}, "synthetic"),
        ({"status": "available"}, "reconstructed"),
        ({"status": "undersampled", "simulate": {"acceleration": 4}}, "synthetic"),
        ({"status": "noisy", "noise_std": 10.0}, "synthetic"),
    ],
)
def test_a_result_of_ours_is_no_acquired_image(desk, entry, role):
    result_of_ours(desk.folder / "T2FLAIR.nii.gz", "T2FLAIR", role)
    desk.only(T1=GIVEN, T2FLAIR={**entry, "file": "T2FLAIR.nii.gz"})
    with pytest.raises(Any2allError, match="result of Any2all, not an acquired image") as refused:
        desk.run()
    assert refused.value.key == "modalities.T2FLAIR.file" and refused.value.value == "T2FLAIR.nii.gz"
    assert desk.untouched


def test_checksums_are_those_of_what_was_read(desk):
    """A file that is exchanged after it was read, while the sampler works, changes nothing."""
    read = file_sha256(desk.folder / "T1.nii.gz")

    def exchange(stage, done, total):
        if stage == "sampling":
            shutil.copy(desk.folder / "T2FLAIR.nii.gz", desk.folder / "T1.nii.gz")

    desk.only(T1=GIVEN)
    result = desk.run(Run(progress=exchange))
    assert file_sha256(desk.folder / "T1.nii.gz") != read
    assert result.provenance["inputs_sha256"] == {"T1.nii.gz": read}


def test_a_file_that_cannot_be_read_is_named(desk, monkeypatch):
    def closed(file):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr("any2all.given.file_sha256", closed)
    desk.only(T1=GIVEN)
    with pytest.raises(Any2allError, match="the file cannot be read: Permission denied") as refused:
        desk.run()
    assert (refused.value.key, refused.value.value) == ("modalities.T1", "T1.nii.gz") and desk.untouched


@pytest.mark.parametrize("change", ["exchanged", "removed"])
def test_a_file_that_changes_while_it_is_read_is_refused(desk, monkeypatch, change):
    read_inputs = pipeline.read_inputs

    def disturbed(spec, stack):
        inputs = read_inputs(spec, stack)
        if change == "removed":
            (desk.folder / "T1.nii.gz").unlink()
        else:
            desk.rewrite("T1", lambda data: data + 1)
        return inputs

    monkeypatch.setattr(pipeline, "read_inputs", disturbed)
    desk.only(T1=GIVEN)
    with pytest.raises(Any2allError, match="changed or removed while the study was read") as refused:
        desk.run()
    assert refused.value.value == "T1.nii.gz" and desk.untouched


def test_slicers_copies_of_results_are_told_by_their_names(desk):
    match = desk.prior.stack.match
    for name in ("CT · synthesised · Any2all.nii.gz", "CT  synthesised  Any2all cropped.nrrd", "any2all_T1.mha"):
        assert match(name) is None
    assert match("CT_Any2allowed.nii.gz") == "CT" and match("ct_std.nii.gz") == "CT"
