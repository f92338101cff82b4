"""What estimates and other grids cost: every case is a study that runs, and what does not hold is named."""

from __future__ import annotations

import numpy as np
import pytest
from any2all import acquisitions
from any2all.acquisitions import CASES, Case, Outcome, draw_outcomes, measured, verdicts, write_study
from any2all.geometry import Grid, canonical, read_volume
from any2all.study import load_study

SMALL = {
    "one": ("SPL", (5, 40, 40), (6.0, 6.0, 6.0)),
    "other": ("SPL", (4, 40, 40), (8.0, 6.4, 5.6), (2.0, -3.0, 1.0), (1.0, 0.0, 4.0)),
    "sagittal": ("LSP", (8, 40, 40), (24.0, 6.0, 6.0)),
}


@pytest.fixture
def head(phantom_files, monkeypatch):
    """The phantom, and grids about its middle as coarse as it is."""
    monkeypatch.setattr(acquisitions, "CENTRE_MM", (0.0, 0.0, 0.0))
    monkeypatch.setattr(acquisitions, "GRIDS", {name: acquisitions._grid(*grid) for name, grid in SMALL.items()})
    return {name: canonical(read_volume(phantom_files / f"{name}.nii.gz", name)) for name in ("T1", "T2FLAIR")}


def test_every_case_has_the_same_mask_and_its_own_grid(head, tiny_prior, tmp_path):
    for number, case in enumerate(CASES):
        (tmp_path / str(number)).mkdir()
        reference = "T2FLAIR" if case.where in ("one", "other") else "T1"
        study = write_study(case, head, tiny_prior.stack, tmp_path / str(number), reference)
        spec = load_study(study, tiny_prior.stack)
        assert spec.outputs == ("T2FLAIR",) and spec.reference == reference
        assert ("T1" in spec.undersampled) == case.raw_t1 and ("T2FLAIR" in spec.missing) == (case.where == "nowhere")
        file = spec.modalities["T2FLAIR"].kspace
        assert (file is not None) == (case.estimated and case.where != "nowhere")
        if file is not None:
            arrays = np.load(file)
            assert set(arrays) == {"kspace", "mask", "affine"}  # neither maps nor noise are told
            assert Grid(acquisitions.GRIDS[case.where].shape, arrays["affine"]).same_as(acquisitions.GRIDS[case.where])
            assert arrays["mask"].sum(axis=1).tolist() == [28] * 40  # 24 in the middle and every fourth of the others


@pytest.mark.parametrize("case", [CASES[0], Case("sagittal", estimated=True), Case("other", True, estimated=True)])
def test_a_case_is_measured(head, tiny_prior, case, monkeypatch):
    monkeypatch.setattr(acquisitions, "SAMPLER", {**acquisitions.SAMPLER, "steps": 5})
    outcome = measured(case, head, tiny_prior)
    assert outcome.truth.shape == outcome.made.shape == acquisitions.GRIDS["other" if case.raw_t1 else "one"].shape
    assert 0.5 < np.quantile(outcome.truth, 0.99) < 1 and 3 < outcome.psnr < 40
    assert (outcome.sense is None) == (case.where == "nowhere") and len(outcome.row) == 6
    if case.raw_t1:  # the random prior knows nothing: what is right came through the data, to the right place
        assert outcome.psnr > 24 and outcome.sense > 28


def outcome(case: Case, error: float, of_sense: float = 0.1) -> Outcome:
    truth = np.zeros((4, 32, 32))
    truth[:, 8:24, 8:24] = 0.5
    first = None if case.where == "nowhere" else truth + of_sense
    return Outcome(case, truth, truth + error, first, 1.0)


def test_what_costs_a_decibel_fails(capsys, tmp_path):
    fine = [outcome(case, 0.02 if case.where != "nowhere" else 0.05) for case in CASES]
    assert verdicts(fine) == []
    worst = [outcome(case, 0.023 if case == Case("other", estimated=True) else 0.02) for case in CASES[1:]]
    failed = verdicts([fine[0], *worst])
    assert len(failed) == 1 and "T1 as an image: estimated maps, a phase and another grid cost +1.21 dB" in failed[0]
    useless = [outcome(case, 0.02, of_sense=0.01) for case in CASES]
    assert [words.split(":")[0] for words in verdicts(useless)] == [
        "sagittal raw data against no raw data",
        "sagittal raw data against SENSE of it",
    ]
    draw_outcomes(fine[:2], tmp_path / "pictures" / "all.png")
    assert (tmp_path / "pictures" / "all.png").stat().st_size > 5_000
    assert "less than 1" in capsys.readouterr().out
