"""The module's NIfTI against nibabel's: what one writes the other reads, on any grid."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import lib_path  # noqa: F401  (makes Any2allLib importable)
from Any2allLib import nifti

nib = pytest.importorskip("nibabel", reason="nibabel is of the server's environment")


def random_grid(random: np.random.Generator) -> np.ndarray:
    """IJK to RAS: any rotation, every second one left-handed, any spacing and place."""
    rotation = np.linalg.qr(random.normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag(random.uniform(0.3, 6, 3))
    affine[:3, 3] = random.uniform(-300, 300, 3)
    return affine


@pytest.mark.parametrize("kind", sorted(nifti.CODES))
def test_nibabel_reads_what_we_write(tmp_path, kind):
    random = np.random.default_rng(len(kind))
    for _ in range(20):
        affine, array = random_grid(random), random.integers(0, 100, (4, 5, 6)).astype(kind)
        assert list(nifti.written(tmp_path / "v.nii.gz", array, affine))[-1] == 1.0
        image = nib.load(tmp_path / "v.nii.gz")
        assert image.get_data_dtype() == kind and image.header.get_xyzt_units()[0] == "mm"
        assert not image.header.extensions and not bytes(image.header["descrip"]).strip(b"\0")
        np.testing.assert_array_equal(np.asarray(image.dataobj).T, array)
        for form in (image.get_sform(coded=True), image.get_qform(coded=True)):
            assert form[1] == 1
            np.testing.assert_allclose(form[0], affine, atol=1e-4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("form", ["sform", "qform"])
def test_we_read_what_nibabel_writes(tmp_path, order, form):
    random = np.random.default_rng(5)
    for _ in range(20):
        affine, array = random_grid(random), random.normal(size=(4, 5, 6)).astype("float32")
        image = nib.Nifti1Image(array.T, None, nib.Nifti1Header(endianness=order))
        getattr(image, f"set_{form}")(affine, 1)
        image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b'{"any2all": {}}'))
        nib.save(image, tmp_path / "v.nii.gz")
        found, place = nifti.read(tmp_path / "v.nii.gz")
        np.testing.assert_array_equal(found, array)
        np.testing.assert_allclose(place, affine, atol=1e-4)


def test_a_slope_is_applied(tmp_path):
    image = nib.Nifti1Image(np.arange(24, dtype="int16").reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(0.5, -3)
    nib.save(image, tmp_path / "v.nii")
    found, _ = nifti.read(tmp_path / "v.nii")
    np.testing.assert_allclose(found, np.asarray(nib.load(tmp_path / "v.nii").dataobj).T)
