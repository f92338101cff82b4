"""Raw data of every format through a study: keys, where it lies, and the measured brain from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from any2all.errors import Any2allError
from any2all.geometry import canonical
from any2all.inputs import read_inputs
from any2all.kspace.formats import read_kspace
from any2all.kspace.simulate import simulate_kspace
from any2all.pipeline import run_study
from any2all.stack import load_stack
from any2all.study import load_study, parse_study
from raw_builders import header_xml, lines_of, write_bart, write_fastmri, write_ismrmrd

STACK = load_stack()
VOXEL_MM = [4.0, 4.0, 6.0]


@pytest.fixture(scope="module")
def kspace(phantom: np.ndarray) -> np.ndarray:
    made = simulate_kspace(phantom[:, ::2, ::2], coils=4, acceleration=2, acs_lines=16, noise_std=0.002)
    return made.kspace


def study(folder: Path, **entry: object) -> dict:
    """A study of T2 as raw data beside an image of T1, whose centre lies at (10, 20, 30) mm."""
    affine = np.diag([3.0, 3.0, 5.0, 1.0])
    affine[:3, 3] = (10 - 3 * 29.5, 20 - 3 * 29.5, 30 - 5 * 4.5)
    ball = sum(x**2 for x in np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in (60, 60, 10)), indexing="ij")) < 1
    nib.save(nib.Nifti1Image(500 * ball.astype(np.float32), affine), folder / "t1.nii.gz")
    t2 = {"status": "undersampled", **entry}
    return {"modalities": {"T1": {"status": "available", "file": "t1.nii.gz"}, "T2": t2}}


def raw_of(folder: Path, document: dict):
    return read_inputs(parse_study(document, STACK, folder), STACK).raw[0]


def test_doubts_of_raw_data_are_warnings_of_the_study(tmp_path, kspace):
    np.savez(tmp_path / "t2.npz", kspace=kspace)
    for noise_std, doubted in ((0.002, False), (2.0, True)):
        entry = {"kspace": "t2.npz", "voxel_size_mm": VOXEL_MM, "noise_std": noise_std}
        inputs = read_inputs(parse_study(study(tmp_path, **entry), STACK, tmp_path), STACK)
        said = [words for words in inputs.warnings if words.startswith("T2: a noise_std of 2 is much more than")]
        assert bool(said) == doubted


def test_the_header_says_where_raw_data_lies_unless_the_study_says_otherwise(tmp_path, kspace):
    xml = header_xml((48, 40, 1), (192.0, 160.0, 6.0))
    write_ismrmrd(tmp_path / "t2.h5", xml, lines_of(kspace, 6.0, origin=(-5, 4, 33)))
    header = raw_of(tmp_path, study(tmp_path, kspace="t2.h5"))
    np.testing.assert_allclose(header.grid.at(np.array([0, 24, 20])), (5, -4, 33), atol=1e-4)
    reference = raw_of(tmp_path, study(tmp_path, kspace="t2.h5", geometry="reference"))
    np.testing.assert_allclose(reference.grid.centre_mm, (10, 20, 30), atol=1e-4)
    np.testing.assert_allclose(reference.first.data, header.first.data, atol=1e-4)
    turned = ((0, -1, 0), (-1, 0, 0), (0, 0, 1))
    write_ismrmrd(tmp_path / "turned.h5", xml, lines_of(kspace, 6.0, turned, origin=(-5, 4, 33)))
    upright = raw_of(tmp_path, study(tmp_path, kspace="turned.h5", geometry="reference"))
    scale = header.first.data.max()
    np.testing.assert_allclose(upright.first.data, header.first.data[:, ::-1, ::-1], atol=0.03 * scale)
    both = raw_of(tmp_path, study(tmp_path, kspace="t2.h5", voxel_size_mm=[1.0, 1.0, 1.0]))
    assert both.grid.same_as(header.grid) and any("were not used" in note for note in both.acquisition.notes)


def test_sagittal_slices_keep_their_axes_and_place(tmp_path, kspace):
    """Readout toward S, phase encoding toward P, slices toward L, by the header, its axes alone, or the study."""
    sagittal, xml = ((0, 0, 1), (0, 1, 0), (1, 0, 0)), header_xml((48, 40, 1), (192.0, 160.0, 6.0))
    write_ismrmrd(tmp_path / "t2.h5", xml, lines_of(kspace, 6.0, sagittal, origin=(-5, 4, 33)))
    header = raw_of(tmp_path, study(tmp_path, kspace="t2.h5"))
    assert header.grid.codes == ("L", "S", "P") and not header.transverse and header.grid.shape == (2, 48, 40)
    np.testing.assert_allclose(header.grid.at(np.array([1, 25, 20])), (-1, -4, 37), atol=1e-4)
    np.testing.assert_array_equal(header.acquisition.mask, (kspace != 0).any(axis=(0, 1)))
    reference = raw_of(tmp_path, study(tmp_path, kspace="t2.h5", geometry="reference"))
    write_fastmri(tmp_path / "plain.h5", kspace, xml)
    told = raw_of(tmp_path, study(tmp_path, kspace="plain.h5", orientation="LSP"))
    for item in (reference, told):
        assert item.grid.codes == ("L", "S", "P")
        np.testing.assert_allclose(item.grid.spacing_mm, (6, 4, 4))
        np.testing.assert_allclose(item.grid.centre_mm, (10, 20, 30), atol=1e-4)


def test_orientation_turns_data_whose_file_says_nothing(tmp_path, kspace):
    """Rows growing to A and columns to R, as the study says: the image is that of the array as it is, turned round."""
    write_fastmri(tmp_path / "t2.h5", kspace, header_xml((48, 40, 1), (192.0, 160.0, 6.0)))
    plain = raw_of(tmp_path, study(tmp_path, kspace="t2.h5"))
    turned = raw_of(tmp_path, study(tmp_path, kspace="t2.h5", orientation="SAR"))
    swapped = raw_of(tmp_path, study(tmp_path, kspace="t2.h5", orientation="SLP"))
    for item in (plain, turned):
        np.testing.assert_allclose(item.grid.spacing_mm, (6, 4, 4))
    scale = plain.first.data.max()
    np.testing.assert_allclose(turned.first.data, plain.first.data[:, ::-1, ::-1], atol=0.03 * scale)
    np.testing.assert_allclose(swapped.first.data, plain.first.data.swapaxes(1, 2), atol=0.03 * scale)


@pytest.mark.parametrize("simulated", [True, False])
def test_raw_data_that_says_nothing_is_laid_about_a_raw_reference(tmp_path, kspace, simulated):
    document = study(tmp_path, kspace="t2.npz", voxel_size_mm=[4.0, 4.0, 6.0], geometry="reference")
    np.savez(tmp_path / "t2.npz", kspace=kspace)
    affine = np.diag([6.0, 4.0, 4.0, 1.0])[:, [1, 2, 0, 3]]
    affine[:3, 3] = np.array([10, 20, 60]) - affine[:3, :3] @ np.array([0.5, 23.5, 19.5])
    np.savez(tmp_path / "t1.npz", kspace=kspace, affine=affine)
    raw = {"status": "undersampled", "kspace": "t1.npz"}
    image = {"status": "undersampled", "file": "t1.nii.gz", "simulate": {"acceleration": 2, "acs_lines": 12}}
    document["modalities"]["T1"] = image if simulated else raw
    document["reference"] = "T1"
    inputs = read_inputs(parse_study(document, STACK, tmp_path), STACK)
    assert [item.name for item in inputs.raw] == ["T1", "T2"]
    np.testing.assert_allclose(inputs.raw[1].grid.centre_mm, (10, 20, 30 if simulated else 60), atol=1e-3)


def test_a_bart_pair_is_named_by_either_part_and_both_are_inputs(tmp_path, kspace):
    write_bart(tmp_path / "t2", kspace, {0: 2, 1: 3, 3: 1, 13: 0})
    for name in ("t2.cfl", "t2.hdr"):
        spec = parse_study(study(tmp_path, kspace=name, voxel_size_mm=VOXEL_MM), STACK, tmp_path)
        assert [p.name for p in spec.modalities["T2"].paths] == ["t2.cfl", "t2.hdr"]
    assert read_inputs(spec, STACK).raw[0].grid.shape == (2, 48, 40)
    outside = tmp_path.parent / f"{tmp_path.name}.hdr"
    (tmp_path / "t2.hdr").rename(outside)
    for _ in range(2):  # first it is missing, then it is a link out of the study's folder
        with pytest.raises(Any2allError, match=r"^modalities.T2.kspace: the .hdr file of this BART pair is missing"):
            parse_study(study(tmp_path, kspace="t2.cfl"), STACK, tmp_path)
        if not (tmp_path / "t2.hdr").is_symlink():
            (tmp_path / "t2.hdr").symlink_to(outside)


@pytest.mark.parametrize(
    ("entry", "key", "allowed"),
    [
        ({"geometry": "here"}, "geometry", "header, reference"),
        ({"orientation": "XYZ"}, "orientation", "three of the letters"),
        ({"orientation": "SAP"}, "orientation", "one each of R or L"),
    ],
)
def test_keys_of_geometry_are_checked(tmp_path, kspace, entry, key, allowed):
    np.save(tmp_path / "t2.npy", kspace)
    with pytest.raises(Any2allError, match=allowed) as caught:
        parse_study(study(tmp_path, kspace="t2.npy", **entry), STACK, tmp_path)
    assert caught.value.key == f"modalities.T2.{key}"


def test_geometry_is_for_raw_data_alone(tmp_path):
    document = study(tmp_path, file="t1.nii.gz", simulate={})
    document["modalities"]["T2"]["geometry"] = "reference"
    with pytest.raises(Any2allError, match="does not take this key beside file"):
        parse_study(document, STACK, tmp_path)


def test_the_true_acceleration_is_said(tmp_path, kspace):
    np.save(tmp_path / "t2.npy", kspace)
    document = study(tmp_path, kspace="t2.npy", voxel_size_mm=VOXEL_MM)
    warnings = read_inputs(parse_study(document, STACK, tmp_path), STACK).warnings
    assert "T2: true acceleration 1.43 of a 48 x 40 matrix" in warnings


def test_measured_brain_through_a_study(tmp_path, measured_file, tiny_prior):
    """As a BART pair. The prior is random, so what is right in the result came through the data."""
    kspace = np.load(measured_file)
    write_bart(tmp_path / "t1", kspace, {0: 1, 1: 2, 3: 0})
    entry = {"status": "undersampled", "kspace": "t1.cfl", "voxel_size_mm": [1.0, 1.0, 5.0]}
    sampler = {"name": "mcs", "steps": 5, "samples": 1, "consistency": "calibrated"}
    document = {"modalities": {"T1": entry}, "outputs": ["T1"], "sampler": sampler}
    (tmp_path / "study.json").write_text(json.dumps(document))
    result = run_study(load_study(tmp_path / "study.json", tiny_prior.stack), tiny_prior, tmp_path / "out")
    true_r = f"true acceleration {230 * 180 / read_kspace(measured_file).mask.sum():.2f}"
    assert any(true_r in warning for warning in result.warnings)
    image, classical = (canonical(v).data[0] for v in (result.outputs[0].mean, result.outputs[0].shown_input))
    head = classical > 0.1 * classical.max()
    likeness = np.corrcoef(image[head], classical[head])[0, 1]
    print(f"correlation with SENSE in the head: {likeness:.3f}")
    assert image.shape == (230, 180) and likeness > 0.8
