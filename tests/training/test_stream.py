"""Batches are a function of their number: pool of heads, lanes, workers."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from any2all.errors import Any2allError
from any2all.stack import load_stack
from any2all.training.datasets import StackCohort, read_datalist
from any2all.training.stream import SLICES_PER_HEAD, BatchStream, HeadPool, TrainingSlices
from torch.utils.data import DataLoader

STACK = load_stack()


@dataclass
class Subject:
    images: torch.Tensor
    twin: torch.Tensor


@dataclass
class NumberedHeads:
    """Heads of constant slices, -0.9 + 0.01 x number in lane 0; twins have a pixel of 0.9; notes what was rendered."""

    rendered: list[tuple[int, int]] = field(default_factory=list)

    def subject(self, number: int, lane: int = 0) -> Subject:
        self.rendered.append((lane, number))
        generator = torch.Generator().manual_seed(1000 * lane + number)
        noise = 0.001 * torch.rand(5, len(STACK), 8, 8, generator=generator)
        images = noise - 0.9 + 0.01 * number + 0.5 * lane
        twin = images.clone()
        twin[:, STACK.index("PET"), 4, 4] = 0.9
        return Subject(images, twin)


def slices(real=None, real_fraction=0.0, size=4, reuse=0.5, seed=0) -> TrainingSlices:
    return TrainingSlices(HeadPool(NumberedHeads(), size, reuse), real, real_fraction, STACK, seed)


def batches(stream: BatchStream, count: int, workers: int = 0) -> list[torch.Tensor]:
    loader = DataLoader(stream, batch_size=None, num_workers=workers)
    return [batch["image"] for batch in itertools.islice(loader, count)]


def test_the_pool_holds_the_newest_heads_and_moves_on_by_reuse():
    pool = HeadPool(NumberedHeads(), size=4, reuse=2)
    per_head = 2 * SLICES_PER_HEAD
    held = [pool.heads_at(position) for position in range(20 * per_head)]
    assert held[0] == range(1) and held[3 * per_head // 4] == range(4)
    assert all(later.stop - sooner.stop in (0, 1) for sooner, later in itertools.pairwise(held))
    assert all(len(numbers) == min(4, numbers.stop) for numbers in held)
    full = held[per_head:]
    assert full[10 * per_head].stop - full[0].stop == 10, "one new head for each 80 items"
    shared = HeadPool(NumberedHeads(), size=4, reuse=2, share=0.5)
    assert shared.items_per_head == 2 * per_head, "half of the items are real ones"


def test_heads_are_rendered_once_and_forgotten_when_they_leave_the_pool():
    source = slices(size=4, reuse=0.5)
    for position in range(400):
        source.item(0, position)
    rendered = source.rendered.heads.rendered
    assert len(rendered) == len(set(rendered)) and len(source.rendered._rendered) <= 4
    held = source.rendered.heads_at(399)
    again = slices(size=4, reuse=0.5)
    assert torch.equal(again.item(0, 399)["image"], source.item(0, 399)["image"])
    assert again.rendered.heads.rendered[0][1] in held, "a resumed run renders what it touches"


def test_items_come_from_every_head_of_the_pool():
    source = slices(size=4, reuse=4)
    numbers = source.rendered.heads_at(1000)
    drawn = [source.rendered.draw(0, 1000, np.random.default_rng(seed)) for seed in range(200)]
    heads = [round((float(image.min()) + 0.9) / 0.01) for image in drawn]
    assert set(heads) == set(numbers)


def test_the_coin_decides_the_amyloid_status_every_time():
    source = slices(size=2, reuse=4)
    pet = [
        float(source.rendered.draw(0, 500, np.random.default_rng(seed))[STACK.index("PET")].max())
        for seed in range(200)
    ]
    assert 0.35 < np.mean(np.array(pet) > 0.8) < 0.65


@pytest.mark.parametrize("start", [0, 5])
def test_batches_do_not_depend_on_workers_or_on_where_the_stream_began(start):
    expected = [BatchStream(slices(), 3, lanes=2).batch(number)["image"] for number in range(start, start + 6)]
    for workers in (0, 2, 3):
        got = batches(BatchStream(slices(), 3, lanes=2, start=start), 6, workers)
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_lanes_and_seeds_have_their_own_items():
    stream = BatchStream(slices(), 3, lanes=2)
    assert float(stream.batch(1)["image"].mean() - stream.batch(0)["image"].mean()) > 0.3, "lane 1 has other heads"
    other = BatchStream(slices(seed=1), 3, lanes=2)
    assert not torch.equal(stream.batch(0)["image"], other.batch(0)["image"])
    assert not torch.equal(stream.batch(0)["image"], stream.batch(2)["image"])


def test_the_share_of_real_slices(small_cohort, monkeypatch):
    real = StackCohort(read_datalist(small_cohort), STACK, (8, 8), (32.0, 32.0, 6.0))
    source = slices(real, 0.3)
    rendered = source.rendered.draw
    positions = []
    monkeypatch.setattr(source.rendered, "draw", lambda lane, at, rng: positions.append(at) or rendered(lane, at, rng))
    for position in range(600):
        source.item(0, position)
    assert 1 - len(positions) / 600 == pytest.approx(0.3, abs=0.06)
    alone = TrainingSlices(None, real, 0.3, STACK)
    incomplete = [item for item in itertools.islice(alone, 40) if not item["present"].all()]
    assert incomplete and all(bool((item["image"][~item["present"]] == 0).all()) for item in incomplete)


def test_nothing_to_train_on_is_said():
    with pytest.raises(Any2allError, match="nothing to train on"):
        TrainingSlices(None, None, 0.5, STACK)
    with pytest.raises(Any2allError, match="pool_heads"):
        HeadPool(NumberedHeads(), size=0)


def test_the_streams_leave_torchs_random_numbers_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    BatchStream(slices(), 4).batch(10)
    assert torch.equal(torch.get_rng_state(), before)
