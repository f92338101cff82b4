"""The self-check within the main job: it warns and is written down, it never refuses."""

import json
from itertools import combinations

import pytest
from any2all.diffusion.comparisons import KINDS
from any2all.diffusion.selfcheck import SelfCheck
from any2all.errors import Cancelled
from any2all.run import Run

ONE_PASS = {"name": "mcs", "steps": 1, "samples": 1}
GIVEN = {name: {"status": "available", "file": f"{name}.nii.gz"} for name in ("T1", "T2FLAIR")}


def limits(names, limit):
    """The same limit for every comparison; 1 is expected of each."""
    sets = [set_ for n in range(len(names)) for set_ in combinations(sorted(names), n)]
    expected = {"+".join(c): {m: 1.0 for m in names if m not in c} for c in sets}
    row = {m: (limit,) * len(names) for m in names}
    return SelfCheck(dict.fromkeys(KINDS, expected), dict.fromkeys(KINDS, row))


@pytest.fixture
def two_given(desk):
    return desk.only(ONE_PASS, T1=GIVEN["T1"], T2FLAIR=GIVEN["T2FLAIR"])


def summary(desk):
    return json.loads((desk.out / "summary.json").read_text())


def test_an_alarm_is_a_warning_that_names_the_modality(two_given):
    two_given.prior.card.selfcheck = limits(two_given.prior.stack.names, 1e-6)
    result = two_given.run()
    assert {o.name for o in result.outputs} == {"T2", "T2star", "CT", "PET"}
    for name, other in (("T1", "T2FLAIR"), ("T2FLAIR", "T1")):
        assert any(w.startswith(f"{name}: does not look like what the prior knows as {name}") for w in result.warnings)
        entry = summary(two_given)["self_check"]["modalities"][name]
        assert entry["fired"] and entry["score"] > entry["limit"] and entry["companions"] in ([], [other])
    assert result.seconds["self-check"] >= 0


def test_without_an_alarm_there_are_numbers_and_no_words(two_given):
    two_given.prior.card.selfcheck = limits(two_given.prior.stack.names, 1e6)
    result = two_given.run()
    assert not any("self-check" in w for w in result.warnings)
    check = summary(two_given)["self_check"]
    assert set(check["modalities"]) == {"T1", "T2FLAIR"} and 1 <= check["slices"] <= 8
    assert not any(entry["fired"] for entry in check["modalities"].values())


def test_raw_data_is_left_out(desk):
    desk.prior.card.selfcheck = limits(desk.prior.stack.names, 1e6)
    desk.run()
    assert set(summary(desk)["self_check"]["modalities"]) == {"T1"}
    raw = desk.document["modalities"]["T2FLAIR"]
    desk.only(T2FLAIR=raw).run(overwrite=True)
    assert summary(desk)["self_check"] == {"skipped": "no image was given"}


def test_a_prior_that_cannot_check_says_why(two_given):
    two_given.run()
    assert summary(two_given)["self_check"] == {"skipped": "no limits were measured for this prior"}
    two_given.prior.noise_levels = "shared"
    two_given.document["sampler"] = {"name": "mds", "steps": 2, "samples": 1}
    two_given.run(overwrite=True)
    assert "shared noise levels" in summary(two_given)["self_check"]["skipped"]


def test_it_comes_before_the_sampling_and_can_be_cancelled(two_given):
    two_given.prior.card.selfcheck = limits(two_given.prior.stack.names, 1e6)
    stages = []
    run = Run(lambda stage, *_: stages.append(stage), cancelled=lambda: stages[-1:] == ["self-check"])
    with pytest.raises(Cancelled):
        two_given.run(run)
    assert stages == ["reading", "registration", "measurements", "self-check"] and two_given.untouched
