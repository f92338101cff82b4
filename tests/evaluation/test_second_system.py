"""CDM's claims on made-up records that agree with them and on others that do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from any2all.evaluation.cases import Cases
from any2all.evaluation.distribution import KID
from any2all.evaluation.evaluate import Evaluation
from any2all.evaluation.page import Page
from any2all.evaluation.realism import Realism
from any2all.evaluation.records import Record
from any2all.evaluation.report import section_text
from any2all.evaluation.results import BEST, Results
from any2all.evaluation.second_system import TITLE, second_system
from any2all.evaluation.tasks import Method
from any2all.stack import load_stack

STACK = load_stack()
MDS, MPS = "mds-150", "mps-1000"
NAMES = ("cdm", "cdm-null", "cdm-unconditional", "cdm-oracle")
METHODS = [
    *({"name": name, "peer": name} for name in NAMES),
    *({"name": name, "sampler": name[:3]} for name in (MDS, MPS, BEST)),
]
COST = {MDS: (150, 3.0), MPS: (2000, 50.0), BEST: (20, 0.3)}
GOOD = {
    "cdm": 2e-3,
    "cdm-null": 2.5e-3,
    "cdm-unconditional": 3e-3,
    "cdm-oracle": 1e-3,
    MDS: 4e-3,
    MPS: 5e-3,
    BEST: 3e-3,
}


def cases_of(name: str, kind: str, groups: list[str]) -> Cases:
    count = len(groups)
    return Cases(name, kind, torch.rand(count, 6, 8, 8), STACK.names, tuple(groups), np.ones((count, 8, 8), bool))


def record(cases: Cases, method: str, error, mean=None, seconds=None, ssim=0.9, slices=None) -> Record:
    """MSE of one sample by group, or the same in all; of the mean half of it."""
    names = list(dict.fromkeys(cases.groups))
    by_group = dict(zip(names, error if isinstance(error, list) else [error] * len(names)))
    mse = [by_group[g] for g in cases.groups]
    passes, default = COST.get(method, (1, 0.02))
    single = method in ("cdm-null", "cdm-oracle")
    of_mean = mse if single else [value / 2 if mean is None else mean for value in mse]
    whole = Record(
        *(cases.name, "T1", "CT", method, False, passes, 1 if single else 4, seconds or default),
        *(list(range(len(cases))), list(cases.groups), mse, [ssim] * len(mse), of_mean, [ssim] * len(mse), mse),
    )
    return whole if slices is None else whole.on(slices)


def results(prior, errors, *sets: Cases, **more) -> Results:
    sets = sets or (cases_of("made up", "rendered", list("aabbcc")),)
    records = [
        record(cases, method, error, **more.get(method, {})) for cases in sets for method, error in errors.items()
    ]
    return Results(Evaluation(prior, list(sets), [], [Method.from_dict(m) for m in METHODS]), records)


def word(found: Results, asked: str) -> str:
    section = second_system(found)
    return next(v.word for v in section.verdicts if v.asked.startswith(asked))


def test_everything_holds_where_it_does(tiny_prior):
    section = second_system(results(tiny_prior, GOOD))
    words = {v.asked: v.word for v in section.verdicts}
    # SSIM is equal everywhere, so that nothing is behind and nothing ahead in it
    assert {asked for asked, said in words.items() if said != "yes"} == {
        "the truth's own representation better than a drawn one, one sample",
        "drawn from the given images: better than drawn from nothing, one sample",
        "drawn from the given images: better than drawn from nothing, mean of the samples",
    }
    assert len(words) == 3 + 6 + 5
    page = Page("t", "l", [], [section], [], []).html()
    assert TITLE in page and page.count("badge holds") >= 11


def test_the_better_one_is_ahead_in_both_scores(tiny_prior):
    better = {name: {"ssim": ssim} for name, ssim in zip(NAMES, (0.90, 0.88, 0.85, 0.95))}
    found = results(tiny_prior, GOOD, **better)
    assert word(found, "the truth's own") == "yes" and word(found, "drawn from the given images: better") == "yes"
    better["cdm-oracle"] = {"ssim": 0.89}
    assert word(results(tiny_prior, GOOD, **better), "the truth's own") == "NO"


@pytest.mark.parametrize("seconds, mds, others", [(0.02, "yes", "yes"), (0.4, "NO", "NO"), (0.29, "yes", "yes")])
def test_cheaper_means_ten_times_faster_than_mds_and_faster_than_the_rest(seconds, mds, others, tiny_prior):
    found = results(tiny_prior, GOOD, cdm={"seconds": seconds})
    assert word(found, f"cdm: fewer passes than {MDS}, and 10 times") == mds
    assert word(found, f"cdm: fewer passes than {BEST}, and faster") == others
    assert "at least 7.5 times" in section_text(second_system(results(tiny_prior, GOOD, cdm={"seconds": 0.4})))


@pytest.mark.parametrize("null, expected", [(2.5e-3, "yes"), (1e-3, "NO"), ([1e-3, 4e-3, 1e-3], "yes")])
def test_no_guidance_against_guidance(null, expected, tiny_prior):
    """Where renderings disagree nothing is clearly behind."""
    section = second_system(results(tiny_prior, {**GOOD, "cdm-null": null}))
    said = {v.asked: v for v in section.verdicts}["drawn from the given images: no worse than no guidance, one sample"]
    assert said.word == expected and ("behind: CT from T1 (-3.01 dB)" in said.measured) == (expected == "NO")


def test_one_sample_is_held_to_one_and_the_mean_to_the_mean(tiny_prior):
    found = results(tiny_prior, {**GOOD, MDS: 1.9e-3}, **{MDS: {"mean": 1.5e-3}})
    assert word(found, f"cdm clearly behind {MDS} in no task, one") == "NO"
    assert word(found, f"cdm clearly behind {MDS} in no task, mean") == "yes"
    single = results(tiny_prior, GOOD)
    lonely = [r if r.method != MPS else Record(**{**r.__dict__, "samples": 1}) for r in single.records]
    asked = [v.asked for v in second_system(Results(single.evaluation, lonely)).verdicts if MPS in v.asked]
    assert asked == [f"cdm: fewer passes than {MPS}, and faster", f"cdm clearly behind {MPS} in no task, one sample"]


def test_a_slow_method_is_compared_on_its_own_slices(tiny_prior):
    found = results(tiny_prior, {**GOOD, "cdm": [2e-3, 9e-3, 2e-3]}, **{MPS: {"slices": [0, 1, 4]}})
    assert word(found, f"cdm clearly behind {MPS} in no task, one") == "yes"
    apart = [r.on([2, 3]) if r.method == MPS else r.on([0, 1, 4, 5]) for r in results(tiny_prior, GOOD).records]
    assert MPS not in " ".join(v.asked for v in second_system(Results(found.evaluation, apart)).verdicts)


def test_one_rendering_leaves_it_open(tiny_prior):
    found = results(tiny_prior, GOOD, cases_of("alone", "rendered", ["a"] * 3))
    assert word(found, f"cdm clearly behind {MDS}") == "–" and word(found, "the truth's own") == "–"
    assert word(found, f"cdm: fewer passes than {MDS}") == "yes"


def test_real_subjects_are_the_groups(tiny_prior):
    sets = [cases_of(name, "real", [name] * 2) for name in ("p1", "p2")]
    errors = {name: GOOD[name] for name in ("cdm", "cdm-null", "cdm-unconditional", BEST)}
    section = second_system(results(tiny_prior, errors, *sets))
    text = " ".join(section_text(section).split())
    assert "Real subjects (p1, p2)" in text and "| CT | T1 | 2 | +1.76 [1.76, 1.76]" in text
    assert {v.word for v in section.verdicts if "no worse" in v.asked or BEST in v.asked} == {"yes"}
    alone = second_system(results(tiny_prior, errors, sets[0]))
    assert {v.word for v in alone.verdicts} == {"–"}


def test_kid_where_there_are_enough_images(tiny_prior, monkeypatch):
    many = cases_of("many", "rendered", [name for name in "abcdefghij" for _ in range(6)])
    found = results(tiny_prior, GOOD, many)
    kids = {"cdm": KID(0.03, 0.001, 240, 60), MDS: KID(0.02, 0.001, 240, 60), BEST: KID(0.029, 0.001, 240, 60)}
    monkeypatch.setattr(Results, "prediction", lambda self, cases, task, method: method)
    seen = "any2all.evaluation.second_system.realism"
    monkeypatch.setattr(seen, lambda results, cases, target, name: Realism(None, kids.get(name)))
    words = {v.asked: v.word for v in second_system(found).verdicts if "KID" in v.asked}
    assert words == {
        f"cdm: KID clearly above that of {MDS} in no task": "NO",
        f"cdm: KID clearly above that of {BEST} in no task": "yes",
    }
    assert not any("KID" in v.asked for v in second_system(results(tiny_prior, GOOD)).verdicts)


def test_what_is_absent_is_said(tiny_prior):
    found = results(tiny_prior, {MDS: 1e-3})
    found.evaluation.left_out.clear()
    assert second_system(found).body == ("CDM is no part of this evaluation: it has no row `cdm`.",)
    found.evaluation.left_out["cdm"] = "cdm.pt is not beside the evaluated prior"
    section = second_system(found)
    assert section.verdicts == () and "cdm.pt is not beside" in section.body[0]
    some = second_system(results(tiny_prior, {"cdm": 1e-3, MDS: 2e-3}))
    assert "Not in this evaluation: mps-1000, mcs-20, cdm-null, cdm-unconditional, cdm-oracle" in some.body[0]
