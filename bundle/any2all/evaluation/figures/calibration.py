"""Whether the spread of the samples tells the error: one against the other in bins of pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from ...scores.uncertainty import error_by_std
from ..cases import Cases
from ..predictions import Prediction
from ..regions import head_of_labels
from ..results import Results
from .style import INK, LINE_COLOURS, MARKERS, MUTED, RULE, SMALL, TINY, Drawing, file_name, new_figure, plain_axes

LEAST_SAMPLES = 8
ACROSS, ROW_IN, FOOT_IN = 3, 2.2, 0.3
Cell = tuple[str, str, Prediction]


def draw_calibration(results: Results) -> list[Drawing]:
    """One figure for each set of rendered cases on which some method drew 8 samples or more."""
    drawings = []
    for cases in results.of_kind("rendered"):
        found = [
            (target, task.name, prediction)
            for task in results.evaluation.tasks
            for method in results.evaluation.methods
            if method.samples >= LEAST_SAMPLES
            for prediction in [results.prediction(cases, task.name, method.name)]
            if prediction is not None
            for target in task.targets
        ]
        if found:
            drawings.append(_drawing(results, cases, found))
    return drawings


def _drawing(results: Results, cases: Cases, found: Sequence[Cell]) -> Drawing:
    methods = ", ".join(dict.fromkeys(f"{p.method} ({p.samples} samples)" for _, _, p in found))
    return Drawing(
        file_name("uncertainty", cases.name),
        f"What the spread of the samples is worth: {cases.name}",
        f"{methods}; {len(cases)} slices of {len(set(cases.groups))} renderings of heads, rendered and not real; "
        "pixels of the head in ten bins of equal count. Across: root mean square of the samples' standard deviation in "
        "a bin, before calibration; up: root mean square error of their mean; both in u. Samples of the exact "
        "posterior lie on the dashed line, above it the samples are too sure.",
        f"Error over predicted standard deviation in bins, for {len(found)} targets.",
        _draw(results, cases, found),
    )


def _draw(results: Results, cases: Cases, found: Sequence[Cell]) -> Figure:
    rows = math.ceil(len(found) / ACROSS)
    figure = new_figure(rows * ROW_IN + FOOT_IN)
    axes = figure.subplots(rows, ACROSS, squeeze=False)
    figure.subplots_adjust(0.075, 0.42 / (rows * ROW_IN + FOOT_IN), 0.985, 0.9, wspace=0.25, hspace=0.5)
    for panel in axes.flat[len(found) :]:
        panel.set_visible(False)
    head = head_of_labels(cases.labels)
    for number, (panel, (target, task, prediction)) in enumerate(zip(axes.flat, found)):
        truth = results.truth(cases, target, prediction)
        bins = error_by_std(prediction.images[target], truth, head[list(prediction.slices)])
        plain_axes(panel)
        panel.grid(color=RULE, linewidth=0.4)
        at = number % len(MARKERS)
        panel.plot([b.std for b in bins], [b.error for b in bins], color=LINE_COLOURS[at % len(LINE_COLOURS)],
                   marker=MARKERS[at], ms=3.5, linewidth=1)  # fmt: skip
        end = max((max(b.std, b.error) for b in bins), default=1.0)
        slope = math.sqrt(1 + 1 / prediction.samples)
        panel.plot([0, end], [0, slope * end], "--", color=MUTED, linewidth=0.8)
        panel.set(xlim=(0, 1.05 * max((b.std for b in bins), default=1.0)), ylim=(0, 1.1 * end))
        panel.set_title(f"{target} from {task}", size=SMALL, weight="bold", color=INK, loc="left", pad=3)
        panel.set_xlabel("std of the samples, u", size=TINY, labelpad=1)
        if number % ACROSS == 0:
            panel.set_ylabel("error of the mean, u")
    return figure
