"""Signal equations against a second implementation, and smooth fields against what B-splines promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from any2all.phantom.fields import SmoothField, generator
from any2all.phantom.signal import TissueValues, inversion_spin_echo, mprage, null_time, spoiled_gradient_echo
from any2all.phantom.tissues import CLASS_OF_LABEL, INDEX, TISSUES


def _tissue(t1: float, t2: float = 80.0, t2star: float = 50.0, pd: float = 0.8) -> TissueValues:
    return TissueValues(*(torch.tensor([v], dtype=torch.float64) for v in (t1, t2, t2star, pd)))


@pytest.mark.parametrize("t1", [400.0, 850.0, 1400.0, 4300.0])
def test_mprage_is_the_steady_state_of_a_pulse_by_pulse_simulation(t1: float) -> None:
    ti, tr, te, flip, spacing, echoes = 900.0, 2200.0, 3.0, 9.0, 7.0, 170
    mz, centre = 1.0, 0.0
    for _ in range(12):
        mz = 1 - (1 + mz) * math.exp(-(ti - echoes * spacing / 2) / t1)
        for pulse in range(echoes):
            if pulse == echoes // 2:
                centre = mz
            mz = 1 - (1 - mz * math.cos(math.radians(flip))) * math.exp(-spacing / t1)
        mz = 1 - (1 - mz) * math.exp(-(tr - ti - echoes * spacing / 2) / t1)
    expected = 0.8 * abs(centre) * math.sin(math.radians(flip)) * math.exp(-te / 50.0)
    got = mprage(_tissue(t1), ti=ti, tr=tr, te=te, flip_deg=flip, echo_spacing=spacing, echoes=echoes)
    assert float(got) == pytest.approx(expected, rel=1e-6)


def test_the_null_time_nulls() -> None:
    ti = null_time(4300.0, 9000.0)
    assert float(inversion_spin_echo(_tissue(4300.0, 1600.0), tr=9000.0, te=100.0, ti=ti)) < 1e-12
    assert float(inversion_spin_echo(_tissue(850.0), tr=9000.0, te=100.0, ti=ti)) > 0.1


def test_spoiled_gradient_echo_peaks_at_the_ernst_angle() -> None:
    ernst = math.degrees(math.acos(math.exp(-600.0 / 850.0)))
    at, below, above = (
        float(spoiled_gradient_echo(_tissue(850.0), tr=600.0, te=20.0, flip_deg=ernst + d)) for d in (0, -3, 3)
    )
    assert at > below and at > above


def test_smooth_field_has_unit_variance_and_does_not_depend_on_the_grid() -> None:
    field = SmoothField(generator(1, 2), 9.0)
    line = torch.linspace(-80, 80, 41)
    values = field(line, line, line)
    assert float(values.std()) == pytest.approx(1.0, abs=0.05)
    assert torch.allclose(field(line[3:5], line[::2], line[7:]), values[:, 3:5, ::2, 7:], atol=1e-5)
    field.values.fill_(2.0)
    assert torch.allclose(field(line, line, line), torch.tensor(2.0), atol=1e-5)


def test_every_label_has_one_tissue_and_sides_share_it() -> None:
    codes = [code for tissue in TISSUES for code in tissue.labels]
    assert len(codes) == len(set(codes))
    assert CLASS_OF_LABEL[2] == CLASS_OF_LABEL[41] == INDEX["white_matter"]
    documented = [0, 24, 72, 85, 136, 163, 137, 164, 502, *range(506, 510), 511, 512, 514, 515, 516, 530, 14, 15, 16]
    assert set(documented) <= set(CLASS_OF_LABEL)
    assert np.all([t.t2star <= t.t2 for t in TISSUES])
