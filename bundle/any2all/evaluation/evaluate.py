"""Methods on tasks on cases: what ``configs/evaluate.json`` runs.

k-space is simulated on the prior's own grid (METHOD §4 a), as in the paper's experiments, with the truth's own
intensity scale: both are flagged in what is printed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from tqdm import tqdm

from ..diffusion.prior import NetworkPrior
from ..errors import Any2allError
from ..samplers import MCS
from ..spread import std_of
from .cases import Cases
from .features import FeatureExtractor
from .peers import Peer
from .predictions import Prediction, PredictionFolder
from .ranks import Ranks
from .records import Record, fingerprint
from .roster import LeftOutError, Roster
from .tasks import Method, Task
from .unconditional import Unconditional


class Trial(NamedTuple):
    """One method on one task on one set of cases."""

    cases: Cases
    task: Task
    method: Method
    peer: Peer


@dataclass
class Evaluation:
    """Every method on every task and every set of cases that suits it.

    Args:
        prior: the prior that is evaluated.
        sets: what to try on.
        tasks, methods: what is compared.
        simulation: acceleration, acs_lines, coils, noise_std (u), seed.
        output_dir: where predictions are kept (an interrupted evaluation goes on); None: nowhere.
        models: folder of other priors that methods name; None: beside nothing, they are left out.
        mean_image: (M, H, W) in u, the baseline of synthetic images.
        training: gives training slices (N, M, H, W) in u, when a peer has to be fitted.
        likeness: compares draws from nothing with training slices (`generate.compare_with_training`).
        features: what FID and KID compare; None: neither.
        unconditional: the experiment of draws from nothing; None: it is left out.
        batch_size: rows (slice of a sample) that the network sees at once.
        seed: of the samplers' noise.
        ranks: the processes that share the work; more than one need an output_dir in common.

    Attributes:
        left_out: methods that are not tried, and why, in words.
    """

    prior: NetworkPrior
    sets: Sequence[Cases]
    tasks: Sequence[Task]
    methods: Sequence[Method]
    simulation: Mapping[str, Any] = field(default_factory=dict)
    output_dir: Path | None = None
    models: Path | None = None
    mean_image: np.ndarray | None = None
    training: Callable[[], Tensor] | None = None
    likeness: Callable[[], dict[str, Any]] | None = None
    features: FeatureExtractor | None = None
    unconditional: Unconditional | None = None
    batch_size: int = 24
    seed: int = 0
    ranks: Ranks = Ranks()

    def __post_init__(self) -> None:
        if self.ranks.world_size > 1 and self.output_dir is None:
            raise Any2allError("several processes need a folder in common", key="output_dir")
        self._store = PredictionFolder(self.output_dir / "predictions" if self.output_dir else None)
        self._acquired: dict[tuple[str, str], Any] = {}
        self._roster = Roster(self.prior, self.models, self.mean_image, self.training, self.batch_size)
        self.left_out: dict[str, str] = {}
        kinds = {cases.kind for cases in self.sets}
        self._peers = {(m.name, kind): self._peer(m, kind) for m in self.methods for kind in kinds}

    def run(self) -> list[Record]:
        """Predict what has not been predicted, and score everything; a rank that is not the first scores nothing."""
        plan = self.plan()
        if not plan:
            raise Any2allError("no task is left to evaluate", key="tasks")
        mine = self.ranks.share(plan, self.cost)
        # a log file gets a line every ten seconds, a terminal a moving bar
        wait = 0.5 if sys.stderr.isatty() else 10.0
        with tqdm(total=sum(map(self.cost, mine)), unit="pass", file=sys.stderr, mininterval=wait) as bar:
            for trial in mine:
                bar.set_description(f"{trial.cases.name} · {trial.task.name} · {trial.method.name}")
                self.predict(trial)
                bar.update(self.cost(trial))
        if self.unconditional is not None and self.ranks.world_size > 1:
            self.unconditional.prepare(self.ranks)
        self.ranks.wait()
        if not self.ranks.is_first:
            return []
        return [record for trial in plan for record in self.score(trial, self.predict(trial))]

    def plan(self) -> list[Trial]:
        """What is tried, in order."""
        trials = [
            Trial(cases, task, method, self._shown(method, cases))
            for cases in self.sets
            for task in self.tasks
            for method in self.methods
            if task.suits(cases) and method.meant_for(task, cases) and self._peers[method.name, cases.kind] is not None
        ]
        return [t for t in trials if all(t.peer.can(t.task.raw, t.task.given, name) for name in t.task.targets)]

    def predict(self, trial: Trial) -> Prediction:
        """The trial's samples, from the folder where they are there already."""
        mark = self.mark(trial)
        names = (trial.cases.name, trial.task.name, trial.method.name)
        found = self._store.find(*names, mark)
        if found is not None:
            return found
        chosen = trial.method.chosen_slices(len(trial.cases))
        measured = {name: a.select(chosen) for name, a in self._acquisitions(trial).items()}
        given = {name: image[chosen] for name, image in trial.task.images(trial.cases, self.prior.stack).items()}
        started = time.perf_counter()
        drawn = trial.peer.predict(measured, given, trial.task.targets, trial.method.samples, self.seed)
        samples = len(next(iter(drawn.values())))
        seconds = (time.perf_counter() - started) / (len(chosen) * samples)
        images = {name: np.asarray(image, np.float32).clip(0, 1) for name, image in drawn.items()}
        prediction = Prediction(*names, tuple(chosen), self._passes(trial), seconds, images, mark)
        self._store.add(prediction)
        return prediction

    def find(self, cases: str, task: str, method: str) -> Prediction | None:
        """The prediction of a trial of the plan by its names; None where there is no such trial."""
        for trial in self.plan():
            if (trial.cases.name, trial.task.name, trial.method.name) == (cases, task, method):
                return self.predict(trial)
        return None

    def score(self, trial: Trial, prediction: Prediction) -> list[Record]:
        """One record for each target."""
        truth = {name: trial.cases.slices[:, self.prior.stack.index(name)].numpy() for name in trial.task.targets}
        cases, raw = trial.cases, trial.task.raw
        return [Record.of(prediction, n, truth[n], cases.groups, n in raw, cases.inside) for n in trial.task.targets]

    def written_std(self, samples: np.ndarray, target: str, task: str) -> np.ndarray:
        """The std (Z, H, W) that a study would write of samples (K, Z, H, W): pooled, by the prior's own factor."""
        measured = any(t.name == task and target in t.raw for t in self.tasks)
        return self.prior.card.std_factor(target, measured) * std_of(samples)

    def model_facts(self, name: str) -> str:
        """How long another prior that methods name was trained, beside the evaluated one, in words."""
        facts = [f"this prior: {_trained(self.prior)}"]
        with suppress(LeftOutError):
            facts.append(f"{name}: {_trained(self._roster.other(name))}")
        return "; ".join(facts) + "."

    def trained_longer(self, name: str) -> float | None:
        """On how many times the stacks of another prior that methods name this one was trained; None: not known."""
        with suppress(LeftOutError):
            ours, its = (p.card.training.get("stacks_seen") for p in (self.prior, self._roster.other(name)))
            return ours / its if ours and its else None
        return None

    @property
    def checksums(self) -> list[str]:
        """Of the weights that are evaluated, see `Roster.checksums`."""
        return self._roster.checksums

    def cost(self, trial: Trial) -> int:
        """Network passes of a trial, all slices and samples together; at least 1."""
        count = len(trial.method.chosen_slices(len(trial.cases)))
        samples = trial.method.samples if trial.peer.capabilities.samples else 1
        return max(1, self._passes(trial) * count * samples)

    def mark(self, trial: Trial) -> str:
        """Checksum of what a prediction depends on beside its names."""
        task = {"targets": trial.task.targets, "given": trial.task.given, "raw": trial.task.raw}
        simulation = trial.task.simulation_of(self.simulation)
        prior, cdm = getattr(trial.peer, "prior", self.prior), getattr(trial.peer, "cdm", None)
        card = prior.card.to_json()
        trained = [cdm.card.sha256] if cdm else [card["sha256"], card["calibration"]]
        if isinstance(getattr(trial.peer, "sampler", None), MCS) and set(trial.task.targets) - set(trial.task.raw):
            trained.append(card["contrast"])
        settings = trial.method.settings()
        if trial.method.rho == "prior":
            settings["rho"] = trial.peer.rho
        means = getattr(getattr(trial.peer, "sampler", None), "mean_network", None)
        trained += [means.card.sha256] if means is not None else []
        return fingerprint(settings, task, trained, simulation, trial.cases.origin, self.seed)

    def _acquisitions(self, trial: Trial) -> dict[str, Any]:
        # all slices are acquired, then some chosen: a slice's noise is the same for every method
        key = (trial.cases.name, trial.task.name)
        if key not in self._acquired:
            self._acquired[key] = trial.task.acquire(trial.cases, self.prior.stack, self.simulation)
        return self._acquired[key]

    def _passes(self, trial: Trial) -> int:
        return trial.peer.passes(trial.task.raw, trial.task.given, trial.task.targets)

    def _shown(self, method: Method, cases: Cases) -> Peer:
        """The method's peer; one that is an upper bound has been shown the truth of these cases."""
        peer = self._peers[method.name, cases.kind]
        return peer.with_truth(cases.slices[method.chosen_slices(len(cases))]) if method.sees_truth else peer

    def _peer(self, method: Method, kind: str) -> Peer | None:
        """The method, ready to predict; None where what it needs is not there."""
        try:
            return self._roster.peer(method, kind)
        except LeftOutError as error:
            self.left_out[method.name] = error.sentence()
            return None


def _trained(prior: NetworkPrior) -> str:
    facts = prior.card.training
    return f"{facts.get('stacks_seen', '?')} stacks in {facts.get('minutes', '?')} minutes"
