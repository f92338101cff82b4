"""Incomplete real subjects completed by an earlier prior: what is drawn is looked at and never learnt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from any2all.diffusion.prior import NetworkPrior, load_prior
from any2all.errors import Any2allError
from any2all.stack import Stack, load_stack
from any2all.training.completion import Completion
from any2all.training.datasets import StackCohort, another_head, read_datalist
from any2all.training.levels import LevelMixture, draw_levels
from any2all.training.noising import NoisedChannelLoss, PrepareNoisyStack
from any2all.training.stream import TrainingSlices
from small_runs import workflow

STACK = load_stack()
GRID = ((32, 32), (8.0, 8.0, 6.0))


@pytest.fixture
def completed(small_cohort, tiny_prior) -> StackCohort:
    return StackCohort(read_datalist(small_cohort), STACK, *GRID, Completion(tiny_prior), spacing_factors=(1.0,))


def test_what_a_subject_has_stays_and_the_rest_is_drawn(tiny_prior):
    image = 2 * torch.rand(2, 6, 32, 32, generator=torch.Generator().manual_seed(0)) - 1
    present = torch.tensor([True, False, True, False, False, False])
    drawn = Completion(tiny_prior, draws=3).of(image, present, "p")
    assert drawn.shape == (3, 2, 6, 32, 32) and float(drawn.abs().max()) <= 1
    assert torch.equal(drawn[:, :, present], image[:, present].expand(3, -1, -1, -1, -1))
    assert float((drawn[0] - drawn[2])[:, ~present].abs().mean()) > 0.01
    assert torch.equal(drawn, Completion(tiny_prior, draws=3).of(image, present, "p"))
    assert not torch.equal(drawn, Completion(tiny_prior, draws=3, seed=1).of(image, present, "p"))


def test_a_prior_that_cannot_complete_is_refused(tiny_prior, small_cohort):
    shared = NetworkPrior(tiny_prior.network, replace(tiny_prior.card, noise_levels="shared"))
    with pytest.raises(Any2allError, match="complete_with.*shared.*per_modality"):
        Completion(shared)
    fewer = Stack(modalities=STACK.modalities[:3])
    with pytest.raises(Any2allError, match="complete_with"):
        StackCohort(read_datalist(small_cohort), fewer, *GRID, Completion(tiny_prior))


def test_half_of_an_incomplete_subjects_slices_come_completed(completed, small_cohort):
    items = [completed.draw(np.random.default_rng(seed)) for seed in range(400)]
    incomplete = [item for item in items if not item["acquired"].all()]
    filled = [item for item in incomplete if item["present"].all()]
    assert 0.4 < len(incomplete) / len(items) < 0.6 and 0.4 < len(filled) / len(incomplete) < 0.6
    assert all(item["acquired"].sum() == 2 for item in filled)
    without = StackCohort(read_datalist(small_cohort), STACK, *GRID, spacing_factors=(1.0,))
    plain = [without.draw(np.random.default_rng(seed)) for seed in range(40)]
    assert all(torch.equal(item["present"], item["acquired"]) for item in plain)


def test_what_was_drawn_is_noised_and_has_no_part_in_the_loss(completed):
    source = TrainingSlices(None, completed, 1.0, STACK)
    items = [source.item(0, position) for position in range(300)]
    batch = {key: torch.stack([item[key] for item in items]) for key in items[0]}
    torch.manual_seed(0)
    x_k, (target, weight), (levels,), _ = PrepareNoisyStack(mixture=LevelMixture(idle=0.2))(batch)
    drawn = batch["present"] & ~batch["acquired"]
    assert bool(drawn.any()) and bool((weight[drawn] == 0).all()) and bool((levels[drawn] > 0).all())
    assert bool((weight > 0).any(1).all()), "every item teaches something"
    assert bool((levels[drawn] < 1000).any()), "half there"
    loss, wrong = NoisedChannelLoss(), torch.where(drawn[:, :, None, None], 9.0, target)
    assert float(loss(wrong, (target, weight))) == 0.0


def test_levels_without_drawn_images_are_as_they_were():
    present = torch.rand(5000, 6, generator=torch.Generator().manual_seed(1)) < 0.7
    present[:, 0] |= ~present.any(1)
    plain, same = (
        draw_levels(present, "per_modality", 1000, LevelMixture(), torch.Generator().manual_seed(2), acquired)
        for acquired in (None, present)
    )
    assert torch.equal(plain, same)


def test_another_head_keeps_the_modalities_on_one_grid():
    pattern = torch.zeros(32, 32)
    pattern[8:24, 10:22] = torch.rand(16, 12, generator=torch.Generator().manual_seed(0))
    image = 2 * pattern.expand(6, -1, -1) - 1
    kinds = [m.kind for m in STACK.modalities]
    ct, pet = STACK.index("CT"), STACK.index("PET")
    heads = [another_head(image, kinds, np.random.default_rng(seed)) for seed in range(20)]
    for head in heads:
        assert head.shape == image.shape and -1 <= float(head.min()) and float(head.max()) <= 1
        torch.testing.assert_close(head[ct], head[pet])  # moved alike; their units are not touched
        assert bool((head[:, [0, -1]] < -0.99).all()), "air stays air"
        mr, still = (head[0] + 1) / 2, (head[ct] + 1) / 2
        bright = still > 0.3
        ratio = mr[bright] / still[bright]
        assert 0.5 < float(ratio.min()) and float(ratio.max()) < 1.6
        assert float(np.corrcoef(mr[bright], still[bright])[0, 1]) > 0.9
    moved = [float((head - image)[ct].abs().mean()) for head in heads]
    assert min(moved) > 0.005 and len({round(value, 4) for value in moved}) > 15


def test_a_prior_that_is_not_there_ends_the_run_in_words(small_cohort, tmp_path, capsys):
    overrides = {"datalist_file": str(small_cohort), "validation_slices": None, "output_dir": str(tmp_path / "run")}
    with pytest.raises(SystemExit) as left:
        workflow("train.json", **overrides, complete_with=str(tmp_path / "none.pt"), total_iterations=1).run()
    said = capsys.readouterr().err
    assert left.value.code == 2 and "error:" in said and "none.pt" in said


def test_a_run_completes_with_a_released_prior_and_says_so(small_cohort, tmp_path):
    overrides = {"datalist_file": str(small_cohort), "validation_slices": None, "total_iterations": 2}
    workflow("train.json", **overrides, output_dir=str(tmp_path / "first")).run()
    earlier = str(tmp_path / "first" / "model.pt")
    overrides |= {"complete_with": earlier, "start_from": earlier, "output_dir": str(tmp_path / "second")}
    workflow("train.json", **overrides).run()
    facts = load_prior(tmp_path / "second" / "model.pt").card.training
    assert facts["completed_with"] == facts["started_from"] == load_prior(earlier).card.sha256
