"""How methods are compared, on records whose errors are invented."""

from __future__ import annotations

import pytest
from any2all.evaluation.evaluate import Evaluation
from any2all.evaluation.realism import against_every_peer
from any2all.evaluation.records import Record
from any2all.evaluation.results import BEST, CENTRED, FAST, ONE_PASS, Results
from any2all.evaluation.rivalry import against_mps, against_regression, against_shared, centring, more_is_better
from small_evaluation import evaluation


def invented(prior, scores):
    """Records whose errors are given: (task, target, method) → MSE of each of six slices in three groups."""
    records = []
    for (task, target, method), mse in scores.items():
        groups = ["a", "a", "b", "b", "c", "c"]
        lists = [list(mse), [0.9] * 6, list(mse), [0.9] * 6, [0.0] * 6]
        passes = {"mps-1000": 2000}.get(method, 20)
        records.append(
            Record("discs", task, target, method, "R4" in task, passes, 4, 0.1, list(range(6)), groups, *lists)
        )
    return Results(evaluation(prior, None, []), records)


def test_a_chain_that_falls_is_said_to_fall(tiny_prior):
    good = {("T1", "CT", BEST): [4e-3] * 6, ("T1+T2star", "CT", BEST): [2e-3] * 6}
    good["T1+T2star+T2FLAIR", "CT", BEST] = [1e-3] * 6
    section = more_is_better(invented(tiny_prior, good))
    assert [v.holds for v in section.verdicts] == [True] and "+6.0" in section.verdicts[0].measured
    bad = {**good, ("T1+T2star+T2FLAIR", "CT", BEST): [3e-3, 3.1e-3, 3e-3, 3.2e-3, 3e-3, 3e-3]}
    section = more_is_better(invented(tiny_prior, bad))
    assert [v.holds for v in section.verdicts] == [False] and "falls" in section.body[0]


def test_mps_is_compared_at_its_cost(tiny_prior):
    own, slow = ("T1", "CT", BEST), ("T1", "CT", "mps-1000")
    section = against_mps(invented(tiny_prior, {own: [1e-3] * 6, slow: [1.05e-3] * 6}))
    assert section.verdicts[0].holds and "25.0 times cheaper, +0.21 dB" in section.verdicts[0].measured
    assert not against_mps(invented(tiny_prior, {own: [1.1e-3] * 6, slow: [1e-3] * 6})).verdicts[0].holds


def test_one_pass_is_held_to_a_regression_network(tiny_prior):
    scores = {("T1", "CT", "mcs-1"): [1.2e-3] * 6, ("T1", "CT", "regression"): [1e-3] * 6}
    section = against_regression(invented(tiny_prior, scores))
    assert not section.verdicts[0].holds and "-0.79 dB" in section.verdicts[0].measured
    assert len(section.verdicts) == 1 and "n/a" in section.body[1]


@pytest.mark.parametrize("fast, holds", [(1.1e-3, True), (1.3e-3, False)])
def test_fast_is_held_to_one_pass(tiny_prior, fast, holds):
    scores = {("T1", "CT", name): [e] * 6 for name, e in ((ONE_PASS, 1.2e-3), (FAST, fast), ("regression", 1e-3))}
    verdict = against_regression(invented(tiny_prior, scores)).verdicts[1]
    assert verdict.holds is holds  # a plain bool, as JSON has it


@pytest.mark.parametrize("times, holds", [(None, True), (1.0, True), (2.5, None)])
def test_a_regression_that_was_trained_less_proves_nothing(tiny_prior, monkeypatch, times, holds):
    monkeypatch.setattr(Evaluation, "trained_longer", lambda self, name: times)
    scores = {("T1", "CT", "mcs-1"): [1e-3] * 6, ("T1", "CT", "regression"): [1e-3] * 6}
    (verdict,) = against_regression(invented(tiny_prior, scores)).verdicts
    assert verdict.holds is holds and ("2.5 times its stacks" in verdict.measured) == (times == 2.5)
    worse = {**scores, ("T1", "CT", "mcs-1"): [2e-3] * 6}
    assert against_regression(invented(tiny_prior, worse)).verdicts[0].holds is False


def test_centred_means_stand_beside_plain_ones(tiny_prior):
    plain, centred = ("T1", "CT", BEST), ("T1", "CT", CENTRED)
    section = centring(
        invented(tiny_prior, {plain: [1e-3] * 6, centred: [1.01e-3] * 6, ("T1", "CT", "mcs-1"): [2e-3] * 6})
    )
    assert section.verdicts[0].holds and "-0.04 dB over 1 tasks" in section.verdicts[0].measured
    assert "26.99" in section.body[1] and "n/a" in section.body[1]  # one pass; no regression was tried
    assert not centring(invented(tiny_prior, {plain: [1e-3] * 6, centred: [1.1e-3] * 6})).verdicts[0].holds
    assert centring(invented(tiny_prior, {plain: [1e-3] * 6})) is None


RISING = [1e-3, 2e-3, 4e-3, 8e-3, 16e-3, 32e-3]


def on(found, slices):
    """The same results, whose methods have these slices only."""
    records = [r.on(slices.get(r.method, r.slices)) for r in found.records]
    return Results(found.evaluation, records)


def test_methods_are_compared_on_the_slices_that_both_have(tiny_prior):
    """On slice 2 alone all have the same error, however many slices each was tried on."""
    names = (BEST, "mps-1000", CENTRED, ONE_PASS, FAST, "regression", "mds-150", "mds-150-shared")
    whole = invented(tiny_prior, {("T1", "CT", name): RISING for name in names})
    few = {"mps-1000": [2], CENTRED: [0, 2], ONE_PASS: [1, 2], "regression": [2, 3], FAST: [2, 5],
           "mds-150": [0, 1, 2], "mds-150-shared": [2]}  # fmt: skip
    some = on(whole, few)
    assert "25.0 times cheaper, +0.00 dB, +0.00 dB" in against_mps(some).verdicts[0].measured
    assert "worst +0.00 dB" in against_regression(some).verdicts[0].measured
    assert "+0.00 dB over 1 tasks" in against_regression(some).verdicts[1].measured
    assert "+0.00 dB over 1 tasks" in centring(some).verdicts[0].measured
    row = [cell.strip() for cell in against_shared(some).body[1].splitlines()[2].split("|")[4:-1]]
    assert row == ["1", "23.98 / 23.98", "23.98 / 23.98"]


def test_methods_that_share_no_slice_are_not_compared(tiny_prior):
    names = (BEST, "mps-1000", CENTRED, ONE_PASS, "regression", "mds-150", "mds-150-shared")
    whole = invented(tiny_prior, {("T1", "CT", name): RISING for name in names})
    apart = on(whole, {BEST: [3], "mps-1000": [2, 4], CENTRED: [1], "regression": [0], ONE_PASS: [1],
                       "mds-150": [1], "mds-150-shared": [2]})  # fmt: skip
    for section in (against_mps, against_regression, centring, against_shared):
        assert section(apart) is None
    assert "n/a" in against_every_peer(apart).body[1]


def test_mps_on_all_slices_is_not_said_to_be_tried_on_few(tiny_prior):
    whole = invented(tiny_prior, {("T1", "CT", name): RISING for name in (BEST, "mps-1000")})
    assert "only" not in against_mps(whole).body[0] and "antithetic" in against_mps(whole).body[0]
    assert against_mps(on(whole, {"mps-1000": [2, 3]})).body[0].startswith("Slices 2, 3 only: too few")
