"""What ``configs/evaluate.json`` is made of: the command line around `Evaluation` and its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..diffusion.prior import NetworkPrior
from ..errors import Any2allError
from ..folders import made_folder
from ..generate import Reference, compare_with_training, draw_stacks
from ..phantom.dataset import RenderedHeads
from ..scores.baselines import load_mean_image
from ..training import cohort
from ..training.finish import mean_image_file
from ..workflow import INTERRUPTED, announce, as_count, front_door
from .cases import KINDS, MANIFEST, Cases, Manifest
from .evaluate import Evaluation
from .features import FeatureExtractor, load_features
from .ranks import Ranks
from .report import publish
from .roster import LeftOutError, prior_beside
from .tasks import Method, Task, changed, chosen
from .unconditional import Unconditional

FITTING_SLICES, FITTING_SEED = 240, 77
DRAW_STEPS, BANK_SLICES = 250, 400
SIMULATION = ("acceleration", "acs_lines", "coils", "noise_std", "seed")


@dataclass(frozen=True, eq=False)
class Ground:
    """What is evaluated on: the sets of cases, training heads for peers that have to be fitted, and the label maps of
    the held-out heads."""

    sets: tuple[Cases, ...]
    data: cohort.TrainingData
    heads: tuple[Path, ...] = ()


def data_folder() -> str:
    """The data folder; without one the process ends with one line and status 2."""
    with front_door():
        return str(cohort.data_folder())


def load_ground(
    folder: str | Path,
    prior: NetworkPrior,
    cases: str = "validation",
    kinds: str | Sequence[str] = ("rendered", "block", "real"),
    manifest: str | Path = MANIFEST,
) -> Ground:
    """The sets of cases that the manifest's entry ``cases`` describes, of these kinds ("rendered,real" or a list)."""
    with front_door():
        entry, folder = Manifest.read(cases, manifest), Path(folder)
        wanted = [kind.strip() for kind in kinds.split(",")] if isinstance(kinds, str) else list(kinds)
        for kind in wanted:
            if kind not in KINDS:
                raise Any2allError("no such kind of cases", key="kinds", value=kind, allowed=KINDS)
        try:
            heads = tuple(cohort.DataSplits(folder, entry.split).head_labels)
        except Any2allError as error:
            if not isinstance(error.__cause__, KeyError) or error.__cause__.args != (entry.split,):
                raise
            raise Any2allError("splits.json has no such split", key=f"manifest.{cases}", value=entry.split) from None
        place = (folder, prior.stack, prior.card.matrix, prior.card.spacing_mm)
        sets: list[Cases] = []
        if "rendered" in wanted and entry.renderings:
            sets.append(entry.rendered(*place))
        if "block" in wanted:
            sets += entry.blocks(*place)
        if "real" in wanted:
            sets += entry.subjects(*place)
        return Ground(tuple(sets), cohort.training_data(folder, None, prior.stack), heads)


