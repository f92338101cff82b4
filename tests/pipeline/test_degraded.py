"""Noisy, blurred and lowres images, from a study to its results."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from any2all.degraded import (
    DegradedImage,
    degraded_channel,
    detail,
    estimated_noise_std,
    has_detail,
    noise_in_u,
    psf_in_voxels,
)
from any2all.frame import lay_frame, measure
from any2all.geometry import Grid, Volume, resample
from any2all.inputs import aligned, read_inputs, with_thin_slices
from any2all.run import Run
from any2all.scores.baselines import AS_GIVEN, baselines_of
from any2all.stack import load_stack
from any2all.study import parse_study
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

STACK = load_stack()
GIVEN = {"status": "available", "file": "T1.nii.gz"}
NOISY = {"status": "noisy", "file": "PET.nii.gz", "noise_std": 0.2}
BLURRED = {"status": "blurred", "file": "PET.nii.gz", "psf_fwhm_mm": [8, 8, 12], "noise_std": 0.02}
LOWRES = {"status": "lowres", "file": "thick.nii.gz", "noise_std": 10.0}
ONE_SAMPLE = {"name": "mcs", "steps": 5, "samples": 1, "consistency": "calibrated"}


def write_thick(folder) -> None:
    """``thick.nii.gz``: T2FLAIR.nii.gz with the means of two slices each, 12 mm thick."""
    image = nib.load(folder / "T2FLAIR.nii.gz")
    data, affine = image.get_fdata(dtype=np.float32), image.affine.copy()
    affine[:3, 3] += affine[:3, 2] / 2
    affine[:3, 2] *= 2
    nib.save(nib.Nifti1Image(data.reshape(*data.shape[:2], -1, 2).mean(-1), affine), folder / "thick.nii.gz")


@pytest.fixture
def degraded_desk(desk, phantom_files):
    shutil.copy(phantom_files / "PET.nii.gz", desk.folder)
    desk.document["registration"] = "none"
    write_thick(desk.folder)
    return desk


def add_noise(desk, std: float) -> None:
    generator = np.random.default_rng(0)
    desk.rewrite("PET", lambda data: data + std * generator.standard_normal(data.shape))


def frame_of(desk, **modalities):
    """The inputs, aligned, and the frame of a study of the tiny prior."""
    document = {"modalities": modalities, "registration": "none"}
    spec = parse_study(document, STACK, desk.folder)
    inputs = aligned(read_inputs(spec, STACK), spec, STACK)
    inputs = with_thin_slices(inputs, spec.reference, desk.prior.card.spacing_mm[2])
    return inputs, lay_frame(inputs, desk.prior.card)


@pytest.mark.parametrize("name, modality", [("PET", NOISY), ("PET", BLURRED), ("T2FLAIR", LOWRES)])
@pytest.mark.parametrize("consistency", ["calibrated", "moment"])
def test_a_degraded_modality_is_reconstructed(degraded_desk, name, modality, consistency):
    desk = degraded_desk.only(
        {**ONE_SAMPLE, "samples": 2, "consistency": consistency},
        T1=GIVEN,
        **{name: modality, "T2": {"status": "missing"}},
    )
    desk.document["outputs"] = [name]
    result = desk.run()
    output, summary = result.outputs[0], json.loads((desk.out / "summary.json").read_text())
    assert (output.name, output.role, output.units) == (name, "reconstructed", STACK[name].units)
    image = desk.output(name)
    assert image.header["descrip"].item().startswith(b"RECONSTRUCTED Any2all")
    assert image.shape == desk.image("T1").shape and np.allclose(image.affine, desk.image("T1").affine)
    assert output.std is not None and output.shown_input.grid.shape == image.shape
    warned = any("couples slices" in words for words in summary["warnings"])
    assert warned == (consistency == "moment" and modality is not NOISY)
    assert f"{modality['file']}" in summary["provenance"]["inputs_sha256"]


def test_results_depend_on_no_batch(degraded_desk):
    desk = degraded_desk.only(ONE_SAMPLE, T1=GIVEN, T2FLAIR=LOWRES, PET=NOISY)
    desk.document["outputs"] = ["T2FLAIR", "PET"]
    first = desk.run(Run(batch_size=16))
    again = desk.run(Run(batch_size=5), overwrite=True)
    for a, b in zip(first.outputs, again.outputs):
        np.testing.assert_allclose(a.mean.data, b.mean.data, rtol=1e-3, atol=1e-3 * float(a.mean.data.max()))


def test_a_lowres_image_alone_gets_the_slices_it_lacks(degraded_desk):
    desk = degraded_desk.only(ONE_SAMPLE, T2FLAIR=LOWRES)
    desk.document["outputs"] = ["T2FLAIR"]
    result = desk.run()
    assert result.reference.grid.shape == (64, 64, 12) and desk.output("T2FLAIR").shape == (64, 64, 12)
    assert np.abs(nib.affines.voxel_sizes(desk.output("T2FLAIR").affine) - (4, 4, 6)).max() < 1e-4
    assert result.outputs[0].effective_resolution_mm == (4.0, 4.0, 6.0)
    assert any("lowres: results lie on its grid with slices 6 mm apart" in words for words in result.warnings)


def test_what_was_measured_is_explained(degraded_desk):
    """Thick slices of the true image are the data, exactly where the grids nest in the slice direction."""
    inputs, frame = frame_of(degraded_desk, T1=GIVEN, T2FLAIR=LOWRES)
    channel = measure(inputs, frame, STACK).channels[STACK.index("T2FLAIR")]
    true = nib.as_closest_canonical(degraded_desk.image("T2FLAIR"))
    data = np.ascontiguousarray(true.get_fdata(dtype=np.float32)[::-1, ::-1].transpose(2, 1, 0))
    u = Volume(data / inputs.degraded[0].scale, inputs.images[0].volume.grid)
    truth = torch.from_numpy(resample(u, frame.grid).data)
    misfit = (channel.operator.forward(truth[None]) - channel.data)[channel.data > 0.05]
    print(f"misfit {float(misfit.square().mean().sqrt()):.4f}")
    assert channel.data.shape == (1, 6, 32, 32) and float(misfit.square().mean().sqrt()) < 0.015


def test_noise_is_estimated_and_said(degraded_desk):
    add_noise(degraded_desk, 0.2)
    inputs, frame = frame_of(degraded_desk, T1=GIVEN, PET={"status": "noisy", "file": "PET.nii.gz"})
    image = inputs.degraded[0]
    assert image.noise_std == pytest.approx(0.2, rel=0.15)
    assert any(f"noise_std was estimated from the image: {image.noise_std:.4g}" in words for words in inputs.warnings)
    channel = measure(inputs, frame, STACK).channels[STACK.index("PET")]
    assert float(channel.data.min()) < 0, "noise below zero is kept"
    clean, _ = frame_of(degraded_desk, T1=GIVEN, PET=NOISY)
    assert not clean.warnings


def ball(shape: tuple[int, int, int], radius: float) -> np.ndarray:
    """1 inside a long ball, 0 outside."""
    z, h, w = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return ((z / 1.8) ** 2 + h**2 + w**2 < radius**2).astype(np.float32)


@pytest.mark.parametrize("std", [0.01, 0.05, 0.2])
def test_the_estimate_is_of_the_noise_and_not_of_the_head(std):
    clean = 0.4 * ball((12, 96, 96), 0.85) + 0.2 * ball((12, 96, 96), 0.6) + 0.2 * ball((12, 96, 96), 0.2)
    noisy = clean + std * np.random.default_rng(1).standard_normal(clean.shape).astype(np.float32)
    assert estimated_noise_std(noisy, clean > 0) == pytest.approx(std, rel=0.1)


def noisy_image(std: float, status="noisy", shape=(10, 64, 64), spacing=(3.0, 1.5, 1.5), **more):
    """A degraded PET image of the phantom's head with fine stripes, and its truth, in u x 3 (SUVr)."""
    grid = Grid(shape, np.diag([*spacing, 1.0]))
    stripes = 0.6 * (np.arange(shape[2]) % 4 < 2)
    truth = ball(shape, 0.85) * (0.9 + stripes * (np.arange(shape[1]) > 32)[:, None]).astype(np.float32)
    noise = std * np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    return DegradedImage("PET", status, Volume(truth + noise, grid), truth > 0, 3.0, std, **more), truth / 3


