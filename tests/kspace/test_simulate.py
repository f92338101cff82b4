"""Masks, maps and noise of simulated acquisitions."""

from __future__ import annotations

import numpy as np
import pytest
import sigpy.mri
from any2all.errors import Any2allError
from any2all.kspace.fourier import fft2c
from any2all.kspace.reconstruct import sense
from any2all.kspace.simulate import (
    birdcage_maps,
    equispaced_mask,
    poisson_mask,
    random_mask,
    simulate_kspace,
    smooth_phase,
)


def test_equispaced_mask_samples_the_zero_frequency_and_reports_its_true_acceleration(phantom):
    mask = equispaced_mask(80, 4)
    assert mask[40] == 1 and mask.sum() == 20 and set(np.diff(np.flatnonzero(mask))) == {4}
    with_acs = equispaced_mask(80, 4, acs_lines=12)
    assert with_acs[34:46].all() and with_acs.sum() == 20 + 12 - 3
    acquisition = simulate_kspace(phantom, acs_lines=12)
    assert acquisition.true_acceleration == pytest.approx(80 / 29)


def test_offset_moves_the_lines():
    assert np.flatnonzero(equispaced_mask(12, 4, offset=1)).tolist() == [1, 5, 9]


def test_random_mask_is_seeded_and_keeps_its_rate():
    mask = random_mask(120, 4, seed=3)
    assert mask.sum() == 30 and mask[60] == 1
    assert (mask == random_mask(120, 4, seed=3)).all() and (mask != random_mask(120, 4, seed=4)).any()


def test_noise_has_the_std_that_was_asked_for_and_only_on_sampled_points(phantom):
    noisy = simulate_kspace(phantom, noise_std=0.05, seed=1)
    clean = simulate_kspace(phantom, noise_std=0.0)
    noise = (noisy.kspace - clean.kspace)[..., noisy.mask > 0]
    std = np.sqrt(np.mean(np.abs(noise) ** 2))
    print(f"noise std asked 0.05, found {std:.4f} on {noise.size} points")
    assert std == pytest.approx(0.05, rel=0.02)
    assert np.std(noise.real) == pytest.approx(np.std(noise.imag), rel=0.03)
    assert (noisy.kspace[..., noisy.mask == 0] == 0).all()


def test_a_slice_has_the_same_noise_whatever_slices_come_with_it(phantom):
    both, first = simulate_kspace(phantom, seed=5), simulate_kspace(phantom[:1], seed=5)
    np.testing.assert_array_equal(both.kspace[:1], first.kspace)
    assert (simulate_kspace(phantom, seed=6).kspace != both.kspace).any()


def test_data_are_the_coil_weighted_transform(phantom):
    acquisition = simulate_kspace(phantom, acceleration=1, noise_std=0.0)
    np.testing.assert_allclose(acquisition.kspace, fft2c(acquisition.coil_maps * phantom[:, None]), atol=1e-5)
    np.testing.assert_allclose(np.sum(np.abs(birdcage_maps((20, 30))) ** 2, axis=1), 1, rtol=1e-5)


def test_smooth_phase_is_estimated_and_reconstruction_is_real_again(phantom):
    acquisition = simulate_kspace(phantom, acs_lines=24, noise_std=0.002, phase="smooth")
    ignored = simulate_kspace(phantom, acs_lines=24, noise_std=0.002).coil_maps
    true_phase = smooth_phase(phantom.shape[1:], 0)
    found = np.angle(np.sum(acquisition.coil_maps[0] * ignored[0].conj(), axis=0))
    wrong = np.abs(np.angle(np.exp(1j * (found - true_phase))))[phantom[0] > 0.1]
    assert np.median(wrong) < 0.05
    error = np.linalg.norm(sense(acquisition) - phantom) / np.linalg.norm(phantom)
    print(f"phase error {np.median(wrong):.3f} rad, SENSE error {error:.3f}")
    assert error < 0.06


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mask": "zigzag"}, r"simulate\.mask: unknown mask; got 'zigzag'; allowed: equispaced, random"),
        ({"phase": "rough"}, r"simulate\.phase: unknown phase; got 'rough'; allowed: none, smooth"),
        ({"phase": "smooth"}, r"simulate\.acs_lines: .*; got 0; allowed: at least 8"),
        ({"acceleration": 0}, r"simulate\.acceleration: .*; got 0; allowed: 1 to 80"),
        ({"acs_lines": 81}, r"simulate\.acs_lines: .*; got 81; allowed: 0 to 80"),
    ],
)
def test_refusals(phantom, settings, words):
    with pytest.raises(Any2allError, match=words):
        simulate_kspace(phantom, **settings)


def test_poisson_disc_points_are_two_dimensional_and_reconstruct(phantom):
    acquisition = simulate_kspace(phantom[:1], acceleration=4, acs_lines=12, noise_std=0.002, mask="poisson", seed=3)
    mask = acquisition.mask
    assert acquisition.true_acceleration == pytest.approx(4, rel=0.1)
    assert mask[48 - 6 : 48 + 6, 40 - 6 : 40 + 6].all() and not (mask == mask[:1]).all()
    again = simulate_kspace(phantom[:1], acceleration=4, acs_lines=12, noise_std=0.002, mask="poisson", seed=3)
    np.testing.assert_array_equal(again.kspace, acquisition.kspace)
    assert (poisson_mask((96, 80), 4, 12, seed=4) != mask).any()
    error = np.linalg.norm(sense(acquisition) - phantom[:1]) / np.linalg.norm(phantom[:1])
    print(f"SENSE error at R = 4, Poisson-disc: {error:.3f}")
    assert error < 0.08


@pytest.mark.parametrize(
    ("shape", "acceleration", "acs_lines"), [((96, 80), 4, 12), ((64, 64), 3, 8), ((48, 80), 6, 0)]
)
def test_poisson_disc_masks_are_those_of_sigpy(shape, acceleration, acs_lines):
    points = sigpy.mri.poisson(shape, acceleration, calib=(acs_lines, acs_lines), crop_corner=False, seed=2)
    assert (poisson_mask(shape, acceleration, acs_lines, seed=2) == (np.abs(points) > 0)).all()


@pytest.mark.parametrize(
    ("shape", "acceleration", "acs_lines"),
    [((160, 128), 24, 0), ((160, 128), 32, 24), ((160, 128), 64, 0), ((160, 160), 64, 0), ((40, 40), 16, 24)],
)
def test_a_poisson_disc_mask_is_found_or_refused_but_never_sought_for_ever(shape, acceleration, acs_lines):
    try:
        mask = poisson_mask(shape, acceleration, acs_lines)
    except Any2allError as error:
        assert error.key == "simulate.acceleration"
    else:
        assert abs(mask.size / mask.sum() - acceleration) <= 0.02 * acceleration


def test_a_poisson_disc_mask_that_cannot_be_is_refused(phantom):
    with pytest.raises(Any2allError, match=r"simulate\.acceleration: no Poisson-disc mask"):
        simulate_kspace(phantom[:1], acceleration=40, acs_lines=60, mask="poisson")
