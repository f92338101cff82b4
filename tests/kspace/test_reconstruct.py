"""Baselines on a smooth phantom, and the acquisition on a coarser grid."""

from __future__ import annotations

import numpy as np
import pytest
import sigpy.linop
import sigpy.mri.app
import torch
from any2all.kspace.acquisition import Acquisition
from any2all.kspace.fourier import fft2c as numpy_fft2c
from any2all.kspace.reconstruct import (
    first_reconstruction,
    l1_wavelet,
    real_l1_wavelet,
    sense,
    sigpy_sense,
    total_variation,
    wiener_lamda,
    zero_filled,
)
from any2all.kspace.simulate import simulate_kspace
from any2all.physics.fourier import fft2c, ifft2c
from any2all.physics.grids import fourier_crop


def error(image: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(image - truth) / np.linalg.norm(truth))


def test_sense_at_r_4_unfolds_what_zero_filling_cannot(phantom):
    acquisition = simulate_kspace(phantom, noise_std=0.002)
    folded, unfolded = error(zero_filled(acquisition), phantom), error(sense(acquisition), phantom)
    print(f"R = 4: zero-filled {folded:.3f}, SENSE {unfolded:.3f}")
    assert folded > 0.4 and unfolded < 0.08
    assert error(l1_wavelet(acquisition, 0.001), phantom) < 0.1


def test_our_sense_agrees_with_sigpy_where_both_are_determined(phantom):
    acquisition = simulate_kspace(phantom, acceleration=2, noise_std=0.001)
    assert error(sense(acquisition, 1e-3), sigpy_sense(acquisition, 1e-3)) < 0.01


def test_sense_of_fully_sampled_data_is_the_image(phantom):
    acquisition = simulate_kspace(phantom, acceleration=1, noise_std=0.0)
    assert error(sense(acquisition, 1e-6), phantom) < 1e-4
    assert wiener_lamda(acquisition) == 1e-5


@pytest.mark.parametrize("acs_lines", [0, 16])
def test_first_reconstruction_gives_the_scale(phantom, acs_lines):
    acquisition = simulate_kspace(phantom, acs_lines=acs_lines)
    found, true = (np.percentile(i, 99.5) for i in (first_reconstruction(acquisition), phantom))
    assert found == pytest.approx(true, rel=0.07)
    tenfold = simulate_kspace(phantom * 10, acs_lines=acs_lines, noise_std=0.1)
    np.testing.assert_allclose(sense(tenfold) / 10, sense(acquisition), atol=1e-4)


def test_cropped_channel_reconstructs_the_image_on_the_coarse_grid(phantom):
    acquisition = simulate_kspace(phantom, acceleration=2, noise_std=0.0)
    channel = acquisition.channel((64, 54))
    fine, coarse = acquisition.operator(), channel.operator
    assert coarse.image_shape == (64, 54) and coarse.is_phase_encoded_along_w
    small = ifft2c(fourier_crop(fft2c(torch.from_numpy(phantom)), (64, 54))).real
    model_error = (coarse.forward(small) - channel.data).norm() / channel.data.norm()
    print(f"model error on the cropped grid: {model_error:.4f}")
    assert model_error < 0.01 and fine.image_shape == (96, 80)


def test_scaling_brings_data_and_noise_to_u(phantom):
    acquisition = simulate_kspace(phantom * 300, noise_std=3.0)
    scaled = acquisition.scaled(300.0)
    assert scaled.noise_std == pytest.approx(0.01)
    np.testing.assert_allclose(scaled.kspace, simulate_kspace(phantom).kspace, atol=1e-4)


def real_problem(phantom: np.ndarray, coils: int = 3) -> Acquisition:
    """Every other line, and real coil maps and no noise: the best complex image is real, though none is asked for."""
    h, w = np.meshgrid(*(np.linspace(-1, 1, n) for n in phantom.shape[1:]), indexing="ij")
    angles = 2 * np.pi * np.arange(coils)[:, None, None] / coils
    maps = 1.2 + np.cos(angles) * h + np.sin(angles) * w
    maps = (maps / np.sqrt((maps**2).sum(axis=0)))[None].astype(np.complex64)
    mask = np.zeros(phantom.shape[1:], np.float32)
    mask[:, ::2] = 1
    kspace = mask * numpy_fft2c(maps * phantom[:, None])
    return Acquisition(kspace.astype(np.complex64), mask, maps, noise_std=0.001)


