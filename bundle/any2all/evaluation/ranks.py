"""The processes of ``torchrun`` that share one evaluation: each predicts its share, the first one measures and reports.

They share the folder of predictions; a barrier of gloo tells the first that the others are done, also between GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")
LONGEST_WAIT = timedelta(days=14)  # of the first rank for the slowest; torchrun ends all when one fails


@dataclass(frozen=True)
class Ranks:
    """This process and how many there are."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, items: Sequence[T], cost: Callable[[T], int]) -> list[T]:
        """This rank's items, in their order: the dearest first, each to the rank that has least to do so far.

        It depends on the items alone, so that all ranks agree on who does what.
        """
        if self.world_size == 1:
            return list(items)
        load, owner = [0] * self.world_size, {}
        for i in sorted(range(len(items)), key=lambda i: (-cost(items[i]), i)):
            owner[i] = min(range(self.world_size), key=lambda r: (load[r], r))
            load[owner[i]] += cost(items[i])
        return [item for i, item in enumerate(items) if owner[i] == self.rank]

    def wait(self) -> None:
        """Return when every rank has come this far."""
        if self.world_size == 1:
            return
        dist.init_process_group("gloo", rank=self.rank, world_size=self.world_size, timeout=LONGEST_WAIT)
        dist.barrier()
        dist.destroy_process_group()
