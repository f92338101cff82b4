"""What the claims are judged by: all records of an evaluation by name, and a verdict for each thing that was asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..scores.statistics import Interval, paired_bootstrap, psnr_of_mse
from .cases import Cases
from .evaluate import Evaluation
from .predictions import Prediction
from .records import Record

BEST, QUICKER, ONE_PASS, CENTRED = "mcs-20", "mcs-10", "mcs-1", "mcs-20-centred"
FAST = "mcs-1-centred"  # what the preset is where nothing is measured


@dataclass(frozen=True)
class Verdict:
    """One thing that was asked: in words, what was measured, and whether it holds (None: it cannot be said).

    ``reason``: why it does not, where that was found out (`reasons`).
    """

    asked: str
    measured: str
    holds: bool | None
    reason: str = ""

    @property
    def word(self) -> str:
        return {True: "yes", False: "NO", None: "–"}[self.holds]


@dataclass(frozen=True)
class Section:
    """A part of the report: verdicts and tables (Markdown)."""

    title: str
    verdicts: tuple[Verdict, ...] = ()
    body: tuple[str, ...] = field(default=())


@dataclass(frozen=True, eq=False)
class Results:
    """All records of an evaluation, found by name."""

    evaluation: Evaluation
    records: Sequence[Record]

    def record(self, cases: str, task: str, target: str, method: str) -> Record | None:
        names = (cases, task, target, method)
        return next((r for r in self.records if (r.cases, r.task, r.target, r.method) == names), None)

    def of_kind(self, kind: str) -> list[Cases]:
        return [cases for cases in self.evaluation.sets if cases.kind == kind]

    def rendered(self, task: str, target: str, method: str) -> Record | None:
        """On the renderings."""
        sets = self.of_kind("rendered")
        return self.record(sets[0].name, task, target, method) if sets else None

    def prediction(self, cases: Cases, task: str, method: str) -> Prediction | None:
        return self.evaluation.find(cases.name, task, method)

    def truth(self, cases: Cases, target: str, prediction: Prediction) -> np.ndarray:
        """(Z, H, W) in u, clipped, of the prediction's slices."""
        image = cases.slices[:, self.evaluation.prior.stack.index(target)].clamp(0, 1).numpy()
        return image[list(prediction.slices)]


def same_slices(records: Sequence[Record]) -> list[tuple[tuple[int, ...], list[Record]]]:
    """All records on all slices (named ()), then all methods on just those slices that some were tried on."""
    if not records:
        return []
    most = max(len(r.slices) for r in records)
    parts = [((), [r for r in records if len(r.slices) == most])]
    for slices in sorted({tuple(r.slices) for r in records if len(r.slices) < most}):
        pairs = {(r.task, r.target) for r in records if tuple(r.slices) == slices}
        same = [r.on(slices) for r in records if (r.task, r.target) in pairs]
        parts.append((slices, [r for r in same if r is not None]))
    return parts


def on_shared_slices(a: Record, b: Record) -> tuple[Record, Record] | None:
    """Both on the slices that both were tried on; None where there is none."""
    slices = [z for z in a.slices if z in b.slices]
    return (a.on(slices), b.on(slices)) if slices else None


def difference(a: Record, b: Record, mean: bool = True) -> Interval | None:
    """PSNR of a minus PSNR of b in dB, of the mean of the samples or of one, on the slices that both have, if any."""
    shared = on_shared_slices(a, b)
    if shared is None:
        return None
    first, second = shared
    scores = (first.mse_mean, second.mse_mean) if mean else (first.mse, second.mse)
    return paired_bootstrap(*scores, first.groups, reduce=psnr_of_mse)


def number(value: float | None, digits: int) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"
