"""Which records may stand in one figure: of one set of cases, on the same slices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..cases import Cases
from ..records import Record
from ..results import Results, same_slices
from ..tasks import Task


@dataclass(frozen=True, eq=False)
class Part:
    """Records of the same slices of one set of cases.

    Attributes:
        cases: the set.
        slices: which of its slices; empty: all.
        records: every method that has them.
    """

    cases: Cases
    slices: tuple[int, ...]
    records: Sequence[Record]

    @property
    def words(self) -> str:
        """What the records were measured on, for captions."""
        chosen = range(len(self.cases)) if not self.slices else self.slices
        count = len({self.cases.groups[z] for z in chosen})
        slices = f"{len(chosen)} slices" if len(chosen) > 1 else "one slice"
        if self.cases.kind == "real":
            return f"{slices} of the real subject {self.cases.name}"
        renderings = f"{count} renderings" if count > 1 else "one rendering"
        return f"{slices} of {renderings} of heads, rendered and not real ({self.cases.name})"

    @property
    def name(self) -> str:
        """Of the cases, and of the slices where they are not all; no two parts share it."""
        only = f", slices {', '.join(map(str, self.slices))} only" if self.slices else ""
        return self.cases.name + only

    @property
    def cells(self) -> list[tuple[str, str]]:
        """Every (task, target) that was tried, in order."""
        return list(dict.fromkeys((r.task, r.target) for r in self.records))

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(r.method for r in self.records))

    def find(self, task: str, target: str, method: str) -> Record | None:
        return next((r for r in self.records if (r.task, r.target, r.method) == (task, target, method)), None)


def parts(results: Results) -> Iterator[Part]:
    """All sets of cases, whole, then the slices that only some methods were tried on."""
    for cases in results.evaluation.sets:
        for slices, records in same_slices([r for r in results.records if r.cases == cases.name]):
            yield Part(cases, slices, records)


def inputs_of(task: Task) -> frozenset[str]:
    """What a task is given, raw or as an image."""
    return frozenset(task.given + task.raw)
