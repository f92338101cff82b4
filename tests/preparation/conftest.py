"""A toy cohort in folders, and the helper modules of the training and DICOM rooms."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

sys.path[:0] = [str(Path(__file__).parents[1] / room) for room in ("training", "dicom")]


def turned(source: Path, target: Path) -> None:
    """The same voxels, of which the header says that the head lay elsewhere."""
    image = nib.load(source)
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", (6, -4, 9), degrees=True).as_matrix()
    motion[:3, 3] = 9, -6, 5
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), motion @ image.affine), target)


@pytest.fixture(scope="session")
def cohort_folder(small_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """anna (complete), <ben> (T1, T2FLAIR and a mask), cleo (T1, and a T2FLAIR on another grid), dan (refused)."""
    folder, phantoms = tmp_path_factory.mktemp("source") / "cohort", small_cohort.parent
    shutil.copytree(phantoms / "p1", folder / "anna")
    shutil.copytree(phantoms / "p2", folder / "<ben>" / "mr")
    shutil.copy(phantoms / "p1" / "T1.nii.gz", folder / "<ben>" / "lesions.nii.gz")
    (folder / "cleo").mkdir()
    shutil.copy(phantoms / "p3" / "T1.nii.gz", folder / "cleo" / "cleo_t1w.nii.gz")
    turned(phantoms / "p3" / "T2FLAIR.nii.gz", folder / "cleo" / "cleo_t2_flair.nii.gz")
    (folder / "dan").mkdir()
    for name in ("first_T1.nii.gz", "second_T1.nii.gz"):
        shutil.copy(phantoms / "p2" / "T1.nii.gz", folder / "dan" / name)
    shutil.copy(phantoms / "p1" / "T2.nii.gz", folder / "dan" / "CT.nii.gz")
    (folder / "dan" / "PET.nii.gz").write_bytes((phantoms / "p1" / "PET.nii.gz").read_bytes()[:5000])
    return folder
