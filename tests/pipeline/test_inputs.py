"""Raw k-space in every format, and an input that has to be registered."""

import json
from dataclasses import replace

import h5py
import nibabel as nib
import numpy as np
import pytest
from any2all.errors import Any2allError
from any2all.geometry import Volume, canonical, read_volume
from any2all.inputs import aligned, read_inputs
from any2all.kspace.simulate import simulate_kspace
from any2all.study import load_study
from scipy.spatial.transform import Rotation

VOXEL_MM = [4.0, 4.0, 6.0]


def write_kspace(file, arrays):
    if file.suffix == ".npy":
        np.save(file, arrays["kspace"])
    elif file.suffix == ".npz":
        np.savez(file, **arrays)
    else:
        with h5py.File(file, "w") as stream:
            for name, value in arrays.items():
                stream[name] = value


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5"])
def test_raw_kspace_of_every_format_becomes_an_image(desk, suffix):
    """Two slices, R = 2 with 16 calibration lines and a smooth phase; nothing but k-space (.npy) or all of it."""
    truth = canonical(read_volume(desk.folder / "T1.nii.gz", "T1")).data[5:7]
    made = simulate_kspace(truth, acceleration=2, acs_lines=24, noise_std=2.0, phase="smooth")
    arrays = {"kspace": made.kspace, "mask": made.mask, "noise_std": 2.0, "voxel_size_mm": VOXEL_MM}
    write_kspace(desk.folder / f"t1{suffix}", arrays)
    entry = {"status": "undersampled", "kspace": f"t1{suffix}"}
    if suffix == ".npy":
        entry["voxel_size_mm"] = VOXEL_MM
    desk.only(T1=entry)
    desk.document["outputs"] = ["T1"]
    result = desk.run()
    grid = canonical(result.outputs[0].mean).grid
    assert grid.spacing_mm == pytest.approx((6, 4, 4)) and grid.shape == (2, 64, 64)
    image = canonical(result.outputs[0].mean).data
    inside = truth > 100
    assert np.corrcoef(image[inside], truth[inside])[0, 1] > 0.95
    assert np.median(image[inside]) == pytest.approx(np.median(truth[inside]), rel=0.1)
    assert any("ESPIRiT" in warning for warning in result.warnings)


def test_raw_kspace_beside_an_image_lies_in_its_world(desk):
    """Without a geometry of its own, k-space is centred on the first image; outputs keep that image's grid."""
    truth = canonical(read_volume(desk.folder / "T2FLAIR.nii.gz", "T2FLAIR"))
    made = simulate_kspace(truth.data, acceleration=1, noise_std=1.0)
    arrays = {"kspace": made.kspace, "mask": made.mask, "coil_maps": made.coil_maps, "noise_std": 1.0}
    write_kspace(desk.folder / "flair.npz", arrays)
    flair = {"status": "undersampled", "kspace": "flair.npz", "voxel_size_mm": VOXEL_MM}
    desk.only(T1={"status": "available", "file": "T1.nii.gz"}, T2FLAIR=flair)
    desk.document |= {"outputs": ["T2FLAIR"], "registration": "none"}
    desk.run()
    error = desk.output("T2FLAIR").get_fdata() - desk.image("T2FLAIR").get_fdata()
    assert desk.output("T2FLAIR").shape == desk.image("T1").shape
    assert np.sqrt((error**2).mean()) < 0.02 * truth.data.max()


def test_raw_kspace_that_knows_no_voxel_size_is_refused(desk):
    made = simulate_kspace(np.ones((1, 32, 32), np.float32), acceleration=1)
    np.save(desk.folder / "t1.npy", made.kspace)
    desk.only(T1={"status": "undersampled", "kspace": "t1.npy"})
    with pytest.raises(Any2allError, match="voxel size") as caught:
        desk.run()
    assert caught.value.key == "modalities.T1.voxel_size_mm" and desk.untouched


def test_a_moved_input_is_brought_back(desk):
    """The head of T2FLAIR turned by 8 degrees and shifted by 13 mm: registration finds the way back within 2 mm."""
    moved = np.eye(4)
    moved[:3, :3] = Rotation.from_euler("xyz", (0, 0, 8), degrees=True).as_matrix()
    moved[:3, 3] = (9, -9, 3)
    image = desk.image("T2FLAIR")
    nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32), moved @ image.affine), desk.folder / "T2FLAIR.nii.gz")
    spec = load_study(desk.folder / "study.json", desk.prior.stack)
    inputs = aligned(read_inputs(spec, desk.prior.stack), spec, desk.prior.stack)
    original = canonical(Volume(image.get_fdata(), read_volume(desk.folder / "T1.nii.gz", "T1").grid)).grid
    corners = np.array([[1, 10, 10], [10, 50, 12], [6, 30, 55], [6, 32, 32]], float)
    apart = np.linalg.norm(inputs.raw[0].grid.at(corners) - original.at(corners), axis=1)
    before = np.linalg.norm(original.at(corners) @ moved[:3, :3].T + moved[:3, 3] - original.at(corners), axis=1)
    assert before.mean() > 12 and apart.max() < 2.0


def test_registration_none_trusts_the_scanner(desk):
    image = desk.image("T2FLAIR")
    shift = np.eye(4)
    shift[:3, 3] = (12, 0, 0)
    nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32), shift @ image.affine), desk.folder / "T2FLAIR.nii.gz")
    spec = load_study(desk.folder / "study.json", desk.prior.stack)
    inputs = read_inputs(spec, desk.prior.stack)
    same = aligned(inputs, replace(spec, registration="none"), desk.prior.stack)
    assert np.array_equal(same.raw[0].grid.affine, inputs.raw[0].grid.affine)


def test_what_cannot_be_simulated_or_estimated_is_refused_by_its_key_in_the_study(desk):
    desk.document["modalities"]["T2FLAIR"]["simulate"] = {"acs_lines": 65}
    with pytest.raises(Any2allError, match="allowed: 0 to 64") as caught:
        desk.run()
    assert caught.value.key == "modalities.T2FLAIR.simulate.acs_lines"
    made = simulate_kspace(np.ones((1, 32, 32), np.float32), acceleration=4)
    np.save(desk.folder / "t1.npy", made.kspace)
    desk.only(T1={"status": "undersampled", "kspace": "t1.npy", "voxel_size_mm": VOXEL_MM})
    with pytest.raises(Any2allError, match="calibration block is too small") as caught:
        desk.run()
    assert caught.value.key == "modalities.T1.coil_maps" and desk.untouched


def test_calibration_lines_lower_the_acceleration_and_the_result_says_so(desk):
    """16 of 64 lines by R = 4, and 9 of the 12 in the middle beside them: R = 64 / 25."""
    desk.document["modalities"]["T2FLAIR"]["simulate"] = {"acceleration": 4, "acs_lines": 12}
    (desk.folder / "study.json").write_text(json.dumps(desk.document))
    spec = load_study(desk.folder / "study.json", desk.prior.stack)
    assert "T2FLAIR: acceleration is 2.56 with its calibration lines" in read_inputs(spec, desk.prior.stack).warnings
