"""How alike neighbouring slices' noise must be: what is measured brings flicker to the truth's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from any2all.training import coherence
from any2all.training.coherence import TRIED, measure_slice_correlation, settled


@pytest.mark.parametrize(
    "flicker, expected",
    [
        ((1.3, 1.1, 0.9), 0.7),  # halfway between 0.5 and 0.9
        ((0.9, 0.8, 0.7), 0.0),  # never enough: independent slices are nearest
        ((1.9, 1.5, 1.2), 0.9),  # always too much
        ((1.2, 1.25, 1.0), 0.9),  # noise of the measurement makes no second answer
    ],
)
def test_the_correlation_is_where_flicker_is_the_truths(flicker, expected):
    assert settled(flicker) == pytest.approx(expected)


def test_every_modality_gets_its_own(tiny_prior, monkeypatch):
    """The truth changes along z like noise of correlation 0.5 in one modality, 0.8 in others; each finds its own."""
    wanted = {name: 0.5 if name == "CT" else 0.8 for name in tiny_prior.stack.names}
    shape = (12, tiny_prior.channels, 32, 32)

    asked = []

    def rendered(head, *_, seeds, **__):
        asked.append((head, *seeds))
        return torch.zeros(shape)

    def sampled(prior, slices, given, rho, seed):
        assert slices.shape == shape
        missing = [name for m, name in enumerate(prior.stack.names) if m not in given]
        return {name: float(np.sqrt((1 - rho) / (1 - wanted[name]))) for name in missing}

    monkeypatch.setattr(coherence, "validation_slices", rendered)
    monkeypatch.setattr(coherence, "_flicker", sampled)
    found = measure_slice_correlation(tiny_prior, ["head.nii.gz", "another.nii.gz"])
    assert asked == [("head.nii.gz", 4000), ("another.nii.gz", 4001)]
    assert set(found) == set(wanted)
    assert all(found[name] == pytest.approx(wanted[name], abs=0.05) for name in found), found


def test_flicker_falls_with_the_correlation(tiny_prior):
    slices = torch.rand(12, 6, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = [coherence._flicker(tiny_prior, slices, (0,), rho, 0) for rho in TRIED]
    assert set(found[0]) == set(tiny_prior.stack.names[1:])
    for name in found[0]:
        assert found[0][name] > 1.2 * found[-1][name], name
