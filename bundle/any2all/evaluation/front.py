"""What ``configs/evaluate.json`` is made of: the command line around `Evaluation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..diffusion.prior import NetworkPrior
from ..training import cohort
from ..training.finish import mean_image_file
from ..workflow import as_count, front_door
from .baselines import load_mean_image
from .evaluate import Evaluation
from .heads import rendered_truth
from .records import Record
from .tasks import Method, Task, chosen


@dataclass(frozen=True, eq=False)
class Truth:
    """Complete slices (Z, M, H, W) in u, and where they come from."""

    slices: Tensor
    origin: Mapping[str, Any]


def data_folder() -> str:
    """The data folder; without one the process ends with one line and status 2."""
    with front_door():
        return str(cohort.data_folder())


def validation_truth(
    folder: str | Path, prior: NetworkPrior, slices: int = 6, renderings: Sequence[int] = (2016,)
) -> Truth:
    """Rendered slices of the split's first validation head on the prior's grid."""
    with front_door():
        count = as_count(slices, "slices")
        head = cohort.DataSplits(Path(folder), "validation").head_labels[0]
        seeds = [renderings] if isinstance(renderings, int) else list(renderings)
        truth = rendered_truth(head, prior.stack, prior.card.matrix, prior.card.spacing_mm, count, seeds)
        return Truth(truth, {"head": head.name.split(".")[0], "renderings": seeds, "slices": count})


@dataclass
class TableEvaluator:
    """The ``evaluator`` of ``evaluate.json``: `run` measures, prints and writes the table.

    Args:
        prior, dataset: what is evaluated, and on what.
        task_list, method_list: all entries; ``tasks`` and ``methods`` choose some by name ("a,b" or a list).
        simulation: of k-space, see `Evaluation`.
        model_file: the prior's weights, beside which its mean image lies.
        output_dir, batch_size, seed: see `Evaluation`.
    """

    prior: NetworkPrior
    dataset: Truth
    task_list: Sequence[Mapping[str, Any]]
    method_list: Sequence[Mapping[str, Any]]
    tasks: str | Sequence[str] | None = None
    methods: str | Sequence[str] | None = None
    simulation: Mapping[str, Any] | None = None
    model_file: str | Path = ""
    output_dir: str | Path | None = None
    batch_size: int = 24
    seed: int = 0

    def run(self) -> list[Record]:
        """Measure what is not in ``output_dir`` yet. Leaves the process with status 2 on a user's error."""
        with front_door():
            tasks = chosen([Task.from_dict(t, self.prior.stack) for t in self.task_list], self.tasks, "tasks")
            methods = chosen([Method.from_dict(m) for m in self.method_list], self.methods, "methods")
            mean_image = load_mean_image(mean_image_file(self.model_file), self.prior.card)
            return Evaluation(
                self.prior,
                self.dataset.slices,
                tasks,
                methods,
                self.simulation or {},
                self.dataset.origin,
                Path(self.output_dir) if self.output_dir else None,
                mean_image,
                as_count(self.batch_size, "batch_size"),
                self.seed,
            ).run()
