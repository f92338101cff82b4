"""Baselines on a smooth phantom, and the acquisition on a coarser grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from any2all.kspace.reconstruct import first_reconstruction, l1_wavelet, sense, sigpy_sense, wiener_lamda, zero_filled
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
