"""The loop that all samplers share: steps over pairs of levels, batches of slices, progress, cancelling.

A sampler advances a whole volume step by step, in batches of rows; a row is one slice of one sample. A row never looks
at another, so the batch size changes nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..diffusion.prior import Prior
from ..diffusion.schedule import Schedule
from ..errors import Cancelled
from ..physics.measurements import Channel, Measurements
from ..physics.solve import DataConsistency
from .noise import START, VolumeNoise

Pair = tuple[int, int]
Estimates = list[tuple[int, Tensor]]
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
        """From measurements in u; nothing need be measured."""
        inside = measurements.in_prior_range()
        return cls(inside, {m: DataConsistency(inside.channels[m]) for m in inside.undersampled}, shape)

    def with_reconstructed(self, x: Tensor) -> Problem:
        """The problem in which undersampled channels are given images: those of a sample x (Z, M, H, W)."""
        channels = list(self.measurements.channels)
        for m in self.measurements.undersampled:
            channels[m] = Channel.available(x[:, m].clone())
        return Problem(replace(self.measurements, channels=tuple(channels)), {}, self.shape)

    def to(self, device: torch.device | str) -> Problem:
        """The same problem on a device; eigenbases are made anew there, when they are first needed."""
        if torch.device(device).type == "cpu":
            return self
        return Problem.of(self.measurements.to(device), self.shape)


@dataclass(frozen=True)
class Rows:
    """One batch at one step: the measurements of its slices, and how to draw its noise.

    ``past`` is the batch's own notebook, empty at first: a multistep solver keeps its last estimates (k, x_0') there.
    """

    slices: Tensor
    measurements: Measurements
    consistency: dict[int, DataConsistency]
    noise: Callable[[], Tensor]
    past: Estimates

    def clean(self, x: Tensor) -> Tensor:
        """The given stack with every available channel replaced by its image (available: x_0' = 2y - 1)."""
        x = x.clone()
        for m in self.measurements.available:
            x[:, m] = self.measurements.channels[m].data.to(x)
        return x


class Sampler(ABC):
    """A way to draw stacks from the posterior p(x | y)."""

    name: str

    @abstractmethod
    def pairs(self, schedule: Schedule) -> list[Pair]:
        """The explicit level pairs (k, k_next), from noise to (…, 0)."""

    @abstractmethod
    def step(self, prior: Prior, x: Tensor, k: int, k_next: int, rows: Rows) -> Tensor:
        """x_k → x_{k_next} for a batch (B, M, H, W)."""

    def start(self, x: Tensor, rows: Rows) -> Tensor:
        """What the first step receives, given pure noise x (B, M, H, W)."""
        return x

    def passes_of_step(self, k: int, k_next: int, schedule: Schedule, undersampled: bool) -> int:
        """Network passes of one step for one slice; a vector–Jacobian product counts as one."""
        return 1

    def passes(self, schedule: Schedule, undersampled: bool, missing: bool) -> int:
        """Network passes of one sample of one slice, where something is undersampled, or missing and wanted."""
        return sum(self.passes_of_step(*pair, schedule, undersampled) for pair in self.pairs(schedule))

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
        every_row = [(z, sample) for sample in range(samples) for z in range(problem.shape[0])]
        batches = [slice(i, i + batch_size) for i in range(0, len(every_row), batch_size)]
        pasts: list[Estimates] = [[] for _ in batches]
        problem, pairs, undersampled = problem.to(device), self.pairs(prior.schedule), bool(problem.consistency)
        costs = [self.passes_of_step(*pair, prior.schedule, undersampled) for pair in pairs]
        total, done = sum(costs) * len(every_row), 0

        x = torch.empty(len(every_row), *problem.shape[1:], dtype=noise.dtype)
        for batch, past in zip(batches, pasts):
            rows = _rows(every_row[batch], problem, noise, START, past, device)
            x[batch] = self.start(rows.noise(), rows).cpu()
        for number, (k, k_next) in enumerate(pairs):
            for batch, past in zip(batches, pasts):
                if cancelled is not None and cancelled():
                    raise Cancelled
                rows = _rows(every_row[batch], problem, noise, number, past, device)
                x[batch] = self.step(prior, x[batch].to(device), k, k_next, rows).detach().cpu()
                done += len(rows.slices) * costs[number]
                if progress is not None:
                    progress(done, total)
        return x.reshape(samples, *problem.shape)


def _rows(
    index: list[tuple[int, int]],
    problem: Problem,
    noise: VolumeNoise,
    step: int,
    past: Estimates,
    device: torch.device | str,
) -> Rows:
    """The batch of these (slice, sample) at a step."""
    slices = torch.tensor([z for z, _ in index])
    given = problem.measurements.select(slices)
    return Rows(slices, given, problem.consistency, lambda: noise.draw(step, index).to(device), past)


def all_at(k: int, x: Tensor) -> Tensor:
    """Levels (B, M), every channel at k."""
    return torch.full(x.shape[:2], k, dtype=torch.long, device=x.device)
