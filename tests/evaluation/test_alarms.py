"""The studies on which the self-check is counted: which are proper, and what is foreign in the others."""

from itertools import combinations

import numpy as np
import torch
from any2all.evaluation import alarms
from any2all.evaluation.alarms import PROPER, alarm_rates, studies
from any2all.evaluation.cases import Cases
from any2all.stack import load_stack

STACK = load_stack()


def cases():
    """Two heads of two slices; every pixel tells head, slice and channel."""
    codes = torch.arange(24, dtype=torch.float32).reshape(4, 6, 1, 1) / 24
    slices = codes + torch.linspace(0, 0.01, 8)[:, None].expand(4, 6, 8, 8)
    inside = np.ones((4, 8, 8), bool)
    return Cases("toy", "rendered", slices, STACK.names, ("a", "a", "b", "b"), inside, inside.astype(int))


def test_proper_studies_are_every_choice_of_one_to_four_images():
    every = [(kind, images, given) for images, asked in studies(cases()) for kind, given in asked]
    proper = [(images, given) for kind, images, given in every if kind == PROPER]
    choices = [c for n in range(1, 5) for c in combinations(range(6), n)]
    assert [given for _, given in proper] == choices * 2
    torch.testing.assert_close(proper[0][0], 2 * cases().slices[:2] - 1)


def test_a_wrong_study_has_one_foreign_image_among_what_is_given():
    heads = {"a": 2 * cases().slices[:2] - 1, "b": 2 * cases().slices[2:] - 1}
    kinds = set()
    for kind, images, given in ((kind, images, given) for images, asked in studies(cases()) for kind, given in asked):
        if kind == PROPER:
            continue
        kinds.add(kind)
        own = min(heads.values(), key=lambda head: int((images != head).sum()))
        changed = [m for m in range(6) if not torch.equal(images[:, m], own[:, m])]
        assert len(changed) == 1 and changed[0] in given
        assert kind.endswith("alone") == (len(given) == 1)
    assert kinds == {
        "wrong modality, alone",
        "wrong modality, with companions",
        "another head, with companions",
        "slices out of order, with companions",
        "upside down, with companions",
    }


def test_rates_count_studies_in_which_any_image_fired(monkeypatch):
    class Found:
        def __init__(self, fired):
            self.fired = fired

    monkeypatch.setattr(alarms, "comparisons", lambda prior, images, sets, batch: None)
    monkeypatch.setattr(alarms, "judge", lambda prior, values, given: [Found(m == 5) for m in given])
    rates = {rate.kind: rate for rate in alarm_rates(None, cases())}
    with_pet = sum(5 in c for n in range(1, 5) for c in combinations(range(6), n))
    assert (rates[PROPER].fired, rates[PROPER].studies) == (2 * with_pet, 2 * 56)
    assert rates["wrong modality, alone"].share == 1 / 6
