"""What CDM's stages are held to: guidance compared by hand, L_MRM before and after, and numbers that reach the card."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from any2all.cdm import validate
from any2all.cdm.card import load_card
from any2all.cdm.guidance import AVERAGED, CORRECTED, MEAN, compare_guidance
from any2all.cdm.predictor import load_cdm
from any2all.cdm.scores import masked_loss
from small_cdm import MATRIX, STACK, saved_cdm, small_cdm, volume

GIVEN, TARGETS = ("T1", "T2FLAIR", "T2star"), ("T2", "CT", "PET")
GROUPS = ["a", "a", "b", "b"]
CHANNELS = [STACK.index(name) for name in GIVEN]


def by_hand(images: torch.Tensor, truth: torch.Tensor) -> list[float]:
    """PSNR in dB, data range 1 in u, of each group."""
    error = ((images - truth) / 2).square().mean(dim=(1, 2)).numpy()
    return [-10 * np.log10(error[i : i + 2].mean()) for i in (0, 2)]


def test_gains_of_guidance_by_hand():
    cdm, slices = small_cdm(), volume(4)
    found = {g.target: g for g in compare_guidance(cdm, slices, GROUPS, GIVEN, TARGETS, samples=2)}
    assert list(found) == list(TARGETS)
    m = STACK.index("CT")
    null = by_hand(cdm.predict(slices, CHANNELS, guidance="null")[0, :, m], slices[:, m])
    drawn = cdm.predict(slices, CHANNELS, 2)[:, :, m]
    oracle = by_hand(cdm.predict(slices, CHANNELS, guidance="oracle", truth=slices)[0, :, m], slices[:, m])
    ct, mean = found["CT"], by_hand(drawn.mean(0), slices[:, m])
    assert ct.psnr["null"] == pytest.approx(np.mean(null)) and ct.psnr["oracle"] == pytest.approx(np.mean(oracle))
    assert ct.gaps["mean of samples - null"].mean == pytest.approx(np.mean(mean) - np.mean(null), abs=1e-6)
    assert ct.gaps["mean of samples - null"].n_groups == 2 and ct.psnr[MEAN] == pytest.approx(np.mean(mean))
    assert set(ct.gaps) == set(validate.GAPS) and ct.psnr[AVERAGED] != ct.psnr[CORRECTED]


def test_a_mean_without_its_error_is_the_truth_where_there_is_one_slice():
    """Of a single slice the shared error is the whole error, so that the corrected guidance is the oracle's."""
    cdm, slices = small_cdm(), volume(1)
    found = compare_guidance(cdm, slices, ["a"], GIVEN, TARGETS, samples=1)
    assert all(g.psnr[CORRECTED] == pytest.approx(g.psnr["oracle"], abs=1e-4) for g in found)
    assert all(
        g.gaps["oracle - source"].low is None and len(g.to_json()["gaps"]["oracle - source"]) == 1 for g in found
    )


def test_where_the_rest_is_unknown_no_column_looks_at_the_truth():
    (found,) = compare_guidance(small_cdm(), volume(4), GROUPS, ("T1", "T2FLAIR"), ["T2"], samples=2)
    assert set(found.psnr) == {"source", "unconditional", "null", MEAN}
    assert set(found.gaps) == {"source - null", "mean of samples - null", "source - unconditional"}


def test_l_mrm_of_the_trained_network_beside_an_untrained_one():
    cdm, slices = small_cdm(), volume(2)
    with torch.no_grad():
        for parameter in (cdm.mrm.to_pixels.weight, cdm.mrm.to_pixels.bias):
            parameter.zero_()  # predicts the middle of the range, which an untrained network misses
    found = validate.held_out_loss(cdm, slices)
    assert found["trained"] == masked_loss(cdm.mrm, slices)["L_MRM"] == pytest.approx(1 / 3, abs=0.05)
    assert found["untrained"] > found["trained"]


def test_the_command_prints_its_parts_and_stores_them(tmp_path, monkeypatch, capsys):
    file = saved_cdm(tmp_path)
    heads = [tmp_path / "subject00.nii.gz"]
    monkeypatch.setattr(validate, "load_cdm", lambda model: load_cdm(model, autocast=False))
    monkeypatch.setattr(validate, "data_folder", lambda: tmp_path)
    monkeypatch.setattr(validate, "DataSplits", lambda folder, split: SimpleNamespace(head_labels=heads))
    monkeypatch.setattr(validate, "validation_slices", lambda *a: volume(a[-2] * len(a[-1])))
    real = compare_guidance(small_cdm(), volume(4), ["p"] * 4, ("T1", "T2FLAIR"), ["T2"], samples=2)
    monkeypatch.setattr(validate, "real_subjects", lambda *a: {"p01": real})
    before = load_card(file)
    options = ["--model", str(file), "--renderings", "2", "--slices", "3", "--samples", "2"]
    validate.main(options)
    assert load_card(file).training == before.training == {}
    validate.main([*options, "--store"])
    said, stored = capsys.readouterr().out, load_card(file).training["validation"]
    assert "L_MRM: " in said and "within bounds" in said and "Real subject p01" in said and MATRIX == before.matrix
    assert (stored["head"], stored["renderings"], set(stored["samples"])) == ("subject00", 2, set(STACK.names))
    assert set(stored["guidance"]) == {"T2", "CT", "PET", "T2FLAIR"} and stored["real"]["p01"]["T2"]["psnr"]
    assert load_card(file).sha256 == before.sha256 and json.dumps(stored)


@pytest.mark.parametrize("key", ["renderings", "slices", "samples"])
def test_numbers_that_measure_nothing_end_in_one_line(key, capsys):
    with pytest.raises(SystemExit) as left:
        validate.main([f"--{key}", "0"])
    assert left.value.code == 2 and capsys.readouterr().err.startswith(f"error: {key}: this number cannot be used")
