"""Every sampler and peer of ``evaluate.json`` on one prior and one task: passes, seconds, memory, overhead.

The task is T2FLAIR from R = 4 k-space and a T1 image. Only the cost is of interest, so the demonstration's T1 stands
in for every image. Long samplers run a part of their steps, and the table says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..diffusion.prior import NetworkPrior
from ..evaluation.cases import Cases
from ..evaluation.evaluate import Evaluation, Trial
from ..evaluation.tasks import Method, Task
from ..scores.text import markdown_table
from .meter import measured

CONFIG = Path(__file__).parents[2] / "configs" / "evaluate.json"
RAW = Task("R4+T1", ("T2FLAIR",), ("T1",), ("T2FLAIR",))
IMAGES_ONLY = ("mean_image", "matched_copy")
MOST_STEPS = 25
PER = 100  # slices


@dataclass(frozen=True)
class Row:
    """One method's cost, of one sample of ``slices`` slices; what is scaled up from fewer steps says so in ``part``.

    Attributes:
        passes: network passes of a slice, a vector–Jacobian product counting as one.
        seconds: of all slices.
        overhead: time outside the network over time in it; None where there is no network.
        peak_mib: above what the process held before; grows with the batch, not with the volume.
        part: how many of its steps were run, such as ``25 of 1000``; empty: all.
    """

    name: str
    slices: int
    passes: int
    seconds: float
    overhead: float | None
    peak_mib: float | None
    part: str = ""

    @property
    def per_100(self) -> float:
        """Seconds of one sample of 100 slices."""
        return PER * self.seconds / self.slices


def rivals(
    prior: NetworkPrior, image: Tensor, batch_size: int, file: Path = CONFIG
) -> tuple[list[Row], dict[str, str]]:
    """Every method of ``evaluate.json`` that can do the task with this prior, on an image (Z, H, W) in u.

    Beside it, the methods that could not be tried, and why, in words.
    """
    config = json.loads(file.read_text(encoding="utf-8"))
    methods = [Method.from_dict(entry) for entry in config["method_list"]]
    same_prior = [m for m in methods if m.model is None and _uses_kspace(m) and not _repeats(m, methods)]
    shortened = [_shortened(m) for m in same_prior]
    whole = Evaluation(prior, [_cases(prior, image)], [RAW], shortened, config["simulation"], batch_size=batch_size)
    with torch.no_grad():  # nobody is charged for the first pass of all
        levels = torch.zeros(len(image), prior.channels, dtype=torch.long, device=prior.device)
        prior.x0_hat(torch.zeros(len(image), prior.channels, *prior.card.matrix, device=prior.device), levels)
    steps = {m.name: m.steps for m in same_prior}
    return [_timed(whole, trial, steps[trial.method.name]) for trial in whole.plan()], whole.left_out


def _cases(prior: NetworkPrior, image: Tensor) -> Cases:
    slices = image[:, None].expand(-1, prior.channels, -1, -1).float().cpu()
    inside = np.ones(tuple(image.shape), bool)
    return Cases("demonstration", "rendered", slices, prior.stack.names, ("demonstration",) * len(image), inside)


def _uses_kspace(method: Method) -> bool:
    return method.applies != "images" and method.peer not in IMAGES_ONLY and "rendered" in method.on


def _repeats(method: Method, methods: Sequence[Method]) -> bool:
    """Whether an earlier method differs in its number of samples or in their noise only."""
    free = ("name", "samples", "slices", "antithetic", "centre")

    def cost(m: Method) -> dict[str, Any]:
        return {key: value for key, value in m.settings().items() if key not in free}

    return any(cost(m) == cost(method) for m in methods[: methods.index(method)])


def _shortened(method: Method) -> Method:
    steps = method.steps if method.steps is None else min(method.steps, MOST_STEPS)
    return replace(method, steps=steps, samples=1, slices=None, tasks=None)


def _timed(whole: Evaluation, trial: Trial, steps: int | None) -> Row:
    with measured(whole.prior.network, whole.prior.device) as cost:
        found = whole.predict(trial)
    scale = 1.0 if steps is None else steps / trial.method.steps
    passes = round(found.passes * scale)
    part = "" if scale == 1 else f"{trial.method.steps} of {steps} steps"
    seconds = found.seconds * len(found.slices) * scale
    return Row(trial.method.name, len(found.slices), passes, seconds, cost.overhead, cost.peak_mib, part)


def table(rows: Sequence[Row], base: str) -> str:
    """Rows as Markdown, beside the one named ``base``."""
    seconds = {row.name: row.per_100 for row in rows}
    header = (
        "method",
        "passes a slice",
        f"s per {PER} slices",
        f"ratio to {base}",
        "outside the network",
        "peak, MiB",
        "timed on",
    )
    cells = [
        (
            row.name,
            str(row.passes or "–"),
            f"{row.per_100:.1f}",
            f"{row.per_100 / seconds[base]:.3f}",
            "–" if row.overhead is None else f"{100 * row.overhead:.1f} %",
            "n/a" if row.peak_mib is None else f"{row.peak_mib:.0f}",
            row.part or "all steps",
        )
        for row in rows
    ]
    return markdown_table(header, cells)


def to_json(rows: Sequence[Row]) -> list[Mapping[str, Any]]:
    """Rows for a file."""
    return [{**vars(row), "seconds_per_100_slices": row.per_100} for row in rows]