def test_noise_after_the_way_to_a_grid_is_told():
    image, _ = noisy_image(0.15)
    assert noise_in_u(image, image.grid, STACK["PET"]) == pytest.approx(0.05, rel=0.02), "no resampling"
    coarse = Grid((10, 32, 32), np.diag([3.0, 3.0, 3.0, 1.0]))
    told = noise_in_u(image, coarse, STACK["PET"])
    others = resample(Volume(0.05 * np.random.default_rng(9).standard_normal(image.grid.shape), image.grid), coarse)
    assert told == pytest.approx(float(others.data[:, 4:-4, 4:-4].std()), rel=0.1) and told < 0.03


def test_the_bend_of_ct_reaches_its_noise():
    image, _ = noisy_image(0.15)
    hu = Volume(np.full(image.grid.shape, 30.0), image.grid)
    ct = replace(image, volume=hu, scale=1.0, noise_std=10.0)
    assert noise_in_u(ct, image.grid, STACK["CT"]) == pytest.approx(10 * 0.5 / 250, rel=0.02)


def test_fine_detail_of_a_noisy_image_comes_back_and_its_noise_does_not():
    image, truth = noisy_image(0.06)
    coarse = Grid((10, 32, 32), np.diag([3.0, 3.0, 3.0, 1.0]))
    assert has_detail(image, coarse)
    smooth = resample(resample(Volume(truth, image.grid), coarse), image.grid, order=3).data
    drawn = np.stack(list(detail(image, coarse, STACK["PET"], 4, 0)))
    inside = np.zeros(truth.shape, bool)
    inside[2:-2, 16:48, 16:48] = True
    error = [np.sqrt(np.square(estimate - truth)[inside].mean()) for estimate in (smooth, smooth + drawn.mean(0))]
    print(f"error without detail {error[0]:.4f}, with {error[1]:.4f}, noise {0.06 / 3:.4f}")
    assert error[1] < 0.5 * error[0]
    flat = inside & (np.arange(64) < 28)[:, None]
    assert drawn.mean(0)[flat].std() < 0.5 * 0.02, "where nothing is to be seen the noise stays away"
    alone = next(iter(detail(image, coarse, STACK["PET"], 1, 0)))
    np.testing.assert_allclose(drawn.mean(0), alone, atol=1e-5)
    spread = drawn.std(0, ddof=1)[inside & ~flat].mean()
    assert 0.003 < spread < 0.02, "what the noise leaves open is in the spread"


