"""Calibration block, ESPIRiT, phase and noise from the data."""

from __future__ import annotations

import numpy as np
import pytest
from any2all.errors import Any2allError
from any2all.kspace.coil_maps import (
    block_mask,
    calibration_block,
    espirit_maps,
    estimate_noise_std,
    fold_phase,
    refine_phase,
)
from any2all.kspace.formats import check_kspace
from any2all.kspace.prepare import prepare
from any2all.kspace.reconstruct import sense
from any2all.kspace.simulate import birdcage_maps, equispaced_mask, simulate_kspace, smooth_phase


def test_calibration_block_is_found_in_any_mask():
    lines = np.repeat(equispaced_mask(60, 4, acs_lines=13)[None], 50, axis=0)
    assert calibration_block(lines) == (50, 13)
    scattered = np.random.default_rng(0).random((51, 60)) < 0.1
    scattered |= block_mask((51, 60), (17, 20))
    scattered[25 - 8 - 1, 30], scattered[30, 30 + 10], scattered[25, 30 - 10 - 1] = False, False, False
    scattered[25 + 9, 30] = False
    assert calibration_block(scattered) == (17, 20)
    assert calibration_block(np.ones((7, 9))) == (7, 9)
    assert calibration_block(np.zeros((7, 9))) == (0, 0)


def test_espirit_finds_the_maps_up_to_a_phase(phantom):
    acquisition = simulate_kspace(phantom, acs_lines=24, noise_std=0.002)
    maps = espirit_maps(acquisition.kspace, acquisition.mask)
    agreement = np.abs(np.sum(maps.conj() * birdcage_maps(phantom.shape[1:]), axis=1))
    inside = phantom > 0.1
    print(f"least |<S, S_true>| in the head: {agreement[inside].min():.4f}")
    assert np.quantile(agreement[inside], 0.02) > 0.99
    power = np.sum(np.abs(maps) ** 2, axis=1)
    assert np.all(np.isclose(power, 1, atol=1e-4) | (power == 0))


def test_espirit_refuses_a_small_block(phantom):
    acquisition = simulate_kspace(phantom, acs_lines=6)
    with pytest.raises(Any2allError, match=r"coil_maps: the calibration block is too small .* at least 8 x 8"):
        espirit_maps(acquisition.kspace, acquisition.mask)


def test_refined_phase_follows_the_true_one(phantom):
    acquisition = simulate_kspace(phantom[:1], acs_lines=16, noise_std=0.002, phase="smooth", seed=2)
    maps = birdcage_maps(phantom.shape[1:])
    phase = refine_phase(acquisition.kspace, acquisition.mask, maps)[0]
    wrong = np.abs(np.angle(np.exp(1j * (phase - smooth_phase(phantom.shape[1:], 2)))))
    assert np.median(wrong[phantom[0] > 0.1]) < 0.05
    folded = fold_phase(maps, phase[None])
    np.testing.assert_allclose(np.abs(folded), np.abs(maps), atol=1e-6)


@pytest.mark.parametrize("noise_std", [0.01, 0.04])
def test_noise_is_estimated_from_the_outer_samples(phantom, noise_std):
    acquisition = simulate_kspace(phantom, noise_std=noise_std)
    assert estimate_noise_std(acquisition.kspace, acquisition.mask) == pytest.approx(noise_std, rel=0.1)


def test_a_slice_without_support_is_empty_and_spoils_nothing(phantom):
    """Coil maps that are zero in a slice, as ESPIRiT leaves them where it finds no head."""
    made = simulate_kspace(phantom, acceleration=2, acs_lines=24, noise_std=0.002)
    maps = np.repeat(made.coil_maps, 2, axis=0)
    maps[1] = 0
    acquisition = prepare(check_kspace({"kspace": made.kspace, "mask": made.mask, "coil_maps": maps}))
    assert np.isfinite(acquisition.coil_maps).all()
    images = sense(acquisition)
    assert images[0].max() > 0.5 and (images[1] == 0).all()
