"""The loop that all samplers share: steps over pairs of levels, batches of slices, progress, cancelling.

A sampler advances a whole volume step by step, in batches of rows; a row is one slice of one sample. A row never looks
at another, so the batch size changes nothing. Where data couples slices, a step has a gap between its two halves, in
which whole volumes are solved, one sample at a time (`VolumeSampler`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

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
        consistency: for each measured channel, its data-consistency solver.
        shape: (Z, M, H, W) of the stack.
        slice_correlation: of the network's errors in neighbouring slices, see `DataConsistency`.
    """

    measurements: Measurements
    consistency: dict[int, DataConsistency]
    shape: tuple[int, int, int, int]
    slice_correlation: float = 0.0

    @classmethod
    def of(
        cls, measurements: Measurements, shape: tuple[int, int, int, int], slice_correlation: float = 0.0
    ) -> Problem:
        """From measurements in u; nothing need be measured."""
        inside = measurements.in_prior_range()
        solvers = {m: DataConsistency(inside.channels[m], slice_correlation=slice_correlation) for m in inside.measured}
        return cls(inside, solvers, shape, slice_correlation)

    @property
    def by_slice(self) -> dict[int, DataConsistency]:
        """The solvers that take slices by themselves."""
        return {m: s for m, s in self.consistency.items() if not s.channel.operator.couples_slices}

    @property
    def coupled(self) -> dict[int, DataConsistency]:
        """The solvers that take whole volumes."""
        return {m: s for m, s in self.consistency.items() if s.channel.operator.couples_slices}

    def with_reconstructed(self, x: Tensor) -> Problem:
        """The problem in which measured channels are given images: those of a sample x (Z, M, H, W)."""
        channels = list(self.measurements.channels)
        for m in self.measurements.measured:
            channels[m] = Channel.available(x[:, m].clone())
        return Problem(replace(self.measurements, channels=tuple(channels)), {}, self.shape)

    def to(self, device: torch.device | str) -> Problem:
        """The same problem on a device; eigenbases are made anew there, when they are first needed."""
        if torch.device(device).type == "cpu":
            return self
        return Problem.of(self.measurements.to(device), self.shape, self.slice_correlation)


@dataclass(frozen=True)
class Rows:
    """One batch at one step: the measurements of its slices, and how to draw its noise.

    ``consistency``: of the channels whose slices stand by themselves. ``past`` is the batch's own notebook, empty at
    first: a multistep solver keeps its last estimates (k, x_0') there. ``solved``: x_0' (B, H, W) of the channels that
    couple slices, once their volumes are solved. ``keep`` takes the estimate of a step whose estimate is asked for.
    """

    slices: Tensor
    measurements: Measurements
    consistency: dict[int, DataConsistency]
    noise: Callable[[], Tensor]
    past: Estimates
    solved: dict[int, Tensor] = field(default_factory=dict)
    keep: Callable[[Tensor], None] | None = None

    def joined(self, x0: Tensor) -> Tensor:
        """x_0' with the channels that were solved as volumes in their place."""
        x0 = x0.clone()
        for m, image in self.solved.items():
            x0[:, m] = image
        return x0

    def clean(self, x: Tensor) -> Tensor:
        """The given stack with every available channel replaced by its image (available: x_0' = 2y - 1)."""
        x = x.clone()
        for m in self.measurements.available:
            x[:, m] = self.measurements.channels[m].data.to(x)
        return x


