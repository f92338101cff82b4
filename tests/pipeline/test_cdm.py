"""CDM in place of a sampler: the same way in and out, its own weights named, its refusals in words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from any2all.cdm.card import load_card as load_cdm_card
from any2all.cdm.mdn import STEPS
from any2all.cdm.source import CDMSource
from any2all.diffusion.prior import load_prior
from any2all.errors import Any2allError, Cancelled
from any2all.output import read_provenance
from any2all.run import Run
from any2all.study.presets import CDM_STEPS
from any2all.workflow import StudyInferer

T1 = {"status": "available", "file": "T1.nii.gz"}
FLAIR = {"status": "available", "file": "T2FLAIR.nii.gz"}


@pytest.fixture
def source(tiny_cdm_file: Path) -> CDMSource:
    return CDMSource(tiny_cdm_file, autocast=False)


@pytest.fixture
def asked(desk):
    """T1 and T2FLAIR given, CT and PET asked for, by CDM with three draws."""
    desk.only({"name": "cdm", "samples": 3, "seed": 5}, T1=T1, T2FLAIR=FLAIR)
    desk.document["outputs"] = ["CT", "PET"]
    return desk


def test_a_study_is_filled_by_cdm(asked, source):
    passes, told = [], []
    run = Run(lambda stage, *n: passes.append(n) if stage == "sampling" else None, announce=told.append, cdm=source)
    result = asked.run(run)
    slices = told[0].slices
    assert passes[-1] == (3 * slices, 3 * slices) and str(told[0]).startswith("cdm, 20 steps, 3 samples of ")
    given = asked.image("T1")
    for name in ("CT", "PET"):
        mean, std = asked.output(name), asked.output(f"{name}_std")
        assert mean.shape == given.shape and np.array_equal(mean.affine, given.affine)
        assert std.get_fdata().max() > 0 and np.isfinite(mean.get_fdata()).all()
        assert bytes(mean.header["descrip"]).startswith(b"SYNTHETIC Any2all")
    assert result.headline == "cdm, 20 steps, 3 samples" and CDM_STEPS == STEPS
    assert any("calibrated for no modality" in warning for warning in result.warnings)


def test_the_origin_names_the_weights_of_cdm_and_the_prior_that_checked(asked, source):
    asked.run(Run(cdm=source))
    card = load_cdm_card(source.file)
    origin = read_provenance(asked.out / "CT.nii.gz")
    assert origin["prior"] == {"name": "cdm", "sha256": card.sha256, "version": "0.0.0-tiny-cdm"}
    assert origin["self_check_prior"]["sha256"] == asked.prior.card.sha256 != card.sha256
    summary = json.loads((asked.out / "summary.json").read_text())
    assert summary["provenance"]["sampler"]["name"] == "cdm" and summary["self_check"] is not None
    assert summary["outputs"]["CT"]["std_scale"] == 1.0


def test_a_seed_draws_the_same_and_another_one_does_not(asked, source):
    asked.run(Run(cdm=source, batch_size=2))
    first = asked.output("CT").get_fdata()
    asked.run(Run(cdm=source, batch_size=7), overwrite=True)
    assert np.abs(asked.output("CT").get_fdata() - first).max() < 0.5  # HU
    asked.document["sampler"]["seed"] = 6
    asked.run(Run(cdm=source), overwrite=True)
    assert np.abs(asked.output("CT").get_fdata() - first).max() > 1


def test_keys_that_mean_nothing_to_it_are_ignored_aloud(asked, source):
    asked.document["sampler"] = {"name": "cdm", "steps": 7, "samples": 1, "gamma": 3.0}
    warnings = asked.run(Run(cdm=source)).warnings
    assert "sampler.steps means nothing to cdm and was ignored" in warnings
    assert "sampler.gamma means nothing to cdm and was ignored" in warnings
    assert not (asked.out / "CT_std.nii.gz").exists()


def test_it_stops_when_it_is_told_to(asked, source):
    drawn: list[int] = []
    run = Run(lambda stage, done, total: drawn.append(done) if stage == "sampling" else None, cdm=source)
    run.batch_size, run.cancelled = 2, lambda: max(drawn, default=0) >= 2
    with pytest.raises(Cancelled):
        asked.run(run)
    assert max(drawn) == 2 and asked.untouched


@pytest.mark.parametrize("file", [None, Path("/nowhere/cdm.pt")])
def test_without_a_trained_cdm_the_study_is_refused(asked, file):
    with pytest.raises(Any2allError, match="there is no trained CDM here") as refused:
        asked.run(Run(cdm=CDMSource(file)))
    error = refused.value
    assert (error.key, error.value, error.allowed) == ("sampler.name", "cdm", ("mcs", "mds", "mps"))
    assert "cdm_file" in error.hint and asked.untouched


def test_a_cdm_of_another_grid_is_refused(asked, tiny_cdm_file, tmp_path_factory):
    file = tmp_path_factory.mktemp("other") / "cdm.pt"
    shutil.copy(tiny_cdm_file, file)
    card = json.loads(tiny_cdm_file.with_suffix(".json").read_text())
    file.with_suffix(".json").write_text(json.dumps({**card, "spacing_mm": [4.0, 4.0, 6.0]}))
    with pytest.raises(Any2allError, match="another spacing_mm") as refused:
        asked.run(Run(cdm=CDMSource(file)))
    assert refused.value.key == "cdm_file" and "(4.0, 4.0, 6.0)" in str(refused.value)


def test_the_command_line_loads_it_once_and_only_when_it_is_asked_for(asked, tiny_cdm_file, monkeypatch):
    from any2all.cdm import source as module

    loaded, load = [], module.load_cdm
    monkeypatch.setattr(module, "load_cdm", lambda *a: loaded.append(a) or load(*a))
    inferer = StudyInferer(asked.prior, cdm_file=str(tiny_cdm_file))
    assert loaded == []
    (asked.folder / "study.json").write_text(json.dumps(asked.document))
    for overwrite in (False, True):
        inferer(asked.folder / "study.json", asked.out, overwrite)
    assert len(loaded) == 1


def test_cdm_is_not_taken_for_a_prior(tiny_cdm_file):
    with pytest.raises(Any2allError, match="this is CDM and no prior"):
        load_prior(tiny_cdm_file)
