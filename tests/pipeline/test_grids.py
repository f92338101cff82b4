"""Results on exactly the reference grid, however it is stored, and the right way round on it."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from any2all.frame import lay_frame
from any2all.geometry import canonical, read_volume
from any2all.inputs import aligned, read_inputs
from any2all.kspace.fourier import fft2c
from any2all.study import parse_study
from nibabel import orientations
from nibabel.processing import resample_from_to
from scipy.spatial.transform import Rotation


def stored_as(image, codes, spin=(0, 0, 0), stretch=(1, 1, 1)):
    """The image with its axes in another order, its affine turned and stretched: the same voxels, seen otherwise."""
    here = orientations.io_orientation(image.affine)
    change = orientations.ornt_transform(here, orientations.axcodes2ornt(codes))
    data = orientations.apply_orientation(image.get_fdata(dtype=np.float32), change)
    affine = image.affine @ orientations.inv_ornt_aff(change, image.shape)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", spin, degrees=True).as_matrix() @ np.diag(stretch)
    return nib.Nifti1Image(np.ascontiguousarray(data), turn @ affine)


GRIDS = {
    "as it came": (("R", "A", "S"), (0, 0, 0), (1, 1, 1)),
    "flipped": (("L", "P", "I"), (0, 0, 0), (1, 1, 1)),
    "sagittal": (("A", "S", "R"), (0, 0, 0), (1, 1, 1)),
    "coronal": (("R", "S", "A"), (0, 0, 0), (1, 1, 1)),
    "oblique": (("R", "A", "S"), (14, -9, 20), (1, 1, 1)),
    "oblique sagittal": (("P", "I", "R"), (-12, 8, 5), (1, 1, 1)),
    "anisotropic": (("R", "A", "S"), (3, 2, -4), (1.15, 0.8, 0.7)),
}


@pytest.mark.parametrize("case", GRIDS)
def test_fully_sampled_kspace_comes_back_as_the_image_that_it_was_made_of(desk, case):
    """The prior is random and knows nothing: what is right in the result came through the data, on its own grid."""
    image = stored_as(desk.image("T1"), *GRIDS[case])
    nib.save(image, desk.folder / "T1.nii.gz")
    desk.only(T1={"status": "undersampled", "file": "T1.nii.gz", "simulate": {"acceleration": 1, "noise_std": 0.001}})
    desk.document["outputs"] = ["T1", "CT"]
    desk.run()
    truth = image.get_fdata()
    for name in ("T1", "CT"):
        made = desk.output(name)
        assert made.shape == image.shape
        assert np.abs(made.affine - image.affine).max() < 1e-5
    error = desk.output("T1").get_fdata() - truth
    assert np.sqrt((error**2).mean()) < 0.01 * truth.max()
    summary = json.loads((desk.out / "summary.json").read_text())["outputs"]["T1"]
    slice_mm, h, w = canonical(read_volume(desk.folder / "T1.nii.gz", "T1")).grid.spacing_mm
    assert summary["effective_resolution_mm"] == pytest.approx([h, w, slice_mm], abs=1e-3)


def test_detail_that_the_priors_grid_cannot_hold_survives(desk):
    """A checkerboard of 4 mm pixels on a prior of 8 mm pixels: only the solve on the acquisition grid can keep it."""
    pattern = np.indices((64, 64, 12)).sum(axis=0) % 2
    desk.rewrite("T1", lambda data: data * (1 + 0.2 * pattern))
    desk.only(T1={"status": "undersampled", "file": "T1.nii.gz", "simulate": {"acceleration": 2, "noise_std": 0.001}})
    desk.document["outputs"] = ["T1"]
    desk.run()
    truth, made = desk.image("T1").get_fdata(), desk.output("T1").get_fdata()
    inside = truth > 300
    kept, given = (i[inside & (pattern == 1)].mean() - i[inside & (pattern == 0)].mean() for i in (made, truth))
    assert given > 50 and kept > 0.9 * given


def test_an_input_on_another_grid_lands_on_the_reference(desk):
    """T2FLAIR on an oblique grid of other voxels; the report's given image and the outputs lie on T1's grid."""
    before, target = desk.image("T2FLAIR").get_fdata(), np.diag([3.0, 5.0, 5.0, 1.0])
    target[:3, :3] = Rotation.from_euler("xyz", (10, -6, 8), degrees=True).as_matrix() @ target[:3, :3]
    target[:3, 3] = -target[:3, :3] @ (np.array([90, 50, 16]) / 2)
    nib.save(resample_from_to(desk.image("T2FLAIR"), ((90, 50, 16), target), order=1), desk.folder / "T2FLAIR.nii.gz")
    desk.only(
        {"name": "mcs", "steps": 1, "samples": 1},
        T1={"status": "available", "file": "T1.nii.gz"},
        T2FLAIR={"status": "available", "file": "T2FLAIR.nii.gz"},
    )
    desk.document |= {"registration": "none", "outputs": ["PET"]}
    truth = nib.load(desk.folder / "T1.nii.gz")
    result = desk.run()
    assert desk.output("PET").shape == truth.shape
    assert np.abs(desk.output("PET").affine - truth.affine).max() < 1e-5
    there = result.given["T2FLAIR"].data

    def likeness(shift, axis):
        return np.corrcoef(there.ravel(), np.roll(before, shift, axis).ravel())[0, 1]

    # interpolated twice, so not equal; but no shift by a voxel makes them more alike
    neighbours = [likeness(shift, axis) for shift in (-1, 1) for axis in (0, 1, 2)]
    assert likeness(0, 0) > max(0.9, *neighbours)


def test_the_first_available_modality_is_the_reference_unless_another_is_named(desk):
    smaller = desk.image("T2FLAIR").slicer[4:60, 2:62]
    nib.save(smaller, desk.folder / "T2FLAIR.nii.gz")
    desk.document |= {"outputs": ["CT"], "registration": "none"}
    desk.run()
    assert desk.output("CT").shape == (64, 64, 12)
    desk.document["reference"] = "T2FLAIR"
    desk.run(overwrite=True)
    assert desk.output("CT").shape == (56, 60, 12)
    assert np.abs(desk.output("CT").affine - smaller.affine).max() < 1e-5


def slab(image, first, last):
    """Some axial slices of a RAS image, where they were."""
    return image.slicer[:, :, first:last]


ONE_PASS = {"name": "mcs", "steps": 1, "samples": 1}


def test_outputs_fill_the_named_reference_though_an_earlier_modality_is_a_slab(desk):
    """Grids come from the reference: T1's four slices do not decide where there is a CT. The result says so."""
    nib.save(slab(desk.image("T1"), 4, 8), desk.folder / "T1.nii.gz")
    desk.only(
        ONE_PASS,
        T1={"status": "available", "file": "T1.nii.gz"},
        T2FLAIR={"status": "available", "file": "T2FLAIR.nii.gz"},
    )
    desk.document |= {"outputs": ["CT"], "reference": "T2FLAIR", "registration": "none"}
    result = desk.run()
    filled = (desk.output("CT").get_fdata() > -1000).any(axis=(0, 1))
    assert filled[1:11].all()
    assert any(warning.startswith("T1 does not reach") for warning in result.warnings)
    assert not any("T2FLAIR does not reach" in warning for warning in result.warnings)


