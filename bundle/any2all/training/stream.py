"""The stream of training batches as a function of the batch's number, so that a resumed run sees the same batches.

Batch g is made of items of lane g mod L. A lane is an endless series of items with rendered heads of its own, usually
one for each worker of the data loader. Every random choice of an item is drawn from (seed, lane, position) alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ..errors import Any2allError
from ..phantom.dataset import RenderedHeads
from ..stack import Stack
from .datasets import Item, StackCohort, another_head, augment

SLICES_PER_HEAD = 40
FASTER_FILLING = 4
ITEM = 1  # sets the items' random numbers apart from those of the heads, which are drawn from (seed, lane, number)


class HeadPool:
    """Rendered slices of the newest ``size`` heads of a lane, each handed out about ``reuse`` times.

    Every time the coin decides between the head and its twin of the other amyloid status. With one status a head the
    network learnt to guess from each head's MR what MR does not show: samples of PET were sure of one status.

    At position t the pool holds heads n(t) - size … n(t) - 1. The first heads come four times as fast, so that training
    starts at once and the pool fills soon. A head is rendered when a slice of it is first wanted and kept in half
    precision while it is in the pool: a resumed run renders its pool anew, and only its pool.

    Args:
        heads: the series of heads of every lane.
        size: heads in the pool of a lane.
        reuse: how often a rendered slice is handed out, on average.
        share: the share of a lane's items that comes from the pool.
    """

    def __init__(self, heads: RenderedHeads, size: int = 64, reuse: float = 4, share: float = 1.0) -> None:
        for key, value in (("pool_heads", size), ("reuse", reuse)):
            if not value > 0:
                raise Any2allError("no head would be rendered", key=key, value=value, allowed="more than 0")
        self.heads, self.size = heads, size
        self.items_per_head = max(1, round(reuse * SLICES_PER_HEAD / share))
        self.items_per_first_head = max(1, self.items_per_head // FASTER_FILLING)
        self._rendered: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def heads_at(self, position: int) -> range:
        """Numbers of the heads that are in the pool at a position of the lane."""
        full = (self.size - 1) * self.items_per_first_head
        if position < full:
            return range(position // self.items_per_first_head + 1)
        newest = self.size + (position - full) // self.items_per_head
        return range(newest - self.size, newest)

    def draw(self, lane: int, position: int, rng: np.random.Generator) -> Tensor:
        """One slice (M, H, W) in [-1, 1] of a head of the pool."""
        numbers = self.heads_at(position)
        twins = self._twins(lane, int(rng.choice(numbers)), numbers.start)
        images = twins[int(rng.integers(2))]
        return images[int(rng.integers(len(images)))].float()

    def _twins(self, lane: int, number: int, oldest: int) -> tuple[Tensor, Tensor]:
        if (lane, number) not in self._rendered:
            for key in [key for key in self._rendered if key[0] == lane and key[1] < oldest]:
                del self._rendered[key]
            subject = self.heads.subject(number, lane)
            self._rendered[lane, number] = subject.images.half(), subject.twin.half()
        return self._rendered[lane, number]


class TrainingSlices:
    """Augmented items of rendered heads and real stacks, ``real_fraction`` of them real.

    Where one kind is absent, the other alone. Iterated, it gives the items of lane 0.

    Args:
        rendered: the pool of rendered heads, or None.
        real: real stacks, or None.
        real_fraction: share of real slices where there are both.
        stack: the stack; MR channels are augmented in gain and gamma.
        seed: of every choice.

    Raises:
        Any2allError: there is nothing to train on.
    """

    def __init__(
        self, rendered: HeadPool | None, real: StackCohort | None, real_fraction: float, stack: Stack, seed: int = 0
    ) -> None:
        if rendered is None and real is None:
            raise Any2allError(
                "nothing to train on", key="datalist_file", hint="give a datalist, or the data folder by ANY2ALL_DATA"
            )
        self.rendered, self.real, self.seed = rendered, real, seed
        self.real_fraction = 1.0 if rendered is None else 0.0 if real is None else real_fraction
        self.kinds, self.complete = [m.kind for m in stack.modalities], torch.ones(len(stack), dtype=torch.bool)

    def item(self, lane: int, position: int) -> Item:
        """Item ``position`` of a lane: the same whatever was asked for before."""
        rng = np.random.default_rng([self.seed, lane, position, ITEM])
        if rng.random() < self.real_fraction:
            item = self.real.draw(rng)
            item["image"] = another_head(item["image"], self.kinds, rng)
        else:
            image = self.rendered.draw(lane, position, rng)
            item = {"image": image, "present": self.complete, "acquired": self.complete}
        return {**item, "image": augment(item["image"], self.kinds, rng) * item["present"][:, None, None]}

    def __iter__(self) -> Iterator[Item]:
        return (self.item(0, position) for position in itertools.count())


class BatchStream(IterableDataset):
    """Endless batches ``{"image": (B, M, H, W), "present": (B, M), "acquired": (B, M)}`` from number ``start`` on.

    The workers of a data loader (with ``batch_size=None``) take turns, and the loader keeps their order: what comes out
    depends on the number of lanes, not of workers. With as many workers as lanes, each worker serves one lane.

    Args:
        slices: the items.
        batch_size: B.
        lanes: L, how many series the batches are taken from in turn.
        start: number of the first batch.
    """

    def __init__(self, slices: TrainingSlices, batch_size: int, lanes: int = 1, start: int = 0) -> None:
        self.slices, self.batch_size, self.lanes, self.start = slices, batch_size, lanes, start

    def batch(self, number: int) -> Item:
        """Batch ``number`` of the run."""
        lane, first = number % self.lanes, number // self.lanes * self.batch_size
        items = [self.slices.item(lane, position) for position in range(first, first + self.batch_size)]
        return {key: torch.stack([item[key] for item in items]) for key in items[0]}

    def __iter__(self) -> Iterator[Item]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        return (self.batch(number) for number in itertools.count(self.start + worker, workers))


def single_threaded(worker: int) -> None:
    """Loader workers render beside the training, not instead of it."""
    torch.set_num_threads(1)