@dataclass
class TableEvaluator:
    """The ``evaluator`` of ``evaluate.json``: `run` predicts, measures, prints and writes the report.

    Args:
        prior, dataset: what is evaluated, and on what.
        task_list, method_list: all entries; ``tasks`` and ``methods`` choose some by name ("a,b" or a list).
        method_changes: settings laid over entries of ``method_list``, by name.
        simulation: of k-space, see `Evaluation`.
        model_file: the prior's weights, beside which its mean image and other priors lie.
        draws: whole stacks drawn from nothing, to compare with training slices; 0: none.
        features: ``kind`` and ``file`` of what FID and KID compare, see `load_features`.
        unconditional: ``draws`` (N, 0: none) and ``method_list`` of the experiment, see `Unconditional`.
        output_dir, batch_size, seed: see `Evaluation`.
        rank, world_size: this process and how many share the work; the first one reports.
        report_dir: where the small set of page, CSV and JSON goes that is meant for committing; None: nowhere.
    """

    prior: NetworkPrior
    dataset: Ground
    task_list: Sequence[Mapping[str, Any]]
    method_list: Sequence[Mapping[str, Any]]
    tasks: str | Sequence[str] | None = None
    methods: str | Sequence[str] | None = None
    simulation: Mapping[str, Any] | None = None
    model_file: str | Path = ""
    output_dir: str | Path | None = None
    draws: int = 0
    features: Mapping[str, Any] | None = None
    unconditional: Mapping[str, Any] | None = None
    batch_size: int = 24
    seed: int = 0
    method_changes: Mapping[str, Mapping[str, Any]] | None = None
    rank: int = 0
    world_size: int = 1
    report_dir: str | Path | None = None

    def run(self) -> Evaluation:
        """Measure what is not in ``output_dir`` yet.

        Leaves the process with status 2 on a user's error, 130 on Ctrl-C.
        """
        with front_door():
            try:
                return self._run()
            except KeyboardInterrupt:
                if not self.output_dir:
                    raise
                announce("stopped: what was predicted is kept, and the same command goes on")
                raise SystemExit(INTERRUPTED) from None

    def _run(self) -> Evaluation:
        evaluation = self.evaluation()
        for key in ("output_dir", "report_dir"):
            if getattr(self, key):
                made_folder(getattr(self, key), key)
        records = evaluation.run()
        if evaluation.ranks.is_first:
            publish(evaluation, records, Path(self.report_dir) if self.report_dir else None)
        return evaluation

    def evaluation(self) -> Evaluation:
        """The evaluation that the settings describe."""
        features = self._features()
        world_size = as_count(self.world_size, "world_size")
        tasks, methods = self._tasks(), self._methods()
        evaluation = Evaluation(
            self.prior,
            self.dataset.sets,
            tasks,
            methods,
            _checked(self.simulation, SIMULATION, "simulation"),
            Path(self.output_dir) if self.output_dir else None,
            Path(self.model_file).parent,
            load_mean_image(mean_image_file(self.model_file), self.prior.card),
            self._training,
            self._likeness if as_count(self.draws, "draws", least=0) else None,
            features,
            self._unconditional(features),
            as_count(self.batch_size, "batch_size"),
            self.seed,
            Ranks(as_count(self.rank, "rank", 0, world_size - 1), world_size),
        )
        if evaluation.ranks.is_first:
            for name, why in evaluation.left_out.items():
                announce(f"left out: {name}: {why}")
        return evaluation

    def _tasks(self) -> list[Task]:
        """Those that are wanted; the others need not suit the prior's stack."""
        return [Task.from_dict(t, self.prior.stack) for t in chosen(self.task_list, self.tasks, "tasks")]

    def _methods(self) -> list[Method]:
        methods = [Method.from_dict(entry) for entry in changed(self.method_list, self.method_changes or {})]
        known = [entry.get("name") for entry in self.task_list]
        for method in methods:
            for name in method.tasks or ():
                if name not in known:
                    key = f"method_list.{method.name}.tasks"
                    raise Any2allError("no such task", key=key, value=name, allowed=known)
        return chosen(methods, self.methods, "methods")

    def _features(self) -> FeatureExtractor | None:
        """What FID and KID compare; None where the settings say so."""
        wanted = _checked(self.features, ("kind", "file"), "features")
        return None if self.features is None else load_features(wanted.get("kind", "any2all"), wanted.get("file"))

    def _unconditional(self, features: FeatureExtractor | None) -> Unconditional | None:
        """The experiment of draws from nothing, where it is wanted and there are held-out heads."""
        wanted, ground = _checked(self.unconditional, ("draws", "method_list"), "unconditional"), self.dataset
        if features is None or not wanted.get("draws") or not ground.heads:
            return None
        if "method_list" not in wanted:
            hint = "--unconditional#draws N changes the number alone"
            raise Any2allError("no samplers to draw with", key="unconditional.method_list", hint=hint)
        return Unconditional(
            self.prior,
            [Method.from_dict(m) for m in wanted["method_list"]],
            as_count(wanted["draws"], "unconditional.draws", least=2),
            ground.heads,
            features,
            ground.data.head_labels,
            ground.data.lesion_masks,
            self._prior_beside,
            Path(self.output_dir) if self.output_dir else None,
            as_count(self.batch_size, "batch_size"),
            self.seed,
        )

    def _prior_beside(self, name: str) -> NetworkPrior | None:
        with suppress(LeftOutError):
            return prior_beside(self.prior, Path(self.model_file).parent, name)
        return None

    def _training(self) -> Tensor:
        """Rendered training slices (N, M, H, W) in u, for peers that are fitted."""
        card, data = self.prior.card, self.dataset.data
        heads = RenderedHeads(
            data.head_labels, card.stack, card.matrix, card.spacing_mm[:2], FITTING_SEED, lesion_masks=data.lesion_masks
        )
        return (torch.stack([item["image"] for item in islice(heads, FITTING_SLICES)]) + 1) / 2

    def _likeness(self) -> dict[str, Any]:
        """Distances of draws to training slices, beside those of held-out slices."""
        stacks = draw_stacks(self.prior, self.draws, DRAW_STEPS, self.seed, self.batch_size)
        return compare_with_training(stacks, Reference.of(self.prior, self.dataset.data, BANK_SLICES))


def _checked(settings: Mapping[str, Any] | None, known: Sequence[str], key: str) -> dict[str, Any]:
    """Settings of a configuration; none for None. Raises Any2allError for a key that would be overlooked."""
    if not isinstance(settings, Mapping | None):
        raise Any2allError("settings by name are needed", key=key, value=settings, allowed=known)
    unknown = sorted(set(settings or {}) - set(known))
    if unknown:
        raise Any2allError("unknown key", key=key, value=unknown, allowed=known)
    return dict(settings or {})
