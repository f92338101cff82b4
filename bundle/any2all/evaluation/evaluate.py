"""Methods on tasks on rendered heads: what ``configs/evaluate.json`` runs.

k-space is simulated on the prior's own grid (METHOD §4 a), as in the paper's experiments, with the truth's own
intensity scale: both are flagged in what is printed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..diffusion.prior import NetworkPrior
from ..errors import Any2allError
from ..kspace.acquisition import Acquisition
from ..kspace.reconstruct import sense, zero_filled
from ..samplers import Problem
from ..samplers.noise import VolumeNoise
from .baselines import MEAN_IMAGE, SENSE, ZERO_FILLED
from .records import Record, RecordFile, fingerprint
from .table import publish
from .tasks import Method, Task


@dataclass
class Evaluation:
    """Every method on every task that it applies to.

    Args:
        prior: the prior.
        truth: (Z, M, H, W) in u, unclipped, on the prior's grid.
        tasks, methods: what is compared.
        simulation: acceleration, acs_lines, coils, noise_std (u), seed.
        origin: where the truth comes from, as JSON; results of another origin are measured anew.
        output_dir: where results.json (resumed), table.md and table.csv go; None: nowhere.
        mean_image: (M, H, W) in u, the baseline of synthetic images.
        batch_size: rows (slice of a sample) that the network sees at once.
        seed: of the samplers' noise.
    """

    prior: NetworkPrior
    truth: Tensor
    tasks: Sequence[Task]
    methods: Sequence[Method]
    simulation: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)
    output_dir: Path | None = None
    mean_image: np.ndarray | None = None
    batch_size: int = 24
    seed: int = 0

    def run(self) -> list[Record]:
        """Measure what has not been measured; write and print the table after the last one."""
        if not self.tasks:
            raise Any2allError("no task is left to evaluate", key="tasks")
        store = RecordFile(self.output_dir / "results.json" if self.output_dir else None)
        records = [record for task in self.tasks for record in self.baselines(task)]
        plan = [(t, m) for t in self.tasks for m in self.methods if m.applies_to(t, self.prior.noise_levels)]
        # a log file gets a line every ten seconds, a terminal a moving bar
        wait = 0.5 if sys.stderr.isatty() else 10.0
        bar = tqdm(total=sum(self.cost(*pair) for pair in plan), unit="pass", file=sys.stderr, mininterval=wait)
        with bar:
            done = 0
            for task, method in plan:
                bar.set_description(f"{task.name} · {method.name}")
                known = [store.find(task.name, target, method.name, self.mark(method)) for target in task.targets]
                if None in known:
                    known = self.measure(task, method, lambda n: bar.update(done + n - bar.n))  # noqa: B023
                    store.add(known)
                records += known
                done += self.cost(task, method)
                bar.update(done - bar.n)
        store.add(records)
        publish(records, self.output_dir, self.notes())
        return records

    def measure(self, task: Task, method: Method, progress: Callable[[int], Any] = lambda done: None) -> list[Record]:
        """Draw the method's samples for a task and score every target; ``progress`` counts network passes."""
        chosen = method.chosen_slices(len(self.truth))
        problem = self._problem(task, chosen)
        sampler = method.build(self.prior.stack)
        started = time.perf_counter()
        x = sampler.sample(
            self.prior,
            problem,
            VolumeNoise(problem.shape[1:], self.seed, subject="evaluation"),
            method.samples,
            self.batch_size,
            self.prior.device,
            lambda done, total: progress(done),
        )
        seconds = (time.perf_counter() - started) / (len(chosen) * method.samples)
        passes, mark = self._passes(method, problem), self.mark(method)
        records = []
        for target in task.targets:
            m = self.prior.stack.index(target)
            names = (task.name, target, method.name)
            u = (x[:, :, m] + 1) / 2
            records.append(Record.of(u, self.truth[chosen, m], chosen, names, passes, seconds, mark))
        return records

    def baselines(self, task: Task) -> Iterator[Record]:
        """Zero-filled and SENSE for a target that was measured, the mean training image for one that was not."""
        acquired = task.acquire(self.truth, self.prior.stack, self.simulation)
        slices = list(range(len(self.truth)))
        for target in task.targets:
            m = self.prior.stack.index(target)
            for name, reconstruct in self._rivals(m, acquired.get(target)).items():
                started = time.perf_counter()
                estimate = torch.as_tensor(reconstruct())[None]
                seconds = (time.perf_counter() - started) / len(slices)
                names = (task.name, target, name)
                yield Record.of(estimate, self.truth[:, m], slices, names, 0, seconds, self.mark(name))

    def cost(self, task: Task, method: Method) -> int:
        """Network passes of a method on a task, all slices and samples together."""
        chosen = method.chosen_slices(len(self.truth))
        return self._passes(method, self._problem(task, chosen[:1])) * len(chosen) * method.samples

    def mark(self, method: Method | str) -> str:
        """Checksum of what a record depends on beside the names of task and target."""
        settings = {k: v for k, v in asdict(method).items() if k != "tasks"} if isinstance(method, Method) else method
        prior = [self.prior.card.sha256, self.prior.card.to_json()["calibration"]]
        return fingerprint(settings, prior, dict(self.simulation), dict(self.origin), self.seed)

    def notes(self) -> list[str]:
        """What a reader of the table has to know of this prior and these data."""
        calibrated = "calibrated" if self.prior.card.calibration else "NOT calibrated (r_k² by formula)"
        notes = [
            f"Prior {str(self.prior.card.sha256)[:12]}, {self.prior.noise_levels}, {calibrated}; "
            f"{len(self.truth)} slices {self.truth.shape[2]}×{self.truth.shape[3]}; "
            + ", ".join(f"{key} {value}" for key, value in {**self.origin, **self.simulation}.items())
            + "."
        ]
        if self.mean_image is None:
            notes.append("This prior has no mean training image: synthetic images stand without a baseline.")
        return notes

    def _passes(self, method: Method, problem: Problem) -> int:
        sampler = method.build(self.prior.stack)
        return len(sampler.pairs(self.prior.schedule)) * sampler.cost_per_step(problem)

    def _problem(self, task: Task, chosen: Sequence[int]) -> Problem:
        # all slices are acquired, then some chosen: a slice's noise is the same for every method
        acquired = task.acquire(self.truth, self.prior.stack, self.simulation)
        measured = task.measure(self.truth, self.prior.stack, acquired).select(torch.tensor(chosen))
        return Problem.of(measured, (len(chosen), *self.truth.shape[1:]))

    def _rivals(self, m: int, acquisition: Acquisition | None) -> dict[str, Callable[[], Any]]:
        if acquisition is not None:
            return {ZERO_FILLED: lambda: zero_filled(acquisition), SENSE: lambda: sense(acquisition)}
        if self.mean_image is None:
            return {}
        return {MEAN_IMAGE: lambda: np.broadcast_to(self.mean_image[m], self.truth[:, m].shape).copy()}