@dataclass(frozen=True)
class _Job:
    """Everything that the batches of all steps have in common."""

    problem: Problem
    noise: VolumeNoise
    rows: list[tuple[int, int]]
    batch_size: int
    device: torch.device | str
    cancelled: Callable[[], bool] | None
    first: Tensor | None = None
    pasts: dict[int, Estimates] = field(default_factory=dict)

    def batches(self, step: int) -> Iterator[tuple[slice, Rows]]:
        """Every batch of a step; Cancelled is raised before the next one when that was asked for."""
        for start in range(0, len(self.rows), self.batch_size):
            if step != START and self.cancelled is not None and self.cancelled():
                raise Cancelled
            batch = slice(start, start + self.batch_size)
            yield batch, self._rows(batch, step, self.pasts.setdefault(start, []))

    def _rows(self, batch: slice, step: int, past: Estimates) -> Rows:
        index = self.rows[batch]
        slices = torch.tensor([z for z, _ in index])
        given = self.problem.measurements.select(slices)

        def keep(estimate: Tensor) -> None:
            self.first.view(len(self.rows), *estimate.shape[1:])[batch] = estimate.detach().cpu()

        def noise() -> Tensor:
            return self.noise.draw(step, index).to(self.device)

        wanted = self.first is not None and step == 0
        return Rows(slices, given, self.problem.by_slice, noise, past, keep=keep if wanted else None)


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
        first: Tensor | None = None,
    ) -> Tensor:
        """Draw ``samples`` volumes → (samples, Z, M, H, W) in the prior range.

        ``progress(done, total)`` counts network passes and never runs backwards. ``cancelled()`` is asked before every
        batch of a step; Cancelled is raised when it says yes. ``first`` is like what is returned and is filled with
        the first step's estimates of x_0 (of a `VolumeSampler`).
        """
        every_row = [(z, sample) for sample in range(samples) for z in range(problem.shape[0])]
        job = _Job(problem.to(device), noise, every_row, batch_size, device, cancelled, first)
        pairs, undersampled = self.pairs(prior.schedule), bool(problem.consistency)
        costs = [self.passes_of_step(*pair, prior.schedule, undersampled) for pair in pairs]
        total, done = sum(costs) * len(every_row), 0

        x = torch.empty(len(every_row), *problem.shape[1:], dtype=noise.dtype)
        for batch, rows in job.batches(START):
            x[batch] = self.start(rows.noise(), rows).cpu()
        for number, pair in enumerate(pairs):
            for finished in self._advance(prior, x, pair, job, number):
                done += finished * costs[number]
                if progress is not None:
                    progress(done, total)
        return x.reshape(samples, *problem.shape)

    def _advance(self, prior: Prior, x: Tensor, pair: Pair, job: _Job, number: int) -> Iterator[int]:
        """Take all rows of x from k to k_next, in place; tells after every pass of the network how many rows it had."""
        if job.problem.coupled:
            raise ValueError(f"{self.name} works slice by slice and cannot use data that couples slices")
        for batch, rows in job.batches(number):
            x[batch] = self.step(prior, x[batch].to(job.device), *pair, rows).detach().cpu()
            yield len(rows.slices)


class VolumeSampler(Sampler):
    """A sampler whose step is in two halves: what the network says, and where to go from there.

    Between them, with the first half of every slice done, channels that couple slices are solved as whole volumes.
    """

    @abstractmethod
    def estimate(self, prior: Prior, x: Tensor, k: int, k_next: int, rows: Rows) -> Tensor:
        """The first half: an estimate of x_0 (B, M, H, W) from x_k; in coupled channels it is x0_hat."""

    @abstractmethod
    def data_weight(self, prior: Prior, m: int, k: int, measurements: Measurements) -> float:
        """γ of the solve of a coupled channel m: argmin γ/2 ||y' - A x||² + 1/2 ||x - x0_hat||²."""

    @abstractmethod
    def update(self, schedule: Schedule, x: Tensor, estimate: Tensor, k: int, k_next: int, rows: Rows) -> Tensor:
        """The second half: x_{k_next} from x_k and the estimate, ``rows.solved`` in place of coupled channels."""

    def step(self, prior: Prior, x: Tensor, k: int, k_next: int, rows: Rows) -> Tensor:
        return self.update(prior.schedule, x, self._estimate(prior, x, k, k_next, rows), k, k_next, rows)

    def _estimate(self, prior: Prior, x: Tensor, k: int, k_next: int, rows: Rows) -> Tensor:
        """`estimate`, shown to whoever wants to keep it."""
        estimate = self.estimate(prior, x, k, k_next, rows)
        if rows.keep is not None:
            rows.keep(estimate)
        return estimate

    def _advance(self, prior: Prior, x: Tensor, pair: Pair, job: _Job, number: int) -> Iterator[int]:
        if not job.problem.coupled:
            yield from super()._advance(prior, x, pair, job, number)
            return
        estimates = torch.empty_like(x)
        for batch, rows in job.batches(number):
            estimates[batch] = self._estimate(prior, x[batch].to(job.device), *pair, rows).detach().cpu()
            yield len(rows.slices)
        solved = {m: self._solved(prior, m, estimates[:, m], pair[0], job) for m in job.problem.coupled}
        for batch, rows in job.batches(number):
            rows = replace(rows, solved={m: image[batch].to(job.device) for m, image in solved.items()})
            here, estimate = x[batch].to(job.device), estimates[batch].to(job.device)
            x[batch] = self.update(prior.schedule, here, estimate, *pair, rows).detach().cpu()

    @torch.no_grad()
    def _solved(self, prior: Prior, m: int, x0_hat: Tensor, k: int, job: _Job) -> Tensor:
        """x_0' of a coupled channel (rows, H, W), a sample's volume at a time."""
        gamma, solver = self.data_weight(prior, m, k, job.problem.measurements), job.problem.coupled[m]
        only = torch.zeros(1, dtype=torch.long)
        volumes = x0_hat.reshape(-1, 1, job.problem.shape[0], *x0_hat.shape[1:])
        return torch.cat([solver.proximal(v.to(job.device), gamma, only)[0].cpu() for v in volumes])


def all_at(k: int, x: Tensor) -> Tensor:
    """Levels (B, M), every channel at k."""
    return torch.full(x.shape[:2], k, dtype=torch.long, device=x.device)
