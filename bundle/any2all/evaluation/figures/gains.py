"""Quality over the number of modalities that are given (layout of the paper's Fig. 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..results import Results
from ..tasks import Task
from .parts import Part, inputs_of, parts
from .scores import METRICS, UNITS, Metric, score
from .style import INK, LINE_COLOURS, MARKERS, MUTED, RULE, SMALL, TINY, Drawing, file_name, new_figure, plain_axes

ROW_IN, KEY_IN, TOP_IN, NAMES_IN = 1.75, 0.25, 0.95, 0.65
MOST = len(LINE_COLOURS)


@dataclass(frozen=True)
class Ladder:
    """The tasks of one target that are alike in whether it is measured, from the fewest inputs to the most.

    ``chain``: positions in ``tasks`` of the ones that are joined: each is given more than the one before.
    """

    target: str
    tasks: tuple[Task, ...]
    chain: tuple[int, ...]

    @classmethod
    def of(cls, target: str, tasks: Sequence[Task]) -> Ladder:
        """Of tasks with as many inputs, those with more raw data come first, and the last one is joined.

        What is measured more sparsely than the rest stands before all others of as many inputs, and is not joined.
        """
        ordered = sorted(tasks, key=lambda t: (len(inputs_of(t)), t.acceleration is None, -len(t.raw)))
        chain = [len(ordered) - 1]
        for i in reversed(range(len(ordered) - 1)):
            same = ordered[i].acceleration == ordered[chain[0]].acceleration
            if same and inputs_of(ordered[i]) < inputs_of(ordered[chain[0]]):
                chain.insert(0, i)
        return cls(target, tuple(ordered), tuple(chain))


def ladders(tasks: Sequence[Task]) -> list[Ladder]:
    """One for each target, measured and synthetic apart, that two tasks or more ask for."""
    grouped: dict[tuple[str, bool], list[Task]] = {}
    for task in tasks:
        for target in task.targets:
            grouped.setdefault((target, target in task.raw), []).append(task)
    return [Ladder.of(target, some) for (target, _), some in grouped.items() if len(some) > 1]


def draw_gains(results: Results) -> list[Drawing]:
    """One figure for each set of rendered cases: a column for each ladder of tasks, PSNR above SSIM."""
    drawings = []
    for part in parts(results):
        if part.slices or part.cases.kind != "rendered":
            continue
        shown = ladders([t for t in results.evaluation.tasks if any(t.name == name for name, _ in part.cells)])
        methods = _methods(part, shown)
        if methods:
            drawings.append(_drawing(part, shown, methods))
    return drawings


def _methods(part: Part, shown: Sequence[Ladder]) -> list[str]:
    """At most 8 methods that have a whole ladder, those with most of them first; in the configuration's order."""
    whole = {
        method: sum(all(part.find(t.name, ladder.target, method) for t in ladder.tasks) for ladder in shown)
        for method in part.methods
    }
    kept = sorted((m for m in whole if whole[m]), key=lambda m: -whole[m])[:MOST]
    return [method for method in part.methods if method in kept]


def _drawing(part: Part, shown: Sequence[Ladder], methods: Sequence[str]) -> Drawing:
    return Drawing(
        file_name("modalities", part.name),
        f"Quality over the number of modalities: {part.name}",
        f"{part.words}. Across: input sets by how many modalities they hold, images and raw data alike; lines join "
        "sets of which each holds the one before, the others stand alone (the same modalities, or fewer, measured "
        "as raw data, or more sparsely). Mean over renderings of the mean of all samples; whiskers: 95 % bootstrap "
        "interval over renderings, not over people. In u clipped to [0, 1], data range 1. At most 8 methods: those "
        "that can do most of the input sets.",
        f"Lines of PSNR and SSIM over the number of given modalities: {len(methods)} methods, {len(shown)} targets.",
        _draw(part, shown, methods),
    )


def _draw(part: Part, shown: Sequence[Ladder], methods: Sequence[str]) -> Figure:
    height = len(METRICS) * ROW_IN + KEY_IN + TOP_IN
    figure = new_figure(height)
    axes = figure.subplots(len(METRICS), len(shown), squeeze=False, sharex="col",
                           width_ratios=[len(ladder.tasks) + 0.5 for ladder in shown])  # fmt: skip
    figure.subplots_adjust(0.065, (KEY_IN + NAMES_IN) / height, 0.985, 1 - 0.25 / height, wspace=0.22, hspace=0.12)
    for column, ladder in enumerate(shown):
        for row, metric in enumerate(METRICS):
            _lines(axes[row][column], part, ladder, methods, metric)
            if column == 0:
                axes[row][column].set_ylabel(UNITS[metric])
        made = "reconstructed" if ladder.target in ladder.tasks[0].raw else "synthetic"
        axes[0][column].set_title(f"{ladder.target}, {made}", size=SMALL, weight="bold", color=INK, pad=4)
        _name_inputs(axes[-1][column], ladder.tasks)
    handles = [
        Line2D([], [], color=LINE_COLOURS[i], marker=MARKERS[i], ms=3.4, linewidth=1, label=method)
        for i, method in enumerate(methods)
    ]
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), fontsize=TINY, frameon=False,
                  labelcolor=INK, columnspacing=1.2)  # fmt: skip
    return figure


def _lines(axes: Axes, part: Part, ladder: Ladder, methods: Sequence[str], metric: Metric) -> None:
    plain_axes(axes)
    axes.grid(axis="y", color=RULE, linewidth=0.4)
    for number, method in enumerate(methods):
        points = {}
        for x, task in enumerate(ladder.tasks):
            record = part.find(task.name, ladder.target, method)
            found = None if record is None else score(record, metric)
            if found is not None and math.isfinite(found.mean):
                points[x] = found
        shift = 0.07 * (number - (len(methods) - 1) / 2)
        look = {"color": LINE_COLOURS[number], "linewidth": 1}
        joined = [x for x in ladder.chain if x in points]
        axes.plot([x + shift for x in joined], [points[x].mean for x in joined], **look)
        for x, found in points.items():
            axes.plot(x + shift, found.mean, MARKERS[number], ms=3.4, color=LINE_COLOURS[number])
            if found.low is not None:
                axes.plot([x + shift] * 2, [found.low, found.high], color=LINE_COLOURS[number], linewidth=0.6)


def _name_inputs(axes: Axes, tasks: Sequence[Task]) -> None:
    axes.set_xticks(range(len(tasks)), [str(len(inputs_of(task))) for task in tasks])
    axes.set_xlim(-0.5, len(tasks) - 0.5)
    for x, task in enumerate(tasks):
        words = task.name.replace("+", "\n+").replace("-", "-\n")
        axes.annotate(words, (x, 0), (0, -11), ("data", "axes fraction"), "offset points", size=TINY - 1, color=MUTED,
                      ha="center", va="top", linespacing=0.95)  # fmt: skip
