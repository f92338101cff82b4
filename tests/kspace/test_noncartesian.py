"""Radial and spiral data: trajectories, the same reconstruction from every format, refusals, estimates, geometry."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import sigpy
from any2all.errors import Any2allError
from any2all.kspace.coil_maps import calibration_block
from any2all.kspace.formats import read_kspace
from any2all.kspace.orientation import oriented
from any2all.kspace.prepare import prepare
from any2all.kspace.preprocess import preprocessed
from any2all.kspace.raw_samples import RawSamples, check_samples
from any2all.kspace.reconstruct import l1_wavelet, sense, wiener_lamda, zero_filled
from any2all.kspace.simulate import birdcage_maps, simulate_kspace
from any2all.kspace.trajectory import covered, density_weights, radial_trajectory, spiral_trajectory
from raw_builders import Readout, header_xml, spokes_of, write_bart, write_ismrmrd

SIDE = 32
MATRIX, FOV = (SIDE, SIDE, 1), (4.0 * SIDE, 4.0 * SIDE, 5.0)
SPOKES = radial_trajectory((SIDE, SIDE), 2)
NOISE_STD = 0.002


@pytest.fixture(scope="module")
def heads(phantom: np.ndarray) -> np.ndarray:
    """(2, 32, 32)"""
    return np.pad(phantom[:, ::3, ::3], ((0, 0), (0, 0), (2, 3)))


@pytest.fixture(scope="module")
def made(heads: np.ndarray):
    return simulate_kspace(heads, 4, 2, noise_std=NOISE_STD, mask="radial", phase="smooth")


@pytest.fixture(scope="module")
def kspace(made) -> np.ndarray:
    """(2, 4, spokes, samples)"""
    return made.kspace.reshape(2, 4, *SPOKES.shape[:2])


def error(image: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(image - truth) / np.linalg.norm(truth))


def reconstruction(raw: RawSamples) -> np.ndarray:
    """With the true coil maps, which are quicker than ESPIRiT; phase and everything else from the data."""
    return sense(prepare(raw.with_maps(birdcage_maps(raw.matrix, 4), "maps"), NOISE_STD))


@pytest.fixture(scope="module")
def plain(kspace, tmp_path_factory) -> np.ndarray:
    path = tmp_path_factory.mktemp("plain") / "a.npz"
    np.savez(path, kspace=kspace, trajectory=SPOKES, matrix=[SIDE, SIDE])
    return reconstruction(read_kspace(path))


def test_the_reconstruction_is_the_image(plain, heads):
    assert error(plain, heads) < 0.08


def test_spokes_turn_by_the_golden_angle_and_count_against_nyquist():
    spokes = radial_trajectory((60, 40), 4)
    assert spokes.shape == (round(math.pi / 2 * 60 / 4), 60, 2)
    assert (spokes[:, 30] == 0).all() and (np.abs(spokes).max(axis=(0, 1)) <= (30, 20)).all()
    angles = np.arctan2(spokes[:, 59, 1] / 40, spokes[:, 59, 0] / 60)
    np.testing.assert_allclose(np.diff(angles) % (2 * math.pi), math.radians(111.246), atol=1e-4)


def test_spirals_are_as_dense_as_they_say():
    full, thinned = (spiral_trajectory((48, 40), *args).reshape(-1, 2) for args in ((1,), (4, 12)))
    inside = np.hypot(*np.meshgrid((np.arange(48) - 24) / 48, (np.arange(40) - 20) / 40, indexing="ij")) < 0.47
    assert covered(full, (48, 40))[inside].mean() > 0.99
    assert covered(thinned, (48, 40)).mean() < 0.45 and min(calibration_block(covered(thinned, (48, 40)))) >= 8
    assert len(full) / len(thinned) > 2.5
    steps = np.linalg.norm(np.diff(spiral_trajectory((48, 48), 2)[3], axis=0), axis=1)
    np.testing.assert_allclose(steps[2:], 1, atol=0.06)


def test_density_weights_are_areas():
    axes = np.meshgrid(np.arange(-8, 8), np.arange(-7, 8), indexing="ij")
    grid = np.stack(axes, axis=-1).reshape(-1, 2).astype(float)
    inner = (np.abs(grid) < 7).all(axis=1)
    np.testing.assert_allclose(density_weights(grid, (16, 15))[inner], 1, atol=1e-6)
    ramp = density_weights(SPOKES.reshape(-1, 2), (SIDE, SIDE))
    radius = np.hypot(*SPOKES.reshape(-1, 2).T)
    middle = (radius > 2) & (radius < 13)
    assert np.corrcoef(ramp[middle], radius[middle])[0, 1] > 0.8
    assert ramp.sum() == pytest.approx(math.pi * 16**2, rel=0.08)


def test_gridding_wavelets_and_weight_of_simulated_data(heads):
    """One image through each: gridding is crude, SENSE and L1-wavelet are close to the truth."""
    acquisition = simulate_kspace(heads[:1], 4, 2, noise_std=0.01, mask="radial")
    assert acquisition.notes[-1].startswith("acceleration is 2.01 against Nyquist's rule (25 spokes), 1.28 points")
    assert acquisition.true_acceleration == pytest.approx(32 / 25)
    gridded, solved = zero_filled(acquisition), sense(acquisition)
    wavelets = l1_wavelet(acquisition, iterations=20)
    errors = [error(image, heads[:1]) for image in (gridded, solved, wavelets)]
    print(f"gridding {errors[0]:.3f}, SENSE {errors[1]:.3f}, L1-wavelet {errors[2]:.3f}")
    assert errors[0] < 0.35 and errors[1] < 0.09 and errors[2] < 0.09
    assert 1e-4 < wiener_lamda(acquisition) <= 0.02


def files(folder, kspace) -> dict[str, tuple]:
    """Every format: (file, file of the trajectory)."""
    np.save(folder / "a.npy", kspace)
    np.save(folder / "path.npy", SPOKES)
    three = np.concatenate([SPOKES, np.zeros((*SPOKES.shape[:2], 1))], axis=2)
    xml = header_xml(MATRIX, FOV, trajectory="radial")
    return {
        "npy": (folder / "a.npy", folder / "path.npy"),
        "bart": (
            write_bart(folder / "ksp", kspace, {1: 3, 2: 2, 3: 1, 13: 0}),
            write_bart(folder / "traj", three + 0j, {0: 2, 1: 1, 2: 0}),
        ),
        "ismrmrd": (write_ismrmrd(folder / "a.h5", xml, spokes_of(kspace, SPOKES)), None),
        "ismrmrd, cycles per pixel": (write_ismrmrd(folder / "b.mrd", xml, spokes_of(kspace, SPOKES / SIDE)), None),
    }


def test_every_format_gives_the_same_reconstruction(tmp_path, kspace, plain):
    for name, (file, trajectory) in files(tmp_path, kspace).items():
        raw = read_kspace(file, "T1", trajectory)
        assert isinstance(raw, RawSamples) and raw.matrix == (SIDE, SIDE), name
        if name.startswith("ismrmrd"):
            np.testing.assert_allclose(raw.voxel_size_mm, (4, 4, 5), atol=1e-4)
        difference = error(reconstruction(dataclasses.replace(raw, affine=None)), plain)
        print(f"{name}: {difference:.1e}")
        assert difference < 1e-5, name


@pytest.mark.parametrize("name", ["npy", "bart", "ismrmrd"])
def test_samples_that_a_file_was_filled_up_with_count_as_not_measured(tmp_path, kspace, heads, name):
    """A spoke whose end was never sampled, as of an asymmetric echo, and samples that are zero in one slice alone."""
    cut = kspace.copy()
    cut[..., SIDE - 10 :], cut[0, :, 3] = 0, 0
    file, trajectory = files(tmp_path, cut)[name]
    raw = read_kspace(file, "T1", trajectory)
    assert raw.matrix == (SIDE, SIDE) and any(note.startswith("31.2% of the samples hold zeros") for note in raw.notes)
    np.testing.assert_allclose(raw.trajectory, SPOKES[:, : SIDE - 10].reshape(-1, 2), atol=1e-5)
    np.testing.assert_array_equal(raw.kspace, cut[..., : SIDE - 10].reshape(2, 4, -1))
    filled = RawSamples(cut.reshape(2, 4, -1), SPOKES.reshape(-1, 2), (SIDE, SIDE))
    found, taken = (error(reconstruction(r)[1], heads[1]) for r in (dataclasses.replace(raw, affine=None), filled))
    print(f"left out {found:.3f}, taken for measured {taken:.3f}")
    assert found < 0.1 and found < 0.75 * taken


def test_coil_maps_decide_the_matrix_where_the_file_does_not(kspace, tmp_path):
    raw = check_samples({"kspace": kspace, "trajectory": SPOKES}, "kspace")
    assert not raw.matrix_known and "was taken from how far" in raw.notes[-1]
    assert raw.with_maps(birdcage_maps((50, 52), 4), "maps").matrix == (50, 52)


def test_a_stack_of_stars_becomes_slices(tmp_path, kspace):
    stack = sigpy.fft(np.concatenate([kspace, 0.5 * kspace]), axes=(0,))
    readouts = [
        Readout(stack[p, :, s], line=s, partition=p, trajectory=SPOKES[s]) for s in range(len(SPOKES)) for p in range(4)
    ]
    xml = header_xml((SIDE, SIDE, 4), (128, 128, 20), trajectory="goldenangle")
    raw = read_kspace(write_ismrmrd(tmp_path / "a.h5", xml, readouts), "T1")
    np.testing.assert_allclose(raw.kspace[2:], 0.5 * kspace.reshape(2, 4, -1), atol=1e-5)
    with pytest.raises(Any2allError, match="on every step of its second encoding; got '3 of 4 steps'"):
        read_kspace(write_ismrmrd(tmp_path / "b.h5", xml, [r for r in readouts if r.partition != 2]), "T1")
    flat = header_xml((SIDE, SIDE, 1), (128, 128, 20), trajectory="goldenangle")
    with pytest.raises(Any2allError, match="encoding step 2; got '0 to 3'; allowed: 1 step, as the header's matrix"):
        read_kspace(write_ismrmrd(tmp_path / "c.h5", flat, readouts), "T1")


def test_calibration_discarded_samples_and_noise_scans(tmp_path, kspace):
    noise = np.random.default_rng(0).normal(size=(2, 4, 400)).view()
    scan = Readout(np.array([[3], [1], [1], [1]]) * (noise[0] + 1j * noise[1]), flags=(19,))
    extra = [Readout(kspace[0, :, 0], flags=(20,), trajectory=SPOKES[0])]
    spokes = [dataclasses.replace(r, discard=(2, 1)) for r in spokes_of(kspace, SPOKES)]
    xml = header_xml(MATRIX, FOV, trajectory="radial")
    raw = read_kspace(write_ismrmrd(tmp_path / "a.h5", xml, [scan, *extra, *spokes]), "T1")
    np.testing.assert_allclose(raw.trajectory, SPOKES[:, 2:-1].reshape(-1, 2), atol=1e-5)
    white = preprocessed(dataclasses.replace(raw, affine=None))
    assert white.noise_covariance is None and white.noise_std > 0
    mixed = np.linalg.inv(white.unmixing) @ raw.noise_covariance @ np.linalg.inv(white.unmixing).conj().T
    np.testing.assert_allclose(mixed, white.noise_std**2 * np.eye(4), atol=1e-2 * white.noise_std**2)


def test_many_coils_are_compressed(kspace):
    many = np.concatenate([kspace * factor for factor in (1, 0.5, 0.1, 0.2)], axis=1)
    few = preprocessed(check_samples({"kspace": many, "trajectory": SPOKES}, "kspace"))
    assert few.kspace.shape[1] <= 4 and few.unmixing.shape == (16, few.kspace.shape[1])


@pytest.mark.parametrize("directions", [(1, -1, 1, 1), (1, 1, -1, 1), (-1, -1, -1, 1), "swapped"])
def test_turning_the_trajectory_turns_the_image(heads, directions):
    """Exact: the same samples, seen from another side."""
    canonical = np.array([[0, 0, -4, 0], [0, -4, 0, 0], [5, 0, 0, 0], [0, 0, 0, 1.0]])
    clean = simulate_kspace(heads, 4, 2, noise_std=1e-6, mask="radial")
    raw = RawSamples(clean.kspace, clean.trajectory, (SIDE, SIDE), coil_maps=clean.coil_maps)
    if directions == "swapped":
        turned = oriented(dataclasses.replace(raw, affine=canonical[:, [0, 2, 1, 3]]))
    else:
        turned = oriented(dataclasses.replace(raw, affine=canonical @ np.diag(np.array(directions, float))))
    np.testing.assert_allclose(turned.affine[:3, :3], canonical[:3, :3], atol=1e-9)
    acquisition = dataclasses.replace(clean, kspace=turned.kspace, trajectory=turned.trajectory)
    acquisition = dataclasses.replace(acquisition, coil_maps=turned.coil_maps)
    upright, before = zero_filled(acquisition), zero_filled(clean)
    if directions == "swapped":
        before = before.swapaxes(1, 2)
    else:
        before = before[tuple(slice(None, None, step) for step in directions[:3])]
    np.testing.assert_allclose(upright, before, atol=2e-3)


def test_maps_phase_and_noise_are_estimated_from_the_samples(heads):
    made = simulate_kspace(heads[:1], 4, 1, noise_std=NOISE_STD, mask="radial", phase="smooth")
    raw = RawSamples(made.kspace, made.trajectory, (SIDE, SIDE))
    acquisition = prepare(raw)
    assert acquisition.noise_std == pytest.approx(NOISE_STD, rel=1.0)
    found = error(sense(acquisition), heads[:1])
    print(f"everything estimated: {found:.3f}")
    assert found < 0.15
    assert any("ESPIRiT" in note for note in acquisition.notes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trajectory": SPOKES[:-1]}, "k-space does not fit its trajectory"),
        ({"trajectory": SPOKES / SIDE}, "the trajectory stays in the middle of k-space"),
        ({"trajectory": np.dstack([SPOKES, SPOKES[..., :1]])}, "3-D trajectories are not read"),
        ({"trajectory": SPOKES + 0j}, "the trajectory has a wrong shape"),
        ({"trajectory": np.full(SPOKES.shape, np.nan)}, "the trajectory holds NaN"),
        ({"matrix": [24, 32]}, "the trajectory reaches beyond the matrix of 24 x 32"),
        ({"matrix": [480, 480]}, "this matrix cannot be used"),
        ({"trajectory": SPOKES * 1e6}, "this matrix cannot be used"),
        ({"matrix": [32.5, 32]}, "this matrix cannot be used"),
        ({"coil_maps": np.ones((1, 4, 20, 20), complex)}, "this matrix cannot be used|reaches beyond the matrix"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(kspace, changes, words):
    with pytest.raises(Any2allError, match=words):
        check_samples({"kspace": kspace, "trajectory": SPOKES, **changes}, "modalities.T1.kspace")


def test_files_of_trajectories_are_refused_in_words(tmp_path, kspace):
    np.save(tmp_path / "a.npy", kspace)
    np.savez(tmp_path / "path.npz", k=SPOKES)
    with pytest.raises(Any2allError, match="the file holds no trajectory") as caught:
        read_kspace(tmp_path / "a.npy", "modalities.T1.kspace", tmp_path / "path.npz")
    assert caught.value.key == "modalities.T1.trajectory"
    four = write_bart(tmp_path / "four", np.ones((4, 3, 2)) + 0j, {0: 0, 1: 1, 2: 2})
    with pytest.raises(Any2allError, match="this BART array is no trajectory; got '4 x 3 x 2'"):
        read_kspace(tmp_path / "a.npy", "modalities.T1.kspace", four)
    xml = header_xml(MATRIX, FOV, trajectory="spiral")
    bare = [dataclasses.replace(r, trajectory=None) for r in spokes_of(kspace, SPOKES)]
    with pytest.raises(Any2allError, match="a readout has no trajectory that can be used"):
        read_kspace(write_ismrmrd(tmp_path / "bare.h5", xml, bare), "T1")
    uneven = spokes_of(kspace, SPOKES)[:-1]
    with pytest.raises(Any2allError, match="not sampled along one trajectory"):
        read_kspace(write_ismrmrd(tmp_path / "uneven.h5", xml, uneven), "T1")


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"mask": "radial", "acs_lines": 8}, "simulate.acs_lines"),
        ({"mask": "spiral", "acceleration": 8, "phase": "smooth"}, "simulate.acs_lines"),
        ({"mask": "radial", "acceleration": 60}, "simulate.acceleration"),
        ({"mask": "rosette"}, "simulate.mask"),
    ],
)
def test_simulations_that_cannot_be_are_refused(heads, settings, key):
    with pytest.raises(Any2allError) as caught:
        simulate_kspace(heads, 4, **settings)
    assert caught.value.key == key
