"""The paper's findings, on made-up records that agree with them and on others that do not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from any2all.evaluation.cases import Cases
from any2all.evaluation.evaluate import Evaluation
from any2all.evaluation.findings import (
    above_zero,
    against_everyone,
    auxiliary_inputs,
    ct_synthesis,
    more_or_better,
    realism,
    reconstruction,
)
from any2all.evaluation.records import Record
from any2all.evaluation.results import BEST, Results
from any2all.evaluation.tasks import Method, changed
from any2all.scores.statistics import Interval
from any2all.stack import load_stack

STACK = load_stack()
CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
GROUPS = ["a", "a", "b", "b", "c", "c"]
MPS, MDS = "mps-1000", "mds-150"
METHODS = [
    {"name": BEST, "sampler": "mcs", "steps": 20},
    {"name": "mcs-10", "sampler": "mcs"},
    {"name": MPS, "sampler": "mps"},
    {"name": "SENSE", "peer": "SENSE"},
]


def results(prior, errors):
    """Records of six slices in three groups: (method, task, target) → MSE of one sample of each group, or of all."""
    inside = torch.ones(6, 8, 8).bool().numpy()
    cases = Cases("made up", "rendered", torch.rand(6, 6, 8, 8), STACK.names, tuple(GROUPS), inside)
    records = []
    for (method, task, target), error in errors.items():
        each = list(error) if isinstance(error, list | tuple) else [error] * 3
        mse = [value for value in each for _ in range(2)]
        mean = [value / 2 for value in mse]
        slices, flat = list(range(6)), [0.9] * 6
        records.append(
            Record(
                "made up", task, target, method, "R" in task, 20, 4, 0.1, slices, GROUPS, mse, flat, mean, flat, flat
            )
        )
    return Results(Evaluation(prior, [cases], [], [Method.from_dict(m) for m in METHODS]), records)


def words(section):
    return [v.word for v in section.verdicts]


CHAIN = {"R4": 4e-3, "R4+T1": 2e-3, "R4+T1+T2star": 1.8e-3, "R4+T1+T2star+CT+PET": 1.7e-3}


@pytest.mark.parametrize("changes, expected", [
    ({}, ["yes", "yes"]),
    ({"R4+T1": 3.9e-3}, ["yes", "NO"]),  # T2star brings more
    ({"R4+T1+T2star": 2.5e-3}, ["NO", "yes"]),  # T2star spoils what T1 brought
    ({task: 5e-3 for task in list(CHAIN)[1:]}, ["NO", "NO"]),
])  # fmt: skip
def test_whether_auxiliary_inputs_help_and_t1_most(changes, expected, tiny_prior):
    errors = {(MDS, task, "T2FLAIR"): error for task, error in {**CHAIN, **changes}.items()}
    assert words(auxiliary_inputs(results(tiny_prior, errors))) == expected


def test_a_chain_that_was_tried_in_part_is_judged_as_far_as_it_goes(tiny_prior):
    errors = {(MPS, task, "T2FLAIR"): CHAIN[task] for task in ("R4", "R4+T1")}
    section = auxiliary_inputs(results(tiny_prior, errors))
    assert [v.asked for v in section.verdicts] == [f"{MPS}: each auxiliary modality helps T2FLAIR, up to R4+T1"]
    assert auxiliary_inputs(results(tiny_prior, {(MPS, "R4+T1", "T2FLAIR"): 1e-3})) is None


@pytest.mark.parametrize("mds, mps, expected", [
    (1e-3, 2e-3, "yes"), (2e-3, 1e-3, "NO"), ([1e-3, 3e-3, 1e-3], [2e-3, 1e-3, 2e-3], "–"),
])  # fmt: skip
def test_mds_and_mps_in_reconstruction_and_in_ct(mds, mps, expected, tiny_prior):
    """The same errors say yes to one claim and NO to the other; where groups disagree nothing can be said."""
    other = {"yes": "NO", "NO": "yes", "–": "–"}[expected]
    errors = {}
    for ending in ("", "-shared"):
        for task, target in (("R4+T1", "T2FLAIR"), ("T1", "CT")):
            errors |= {(MDS + ending, task, target): mds, (MPS + ending, task, target): mps}
    found = results(tiny_prior, errors)
    assert words(reconstruction(found)) == [expected] * 2 and words(ct_synthesis(found)) == [other] * 2
    asked = [v.asked for v in reconstruction(found).verdicts]
    assert asked == ["T2FLAIR: R4+T1, per_modality", "T2FLAIR: R4+T1, shared"]


def test_one_rendering_is_no_evidence():
    assert above_zero(Interval(1.0, None, None, 1)) is None
    assert [above_zero(Interval(0.5, low, high, 4)) for low, high in ((0.1, 1), (-0.1, 1), (-2, -1))] == [
        True,
        None,
        False,
    ]


def test_more_modalities_against_better_measurements(tiny_prior):
    def judged(more):
        errors = {(BEST, "R4", "T2FLAIR"): 2e-3, (BEST, "R8+T1", "T2FLAIR"): more}
        return more_or_better(results(tiny_prior, errors))

    assert words(judged(1e-3)) == ["yes"] and words(judged(3e-3)) == ["NO"]
    assert "+3.0" in judged(1e-3).verdicts[0].measured
    assert more_or_better(results(tiny_prior, {(BEST, "R4", "T2FLAIR"): 2e-3})) is None


@pytest.mark.parametrize("mps, mds, word", [(0.01, 0.02, "yes"), (0.03, 0.02, "NO")])
def test_realism_is_judged_by_draws_from_nothing(mps, mds, word, tiny_prior):
    def distance(name, value):
        fid = {modality: SimpleNamespace(value=value) for modality in STACK.names}
        return SimpleNamespace(name=name, n=200, fid=fid)

    found = results(tiny_prior, {(MPS, "T1", "CT"): 1e-3})
    assert realism(found) is None
    found.evaluation.unconditional = SimpleNamespace(distances=[distance("mds-50", mds)])
    assert realism(found) is None
    found.evaluation.unconditional.distances.append(distance("ancestral-50 (mps)", mps))
    assert words(realism(found)) == [word]


def test_mcs_beside_every_other_method(tiny_prior):
    """MPS is held to one sample, SENSE to the mean (half the MSE); other steps of MCS are no rivals."""
    errors = {(BEST, "R4", "T2FLAIR"): 2e-3, ("mcs-10", "R4", "T2FLAIR"): 1e-3, (MPS, "R4", "T2FLAIR"): 1.5e-3}
    errors["SENSE", "R4", "T2FLAIR"] = 3e-3
    section = against_everyone(results(tiny_prior, errors))
    assert [(v.asked.split()[3], v.word) for v in section.verdicts] == [(MPS, "NO"), ("SENSE", "yes")]
    assert "behind: T2FLAIR from R4" in section.verdicts[0].measured
    assert "+1.76 dB over 1 tasks" in section.verdicts[1].measured


@pytest.mark.parametrize("smaller", ["evaluate_reduced.json", "evaluate_small.json"])
def test_slow_methods_of_a_smaller_evaluation_are_tried_on_slices_that_the_others_have(smaller):
    whole, reduced = (json.loads((CONFIGS / name).read_text()) for name in ("evaluate.json", smaller))
    methods = [Method.from_dict(entry) for entry in changed(whole["method_list"], reduced["method_changes"])]
    cases = json.loads((CONFIGS / "manifest.json").read_text())[reduced["cases"]]
    count = sum(map(len, cases["renderings"].values())) * len(cases["positions_mm"])
    chosen = sorted({tuple(m.chosen_slices(count)) for m in methods if m.name in reduced["methods"]}, key=len)
    assert len(chosen) > 1 and all(set(few) <= set(many) for few, many in zip(chosen, chosen[1:]))


def test_methods_without_a_slice_in_common_are_not_compared(tiny_prior):
    found = results(tiny_prior, {(MDS, "R4+T1", "T2FLAIR"): 1e-3, (MPS, "R4+T1", "T2FLAIR"): 2e-3})
    apart = [found.records[0].on([0, 2, 4]), found.records[1].on([1, 3, 5])]
    assert words(reconstruction(found)) == ["yes"] and reconstruction(replace(found, records=apart)) is None