@pytest.mark.parametrize("status", ["available", "noisy"])
def test_an_image_that_ends_inside_the_head_is_told(desk, status):
    nib.save(desk.image("T2FLAIR").slicer[:34], desk.folder / "T2FLAIR.nii.gz")
    t2flair = {"status": status, "file": "T2FLAIR.nii.gz"} | ({"noise_std": 5.0} if status == "noisy" else {})
    desk.only(ONE_PASS, T1={"status": "available", "file": "T1.nii.gz"}, T2FLAIR=t2flair)
    desk.document |= {"outputs": ["CT"], "registration": "none"}
    desk.document["sampler"] = {"name": "mcs", "steps": 5, "samples": 1, "consistency": "calibrated"}
    warnings = desk.run().warnings
    (words,) = (warning for warning in warnings if "ends inside the head" in warning)
    share = int(words.split("head: ")[1].split("%")[0])
    assert words.startswith("T2FLAIR ends") and 30 < share < 60


@pytest.mark.parametrize("other", ["available", "noisy", "undersampled"])
def test_head_beyond_the_slices_of_raw_data_is_told_whatever_shows_it(desk, other):
    nib.save(slab(desk.image("T2FLAIR"), 5, 7), desk.folder / "T2FLAIR.nii.gz")
    raw = {"acceleration": 2, "acs_lines": 8, "noise_std": 0.01}
    entry = {"available": {}, "noisy": {"noise_std": 5.0}, "undersampled": {"simulate": raw}}[other]
    name = "T2star" if other == "undersampled" else "T1"
    shutil.copy(desk.folder / "T1.nii.gz", desk.folder / "T2star.nii.gz")
    desk.only(**{name: {"status": other, "file": f"{name}.nii.gz", **entry}})
    desk.document["modalities"]["T2FLAIR"] = {"status": "undersampled", "file": "T2FLAIR.nii.gz", "simulate": raw}
    desk.document |= {"outputs": ["CT"], "registration": "none", "reference": name}
    desk.document["sampler"] = {"name": "mcs", "steps": 5, "samples": 1, "consistency": "calibrated"}
    warnings = desk.run().warnings
    assert any(w.startswith(f"{name} shows") and "every output is empty there" in w for w in warnings), warnings


