"""How weights are stored."""

from __future__ import annotations

import pytest
import torch
from any2all.diffusion.weights import as_bits, packed, unpacked
from any2all.errors import Any2allError


def test_eight_bits_move_no_weight_by_more_than_half_a_step():
    weights = (
        torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(1))
        * torch.logspace(-6, 1, 6)[:, None, None, None]
    )
    stored = packed({"w": weights, "b": torch.arange(3.0), "n": torch.tensor(7)}, bits=8)
    assert stored["w"].dtype == torch.int8 and stored["w"].shape == weights.shape and stored["w.scale"].shape == (6,)
    assert stored["b"].dtype == torch.float16 and stored["n"].dtype == torch.int64

    state = unpacked(stored)
    assert set(state) == {"w", "b", "n"} and state["w"].dtype == torch.float32 and int(state["n"]) == 7
    half_step = weights.abs().flatten(1).amax(1) / 127 / 2
    moved = (state["w"] - weights).abs().flatten(1).amax(1)
    assert (moved <= 1.01 * half_step).all()  # a scale is itself rounded, to 8 bits of mantissa
    assert (moved > 0.5 * half_step).all()
    torch.testing.assert_close(state["b"], torch.arange(3.0))


def test_packing_what_was_unpacked_changes_nothing():
    """A prior that is loaded and written again is the same file, so its checksum stays."""
    once = packed({"w": torch.randn(64, 32, 3, 3), "v": torch.randn(5, 3)}, bits=8)
    again = packed(unpacked(once), bits=8)
    assert once.keys() == again.keys() and all(torch.equal(once[name], again[name]) for name in once)


def test_rows_of_zeros_stay_zeros():
    weights = torch.stack([torch.zeros(5), torch.ones(5)])
    torch.testing.assert_close(unpacked(packed({"w": weights}, bits=8))["w"], weights, atol=1e-3, rtol=0)


def test_a_name_that_only_looks_like_a_scale_is_a_weight():
    state = {"norm.scale": torch.ones(3), "w": torch.ones(2, 2)}
    assert unpacked(packed(state, bits=8)).keys() == state.keys()


def test_another_number_of_bits_is_refused_in_words():
    assert as_bits(8) == 8 and as_bits(16) == 16
    with pytest.raises(Any2allError, match="weight_bits.*4.*8, 16") as refusal:
        as_bits(4)
    assert refusal.value.key == "weight_bits"
