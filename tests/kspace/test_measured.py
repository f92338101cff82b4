"""Held-out samples, and the measured brain through the whole room."""

from __future__ import annotations

import numpy as np
import pytest
from any2all.errors import Any2allError
from any2all.kspace.coil_maps import block_mask, calibration_block
from any2all.kspace.formats import check_kspace, read_kspace
from any2all.kspace.holdout import hold_out
from any2all.kspace.prepare import prepare
from any2all.kspace.reconstruct import l1_wavelet, sense, zero_filled
from any2all.kspace.simulate import simulate_kspace


def test_held_out_lines_are_gone_from_the_data_and_score_the_truth(phantom):
    acquisition = simulate_kspace(phantom, acs_lines=16, noise_std=0.001)
    raw = check_kspace({"kspace": acquisition.kspace})
    kept, held = hold_out(raw, fraction=0.2, seed=1)
    assert (kept.mask == kept.mask[:1]).all() and (held.mask == held.mask[:1]).all()
    assert (kept.mask + held.mask == raw.mask).all() and held.mask[0].sum() == 3
    assert (kept.kspace[..., held.mask > 0] == 0).all()
    assert calibration_block(kept.mask) == calibration_block(raw.mask)
    # The outer lines of a smooth phantom are weak: noise alone is the error that the truth leaves.
    noise = 0.001 * np.sqrt(held.mask.sum() * raw.kspace.shape[0] * raw.kspace.shape[1]) / np.linalg.norm(held.kspace)
    assert held.error(phantom, acquisition.coil_maps) == pytest.approx(noise, rel=0.05)
    assert held.error(0 * phantom, acquisition.coil_maps) == pytest.approx(1)


def test_nothing_to_hold_out_is_refused():
    with pytest.raises(Any2allError, match="nothing can be held out; got '0 samples"):
        hold_out(check_kspace({"kspace": np.ones((1, 2, 8, 8), np.complex64)}))


def test_prepare_estimates_what_the_file_does_not_say(phantom):
    simulated = simulate_kspace(phantom[:1], acs_lines=24, noise_std=0.004, phase="smooth")
    acquisition = prepare(check_kspace({"kspace": simulated.kspace}))
    assert acquisition.noise_std == pytest.approx(0.004, rel=0.15)
    assert any("ESPIRiT" in note for note in acquisition.notes)
    inside = phantom[:1] > 0.1
    difference = np.linalg.norm((sense(acquisition) - phantom[:1])[inside]) / np.linalg.norm(phantom[:1][inside])
    assert difference < 0.06
    assert prepare(check_kspace({"kspace": simulated.kspace, "noise_std": 0.1})).noise_std == 0.1


def test_measured_brain(measured_file):
    raw = read_kspace(measured_file)
    assert raw.kspace.shape == (1, 8, 230, 180) and raw.mask.mean() == pytest.approx(0.124, abs=1e-3)
    assert calibration_block(raw.mask) == (24, 24)
    kept, held = hold_out(raw, seed=0)
    assert not (held.mask * block_mask(held.mask.shape, (24, 24))).any()
    acquisition = prepare(kept)
    images = {
        "zero-filled": zero_filled(acquisition),
        "SENSE": sense(acquisition, 0.02),
        "L1-wavelet": l1_wavelet(acquisition),
    }
    errors = {name: held.error(image, acquisition.coil_maps) for name, image in images.items()}
    print("hold-out errors: " + ", ".join(f"{name} {value:.3f}" for name, value in errors.items()))
    assert errors["SENSE"] < 0.31 and errors["L1-wavelet"] < 0.29 and errors["zero-filled"] > 0.5
    # Anterior up: the frontal interhemispheric scalp is a narrow arc near the top edge of the picture.
    rows = np.flatnonzero(images["L1-wavelet"][0].max(axis=1) > 0.3)
    assert 3 <= rows[0] <= 20 and 195 <= rows[-1] <= 215