EMPTY, SYNTHETIC = "it is empty there", "what it shows there is synthetic"
ONE_COIL = np.ones((1, 1, 12, 64), np.complex64)


@pytest.mark.parametrize("how, words", [("lowres", SYNTHETIC), ("sagittal", SYNTHETIC), ("transverse", EMPTY)])
@pytest.mark.parametrize("part", [True, False])
def test_what_was_measured_in_a_part_of_the_head_alone_says_so(desk, how, words, part):
    """T2FLAIR of a slab, or of the whole head: lowres, raw data of sagittal slices, or beside another's raw slices."""
    simulate = {"acceleration": 2, "acs_lines": 8}
    entry = {"status": "undersampled", "file": "T2FLAIR.nii.gz", "simulate": simulate}
    image = desk.image("T2FLAIR")
    if how == "lowres":
        thick = slab(image, 4, 8) if part else image
        data, affine = thick.get_fdata(dtype=np.float32), thick.affine @ np.diag([1, 1, 2.0, 1])
        affine[:3, 3] += image.affine[:3, 2] / 2
        nib.save(nib.Nifti1Image(data.reshape(64, 64, -1, 2).mean(-1), affine), desk.folder / "T2FLAIR.nii.gz")
        entry = {"status": "lowres", "file": "T2FLAIR.nii.gz", "noise_std": 5.0}
    elif how == "sagittal":
        data = canonical(read_volume(desk.folder / "T2FLAIR.nii.gz", "")).data.transpose(2, 0, 1)[:: 1 if part else 2]
        data = data[24:40] if part else data  # 4 mm or 8 mm
        np.savez(desk.folder / "k.npz", kspace=fft2c(data[:, None].astype(np.complex64)), coil_maps=ONE_COIL)
        voxel = [6.0, 4.0, 4.0 if part else 8.0]
        entry = {"status": "undersampled", "kspace": "k.npz", "orientation": "LSP", "voxel_size_mm": voxel}
    else:
        moved = slab(image, 4, 8) if part else image
        affine = moved.affine.copy()
        affine[:3, 3] += (3, -2, 1)
        nib.save(nib.Nifti1Image(moved.get_fdata(dtype=np.float32), affine), desk.folder / "T2FLAIR.nii.gz")
    given = {"status": "available"} if how != "transverse" else {"status": "undersampled", "simulate": simulate}
    desk.only(T1={"file": "T1.nii.gz", **given}, T2FLAIR=entry)
    spec = parse_study(desk.document | {"registration": "none"}, desk.prior.stack, desk.folder)
    inputs = aligned(read_inputs(spec, desk.prior.stack), spec, desk.prior.stack)
    said = [w for w in lay_frame(inputs, desk.prior.card).warnings if w.startswith("nothing of T2FLAIR was measured")]
    assert [words in w and 40 < int(w.split("%")[0].split()[-1]) < 90 for w in said] == [True] * part, said


def test_head_beyond_the_raw_datas_slices_is_warned_about(desk):
    raw = {"status": "undersampled", "file": "T2FLAIR.nii.gz", "simulate": {}}
    nib.save(slab(desk.image("T2FLAIR"), 4, 8), desk.folder / "T2FLAIR.nii.gz")
    desk.only(T1={"status": "available", "file": "T1.nii.gz"}, T2FLAIR=raw)
    desk.document |= {"outputs": ["CT"], "registration": "none"}
    result = desk.run()
    made = desk.output("CT").get_fdata()
    assert (made[..., :4] == -1000).all() and (made[..., 4:8] > -1000).any()
    assert any(w.startswith("T1 shows") and "empty there" in w for w in result.warnings)


def test_a_given_ct_is_shown_with_air_around_it(desk):
    """0 HU is water, and would be a grey frame in the report."""
    head = slab(desk.image("T1"), 3, 9)
    nib.save(nib.Nifti1Image(head.get_fdata(dtype=np.float32) - 1000, head.affine), desk.folder / "CT.nii.gz")
    desk.only(
        ONE_PASS, T1={"status": "available", "file": "T1.nii.gz"}, CT={"status": "available", "file": "CT.nii.gz"}
    )
    desk.document |= {"outputs": ["PET"], "registration": "none"}
    assert (desk.run().given["CT"].data[..., :3] == -1000).all()
