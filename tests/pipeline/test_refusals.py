"""Everything that is refused, end to end: in words that name the key, and with nothing written."""

import errno

import nibabel as nib
import numpy as np
import pytest
from any2all.errors import Any2allError

GIVEN = {"status": "available", "file": "T1.nii.gz"}


def edit(*path_and_value):
    *path, last, value = path_and_value

    def change(desk):
        node = desk.document
        for key in path:
            node = node[key]
        node[last] = value

    return change


def replace_image(make):
    def change(desk):
        image = desk.image("T1")
        nib.save(make(image.get_fdata(dtype=np.float32), image.affine), desk.folder / "T1.nii.gz")

    return change


def one_nan(data, affine):
    data[30, 30, 5] = np.nan
    return nib.Nifti1Image(data, affine)


def far_away(data, affine):
    shifted = affine.copy()
    shifted[:3, 3] += (900, 0, 0)
    return nib.Nifti1Image(data, shifted)


def truncated(desk):
    file = desk.folder / "T1.nii.gz"
    file.write_bytes(file.read_bytes()[:-2000])


def garbage(desk):
    (desk.folder / "T1.nii.gz").write_bytes(b"this is no image at all" * 50)


def outside(desk):
    (desk.folder.parent / "study" / "inner").mkdir()
    edit("modalities", "T1", "file", "../out_of_here.nii.gz")(desk)


def nothing_given(desk):
    desk.only(T1={"status": "missing"})


def raw_ct(desk):
    simulated = {"status": "undersampled", "file": "T1.nii.gz", "simulate": {"acceleration": 4}}
    desk.only(T1=GIVEN, CT=simulated)


REFUSED = {
    "unknown modality": (edit("modalities", "T3", GIVEN), "modalities.T3", "unknown modality"),
    "unknown status": (edit("modalities", "T1", "status", "blurry"), "modalities.T1.status", "allowed: available"),
    "blurred by what": (edit("modalities", "T1", "status", "blurred"), "modalities.T1.psf_fwhm_mm", "needs this key"),
    "unknown key": (edit("modalities", "T1", "fiel", "T1.nii.gz"), "modalities.T1.fiel", "unknown key"),
    "unknown key at the top": (edit("preste", "fast"), "preste", "unknown key"),
    "missing file": (edit("modalities", "T1", "file", "t1.nii.gz"), "modalities.T1.file", "does not exist"),
    "path outside": (outside, "modalities.T1.file", "leaves the study's folder"),
    "absolute path": (edit("modalities", "T1", "file", "/etc/passwd"), "modalities.T1.file", "relative path"),
    "4-D file": (
        replace_image(lambda d, a: nib.Nifti1Image(np.stack([d, d], axis=-1), a)), "modalities.T1.file", "3-D",
    ),
    "NaN": (replace_image(one_nan), "modalities.T1.file", "NaN"),
    "constant": (replace_image(lambda d, a: nib.Nifti1Image(0 * d + 7, a)), "modalities.T1.file", "constant"),
    "no overlap": (replace_image(far_away), "modalities.", "overlap"),
    "truncated": (truncated, "modalities.T1.file", "read"),
    "no image": (garbage, "modalities.T1.file", "read"),
    "undersampled CT": (raw_ct, "modalities.CT.status", "never measured as raw data"),
    "nothing given": (nothing_given, "modalities", "generate"),
    "more than 1000 steps": (edit("sampler", "steps", 1001), "sampler.steps", "1000"),
    "few steps on raw data": (edit("sampler", "steps", 3), "sampler.steps", "at least 5"),
    "an output that is given": (edit("outputs", ["T1"]), "outputs.0", "given"),
    "reference without a grid": (edit("reference", "CT"), "reference", "missing modality"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_words_and_nothing_written(desk, case):
    change, key, words = REFUSED[case]
    change(desk)
    with pytest.raises(Any2allError) as caught:
        desk.run()
    assert caught.value.key.startswith(key), caught.value
    assert words in str(caught.value), caught.value
    assert "\n" not in caught.value.sentence() and desk.untouched


def test_a_study_that_is_no_json_is_refused(desk):
    from any2all.pipeline import run_study

    (desk.folder / "study.json").write_text('{"version": 1, ')
    with pytest.raises(Any2allError, match="not readable as JSON"):
        run_study(desk.folder / "study.json", desk.prior, desk.out)
    assert desk.untouched


def test_a_full_disk_is_said_and_leaves_nothing(desk, monkeypatch):
    save, calls = nib.save, []

    def second_file_does_not_fit(image, path):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(image, path)

    monkeypatch.setattr("any2all.output.volumes.nib.save", second_file_does_not_fit)
    with pytest.raises(Any2allError, match="No space left") as caught:
        desk.run()
    assert caught.value.code == "storage" and caught.value.key == "output_dir" and desk.untouched


def test_results_are_not_replaced_unasked_and_the_work_does_not_even_start(desk):
    desk.run()
    before = (desk.out / "summary.json").read_bytes()
    (desk.folder / "T1.nii.gz").unlink()
    (desk.folder / "T1.nii.gz").write_bytes(b"no image")
    with pytest.raises(Any2allError, match="already holds results"):
        desk.run()
    with pytest.raises(Any2allError, match="read"):
        desk.run(overwrite=True)
    assert (desk.out / "summary.json").read_bytes() == before


def test_mcs_on_a_shared_prior_is_refused(desk):
    desk.prior.noise_levels = "shared"
    with pytest.raises(Any2allError, match="one noise level") as caught:
        desk.run()
    assert caught.value.key == "sampler.name" and desk.untouched