def test_a_blurred_image_and_one_of_large_voxels_have_no_detail():
    coarse = Grid((10, 32, 32), np.diag([3.0, 3.0, 3.0, 1.0]))
    assert not has_detail(noisy_image(0.1, "blurred", psf_fwhm_mm=(4.0, 4.0, 4.0))[0], coarse)
    assert not has_detail(noisy_image(0.1, spacing=(3.0, 4.0, 4.0))[0], coarse)


def test_widths_follow_the_axes():
    image, _ = noisy_image(0.1, "blurred", psf_fwhm_mm=(9.0, 6.0, 3.0))
    assert psf_in_voxels(image, image.grid) == pytest.approx((3.0, 4.0, 2.0))
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("x", 90, degrees=True).as_matrix()
    assert psf_in_voxels(image, image.grid.moved(turned)) == pytest.approx((3.0, 2.0, 4.0)), (
        "axes 1 and 2 changed places"
    )


def test_a_blurred_image_is_explained_by_the_sharp_one(degraded_desk):
    """Of a sharp phantom, blurred as the study says; beyond the edges of the volume nothing is known."""
    sharp = degraded_desk.image("PET").get_fdata(dtype=np.float32)
    widths = np.array([8, 8, 12]) / (4, 4, 6) / 2.3548
    degraded_desk.rewrite("PET", lambda data: gaussian_filter(data, widths))
    inputs, frame = frame_of(degraded_desk, T1=GIVEN, PET=BLURRED)
    channel = degraded_channel(inputs.degraded[0], frame.grid, STACK["PET"])
    data = np.ascontiguousarray(sharp[::-1, ::-1].transpose(2, 1, 0)) / 3
    truth = torch.from_numpy(resample(Volume(data, inputs.images[0].volume.grid), frame.grid).data)
    images = (channel.operator.forward(truth[None]), truth[None])
    rms = [float((image - channel.data)[:, 1:-1].square().mean().sqrt()) for image in images]
    print(f"misfit {rms[0]:.4f}, unblurred {rms[1]:.4f}")
    assert rms[0] < 0.012 and rms[0] < 0.5 * rms[1]