def objective(image: np.ndarray, acquisition: Acquisition, transform: sigpy.linop.Linop, lamda: float) -> float:
    """1/2 ||A x - y||^2 + lamda' ||K x||_1."""
    misfit = acquisition.operator().forward(torch.from_numpy(image)).numpy() - acquisition.kspace
    bound = lamda * np.abs(zero_filled(acquisition)).max()
    return 0.5 * float((np.abs(misfit) ** 2).sum()) + float(bound * np.abs(transform(image)).sum())


SPARSE = [
    (real_l1_wavelet, sigpy.linop.Wavelet, sigpy.mri.app.L1WaveletRecon),
    (total_variation, sigpy.linop.FiniteDifference, sigpy.mri.app.TotalVariationRecon),
]
each_sparse = pytest.mark.parametrize("method, transform, app", SPARSE, ids=["wavelet", "tv"])


@each_sparse
def test_real_constrained_solvers_agree_with_sigpy_where_the_image_is_real_anyway(phantom, method, transform, app):
    small, lamda = phantom[:1, 24:72, 16:64], 0.02
    acquisition = real_problem(small)
    bound = lamda * float(np.abs(zero_filled(acquisition)).max())
    theirs = app(
        acquisition.kspace[0], acquisition.coil_maps[0], bound, acquisition.mask, max_iter=300, show_pbar=False
    ).run()[None]
    ours = method(acquisition, lamda)
    assert np.abs(theirs.imag).max() < 1e-3 * np.abs(theirs).max()
    difference = error(ours, theirs.real)
    print(f"relative difference {difference:.1e}, regularised by {error(ours, small):.3f}")
    assert difference < 0.01 and error(ours, small) > 0.02
    terms = (acquisition, transform(small.shape, axes=(-2, -1)), lamda)
    assert objective(ours, *terms) < 1.0005 * objective(theirs.real.astype(np.float32), *terms)


@each_sparse
@pytest.mark.parametrize("lamda", [5e-4, 2e-3])
def test_the_objective_has_stopped_falling(phantom, method, transform, app, lamda):
    acquisition = simulate_kspace(phantom[:1])
    terms = (acquisition, transform(phantom[:1].shape, axes=(-2, -1)), lamda)
    start, end = objective(zero_filled(acquisition), *terms), objective(method(acquisition, lamda), *terms)
    further = objective(method(acquisition, lamda, iterations=1000), *terms)
    print(f"objective {start:.3f} at the zero-filled image, {end:.5f}, {further:.5f} after 1000 iterations")
    assert end < 0.5 * start and abs(end - further) < 1e-4 * further


def test_total_variation_of_a_step_is_its_closed_form():
    """All of k-space, one coil: each half moves towards the other by lamda' times 2 jumps over its W / 2 pixels."""
    step = np.zeros((1, 8, 16), np.float32)
    step[..., 8:] = 2.0
    acquisition = Acquisition(
        numpy_fft2c(step[:, None].astype(np.complex64)),
        np.ones((8, 16), np.float32),
        np.ones((1, 1, 8, 16), np.complex64),
        0.01,
    )
    shift = 0.1 * 2.0 * 2 / 8
    np.testing.assert_allclose(total_variation(acquisition, 0.1), np.where(step > 1, 2 - shift, shift), atol=1e-3)


@pytest.mark.parametrize("method", [real_l1_wavelet, total_variation])
def test_sparse_reconstructions_unfold_and_their_weight_has_no_units(phantom, method):
    acquisition = simulate_kspace(phantom)
    image = method(acquisition)
    assert image.shape == phantom.shape and image.dtype == np.float32
    assert error(image, phantom) < error(sense(acquisition), phantom)
    tenfold = simulate_kspace(phantom * 10, noise_std=0.1)
    np.testing.assert_allclose(method(tenfold) / 10, image, atol=1e-3)
