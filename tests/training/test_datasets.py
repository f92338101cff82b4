"""Real stacks on the prior's grid: the head is whole, and what cannot be used is named by its file."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from any2all.errors import Any2allError
from any2all.geometry import Volume
from any2all.geometry.reading import read_volume
from any2all.output.volumes import save_volume
from any2all.stack import load_stack
from any2all.training.datasets import StackCohort, load_fitted_stack

STACK = load_stack()
SPACING, MATRIX = (4.0, 4.0, 6.0), (64, 64)


def padded(source: Path, target: Path, left: int, front: int) -> Path:
    """The image with air on one side of it, whose voxels stay where they are in the world; R, A, S."""
    image = nib.load(source)
    air = ((0, left), (0, front), (0, 0))
    data = np.pad(np.asarray(image.dataobj), air, constant_values=float(np.asarray(image.dataobj).min()))
    target.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, image.affine), target)
    return target


@pytest.mark.parametrize("name", ["T1", "CT"])
def test_a_head_beside_the_middle_of_its_field_of_view_is_not_cut(name, small_cohort, tmp_path):
    source = small_cohort.parent / "p1" / f"{name}.nii.gz"
    aside = padded(source, tmp_path / f"{name}.nii.gz", left=24, front=16)
    alone, beside = (load_fitted_stack({name: str(f)}, STACK, SPACING, MATRIX)["image"] for f in (source, aside))
    assert beside.shape == alone.shape == (len(alone), 6, *MATRIX)
    m = STACK.index(name)
    shown, whole = ((image[:, m] > -0.9).sum(dim=(1, 2)) for image in (beside, alone))
    assert (shown >= 0.97 * whole).all()


def test_a_head_larger_than_the_matrix_is_cut_on_both_sides(small_cohort):
    entry = {"T1": str(small_cohort.parent / "p1" / "T1.nii.gz")}
    image, wider = (load_fitted_stack(entry, STACK, SPACING, size)["image"] for size in ((32, 32), MATRIX))
    assert torch.equal(image, wider[:, :, 16:48, 16:48])


def test_what_cannot_be_used_is_named_by_its_file(small_cohort, tmp_path):
    source = small_cohort.parent / "p1" / "T1.nii.gz"
    (tmp_path / "p7").mkdir()
    file = tmp_path / "p7" / "T1.nii.gz"
    with pytest.raises(Any2allError, match=f"^{file}: the file does not exist"):
        StackCohort([{"T1": str(source)}, {"T1": str(file)}], STACK, MATRIX, SPACING)
    volume = read_volume(source, "T1")
    nib.save(nib.Nifti1Image(-volume.data - 1, volume.grid.affine), file)
    with pytest.raises(Any2allError, match=f"^{file}: no head was found"):
        load_fitted_stack({"T1": str(file)}, STACK, SPACING, MATRIX)
    origin = {"role": "synthetic", "modality": "T1", "statistic": "mean"}
    save_volume(file, Volume(volume.data, volume.grid), origin)
    with pytest.raises(Any2allError, match=f"^{file}: this is a result of Any2all"):
        load_fitted_stack({"T1": str(file)}, STACK, SPACING, MATRIX)


def test_a_subject_with_next_to_no_head_is_refused(small_cohort, tmp_path):
    image = nib.load(small_cohort.parent / "p1" / "T1.nii.gz")
    data = np.zeros_like(np.asarray(image.dataobj))
    data[30:34, 30:34, 4:8] = 500.0  # 16 mm
    nib.save(nib.Nifti1Image(data, image.affine), tmp_path / "T1.nii.gz")
    with pytest.raises(Any2allError, match="T1.nii.gz: there is next to no head in this subject"):
        StackCohort([{"T1": str(tmp_path / "T1.nii.gz")}], STACK, MATRIX, SPACING)