def test_registration_moves_a_degraded_image_as_well(degraded_desk):
    document = {"modalities": {"T1": GIVEN, "T2FLAIR": LOWRES}}
    spec = parse_study(document, STACK, degraded_desk.folder)
    inputs = read_inputs(spec, STACK)
    moved = aligned(inputs, spec, STACK)
    shift = np.abs(moved.degraded[0].grid.affine - inputs.degraded[0].grid.affine).max()
    assert 0 < shift < 6


def test_the_degraded_image_is_its_own_rival(degraded_desk):
    inputs, _ = frame_of(degraded_desk, T1=GIVEN, T2FLAIR=LOWRES)
    rivals = baselines_of("T2FLAIR", inputs, degraded_desk.prior.card, STACK, None)
    assert list(rivals) == [AS_GIVEN] and rivals[AS_GIVEN].grid.same_as(inputs.reference.grid)


@pytest.mark.parametrize(
    ("name", "status", "change", "words"),
    [
        ("PET", NOISY, lambda data: data * 7000, "is it in SUVr?"),
        ("PET", BLURRED, lambda data: data * 5, "is it in SUVr?"),
        ("PET", NOISY, lambda data: data / 100, "is it in SUVr?"),
        ("CT", {"status": "noisy", "noise_std": 20.0}, lambda data: data + 1024, "is it in HU"),
        ("PET", NOISY, lambda data: data, ""),
        ("CT", {"status": "noisy", "noise_std": 20.0}, lambda data: data, ""),
        ("T2FLAIR", {"status": "noisy", "noise_std": 5.0}, lambda data: data * 7000, ""),
    ],
)
def test_a_degraded_image_in_other_units_is_doubted(degraded_desk, phantom_files, name, status, change, words):
    shutil.copy(phantom_files / f"{name}.nii.gz", degraded_desk.folder)
    degraded_desk.rewrite(name, change)
    degraded_desk.only(T1=GIVEN, **{name: {**status, "file": f"{name}.nii.gz"}})
    spec = parse_study(degraded_desk.document, STACK, degraded_desk.folder)
    doubts = [warning for warning in read_inputs(spec, STACK).warnings if "is it in" in warning]
    assert [words in doubt for doubt in doubts] == ([True] if words else [])


def test_a_mask_that_leaks_into_noise_raises_no_doubt(degraded_desk):
    """Strong signed noise makes a head of the air; T1's field of view ends with the head."""
    add_noise(degraded_desk, 0.6)
    nib.save(degraded_desk.image("T1").slicer[4:60, 2:62], degraded_desk.folder / "T1.nii.gz")
    inputs, frame = frame_of(degraded_desk, T1=GIVEN, PET={**NOISY, "noise_std": 0.6})
    (noisy,) = inputs.degraded
    assert noisy.mask.mean() > 2 * inputs.images[0].mask.mean(), "the mask leaks, or this shows nothing"
    words = [*inputs.warnings, *frame.warnings]
    assert not [warning for warning in words if "is it in" in warning or "ends inside the head" in warning]
