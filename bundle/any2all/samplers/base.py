"""The loop that all samplers share: steps over pairs of levels, batches of slices, progress, cancelling.

A sampler advances a whole volume step by step, in batches of rows; row r is slice ``r % Z`` of sample ``r // Z``. A row
never looks at another, so the batch size changes nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.prior import Prior
from ..diffusion.schedule import Schedule
from ..errors import Cancelled
from ..physics.measurements import Measurements
from ..physics.solve import DataConsistency
from .noise import START, VolumeNoise

Pair = tuple[int, int]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Problem:
    """What is to be sampled.

    Attributes:
        measurements: of all M channels, in the prior range (`Measurements.in_prior_range`).
        consistency: for each undersampled channel, its data-consistency solver.
        shape: (Z, M, H, W) of the stack.
    """

    measurements: Measurements
    consistency: dict[int, DataConsistency]
    shape: tuple[int, int, int, int]

    @classmethod
    def of(cls, measurements: Measurements, shape: tuple[int, int, int, int]) -> Problem:
        """From measurements in u. Eigenbases are computed here, once."""
        inside = measurements.in_prior_range()
        return cls(inside, {m: DataConsistency(inside.channels[m]) for m in inside.undersampled}, shape)


@dataclass(frozen=True)
class Rows:
    """One batch: the measurements of its slices, and how to draw its noise. ``key`` tells batches of a step apart."""

    key: int
    slices: Tensor
    measurements: Measurements
    consistency: dict[int, DataConsistency]
    noise: Callable[[], Tensor]

    def clean(self, x: Tensor) -> Tensor:
        """The given stack with every available channel replaced by its image (available: x_0' = 2y - 1)."""
        x = x.clone()
        for m in self.measurements.available:
            x[:, m] = self.measurements.channels[m].data.to(x)
        return x


class Sampler(ABC):
    """A way to draw stacks from the posterior p(x | y)."""

    name: str
    vector_jacobian_products: int = 0

    @abstractmethod
    def pairs(self, schedule: Schedule) -> list[Pair]:
        """The explicit level pairs (k, k_next), from noise to (…, 0)."""

    @abstractmethod
    def step(self, prior: Prior, x: Tensor, k: int, k_next: int, rows: Rows) -> Tensor:
        """x_k → x_{k_next} for a batch (B, M, H, W)."""

    def start(self, x: Tensor, rows: Rows) -> Tensor:
        """What the first step receives, given pure noise x (B, M, H, W)."""
        return x

    @property
    def cost_per_step(self) -> int:
        """Network passes of one step for one slice; a vector–Jacobian product counts as one."""
        return 1 + self.vector_jacobian_products

    def sample(
        self,
        prior: Prior,
        problem: Problem,
        noise: VolumeNoise,
        samples: int = 1,
        batch_size: int = 16,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Tensor:
        """Draw ``samples`` volumes → (samples, Z, M, H, W) in the prior range.

        ``progress(done, total)`` counts network passes and never runs backwards. ``cancelled()`` is asked before every
        batch of a step; Cancelled is raised when it says yes.
        """
        slices = problem.shape[0]
        every_row = [(r % slices, r // slices) for r in range(samples * slices)]
        batches = [range(i, min(i + batch_size, len(every_row))) for i in range(0, len(every_row), batch_size)]
        pairs = self.pairs(prior.schedule)
        total, done = len(pairs) * len(every_row) * self.cost_per_step, 0

        x = torch.empty(len(every_row), *problem.shape[1:], dtype=noise.dtype)
        for batch, rows, index in self._rows(batches, every_row, problem, noise, START, device):
            x[batch.start : batch.stop] = self.start(noise.draw(START, index).to(device), rows).cpu()
        for number, (k, k_next) in enumerate(pairs):
            for batch, rows, _ in self._rows(batches, every_row, problem, noise, number, device):
                if cancelled is not None and cancelled():
                    raise Cancelled
                here = x[batch.start : batch.stop].to(device)
                x[batch.start : batch.stop] = self.step(prior, here, k, k_next, rows).detach().cpu()
                done += len(batch) * self.cost_per_step
                if progress is not None:
                    progress(done, total)
        return x.reshape(samples, *problem.shape)

    @staticmethod
    def _rows(
        batches: list[range],
        every_row: list[tuple[int, int]],
        problem: Problem,
        noise: VolumeNoise,
        step: int,
        device: torch.device | str,
    ) -> Iterator[tuple[range, Rows, list[tuple[int, int]]]]:
        for batch in batches:
            index = [every_row[r] for r in batch]
            slices = torch.tensor([z for z, _ in index])
            rows = Rows(
                batch.start,
                slices,
                problem.measurements.select(slices).to(device),
                problem.consistency,
                lambda index=index: noise.draw(step, index).to(device),
            )
            yield batch, rows, index


def all_at(k: int, x: Tensor) -> Tensor:
    """Levels (B, M), every channel at k."""
    return torch.full(x.shape[:2], k, dtype=torch.long, device=x.device)
