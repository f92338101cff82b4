"""Distortion against perception, with the cost as the size of the marker (layout of the paper's Fig. 5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ...scores.baselines import MEAN_IMAGE, ZERO_FILLED
from ..perception import STRUCTURE, Perception
from ..records import Record
from ..results import Results
from .parts import Part, parts
from .style import (
    FAMILIES,
    INK,
    MARKERS,
    MUTED,
    RULE,
    SMALL,
    TINY,
    Drawing,
    family_key,
    file_name,
    new_figure,
    plain_axes,
    sentence,
)

ACROSS, ROW_IN, TOP_IN = 3, 2.0, 0.3
KEY_ROW_IN, COST_IN = 0.16, 0.42
LEFT_OUT = (ZERO_FILLED, MEAN_IMAGE, "matched_copy")  # so far off that nothing else could be told apart
AREA = 9.0  # of a marker in square points: this for no network, and as much again for each doubling of 1 + passes
Look = tuple[str, str]


def draw_planes(results: Results, perception: Perception) -> list[Drawing]:
    """One figure for each set of rendered cases, and one for the slices that slow methods had."""
    looks = _looks(results)
    drawings = []
    for whole in parts(results):
        part = replace(whole, records=[r for r in whole.records if r.method not in LEFT_OUT])
        cells = [cell for cell in part.cells if sum(_of(part, cell, m) is not None for m in part.methods) > 1]
        if part.cases.kind == "rendered" and cells:
            measure = perception if _known(part, perception) > 1 else STRUCTURE
            drawings.append(_drawing(part, cells, measure, looks))
    return drawings


def _looks(results: Results) -> dict[str, Look]:
    """Colour by family, marker by place within it."""
    seen: dict[str, int] = {}
    looks = {}
    for method in results.evaluation.methods:
        key = family_key(method)
        looks[method.name] = (FAMILIES[key].colour, MARKERS[seen.get(key, 0) % len(MARKERS)])
        seen[key] = seen.get(key, 0) + 1
    return looks


def _of(part: Part, cell: tuple[str, str], method: str) -> Record | None:
    return part.find(*cell, method)


def _known(part: Part, perception: Perception) -> int:
    return sum(perception.of(record) is not None for record in part.records)


def _drawing(part: Part, cells: Sequence[tuple[str, str]], perception: Perception, looks: dict[str, Look]) -> Drawing:
    return Drawing(
        file_name("plane", part.name),
        f"Distortion, perception and cost: {part.name}",
        f"{part.words}. Across: PSNR of ONE sample, in u clipped to [0, 1], data range 1, errors of all slices pooled; "
        f"better to the right. Up: {perception.name}, lower is better. {perception.note} The area of a marker grows "
        "with the doublings of network passes for one sample of one slice (a vector–Jacobian product counts as one). "
        f"Panels differ in their axes; {sentence(LEFT_OUT)} lie far off and are left out. A method "
        "without a finite value is named n/a in its panel.",
        f"Scatter plots of PSNR against {perception.name} for {len(cells)} input sets; marker area shows cost.",
        _draw(part, cells, perception, looks),
    )


def _draw(part: Part, cells: Sequence[tuple[str, str]], perception: Perception, looks: dict[str, Look]) -> Figure:
    rows, columns = math.ceil(len(cells) / ACROSS), min(ACROSS, len(cells))
    methods = [m for m in looks if m in part.methods]
    key_rows = math.ceil(len(methods) / 6)
    foot = key_rows * KEY_ROW_IN + COST_IN
    height = TOP_IN + rows * ROW_IN + foot
    figure = new_figure(height)
    axes = figure.subplots(rows, columns, squeeze=False)
    bottom = (foot + 0.35) / height
    figure.subplots_adjust(0.075, bottom, 0.985, 1 - TOP_IN / height, wspace=0.24, hspace=0.5)
    for panel in axes.flat[len(cells) :]:
        panel.set_visible(False)
    for panel, (task, target) in zip(axes.flat, cells):
        _fill(panel, [r for r in part.records if (r.task, r.target) == (task, target)], perception, looks)
        panel.set_title(f"{target} from {task}", size=SMALL, weight="bold", color=INK, loc="left", pad=3)
    for row in axes:
        row[0].set_ylabel(perception.name, size=TINY)
    _keys(figure, methods, looks, part, height)
    return figure


def _fill(axes: Axes, records: Sequence[Record], perception: Perception, looks: dict[str, Look]) -> None:
    plain_axes(axes)
    axes.grid(color=RULE, linewidth=0.4)
    axes.margins(0.12)
    axes.set_xlabel("PSNR of one sample, dB", size=TINY, labelpad=1)
    axes.locator_params(axis="x", nbins=4)  # long labels of a narrow range would run into each other
    without = []
    for record in sorted(records, key=lambda r: -r.passes):
        value = perception.of(record)
        if value is None or not math.isfinite(record.psnr):
            without.append(record.method)
            continue
        colour, marker = looks[record.method]
        axes.scatter(record.psnr, value, s=area(record.passes), c=colour, marker=marker, alpha=0.85, linewidths=0.5,
                     edgecolors=INK, zorder=3)  # fmt: skip
    if without:
        axes.text(0.98, 0.97, "\n".join(f"{name}: n/a" for name in sorted(without)), transform=axes.transAxes,
                  size=TINY - 1, color=MUTED, ha="right", va="top")  # fmt: skip


def area(passes: int) -> float:
    """Of a marker, in square points: grows by as much with every doubling of the passes.

    >>> area(0), area(1), area(1023)
    (9.0, 18.0, 99.0)
    """
    return AREA * (1 + math.log2(1 + passes))


def _keys(figure: Figure, methods: Sequence[str], looks: dict[str, Look], part: Part, height: float) -> None:
    """Which marker is which method, and which size is which cost."""
    handles = [_mark(name, *looks[name], 5.0) for name in methods]
    figure.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 0), ncols=6, fontsize=TINY, frameon=False,
                  labelcolor=INK, handletextpad=0.3, columnspacing=1.0)  # fmt: skip
    costs = sorted({0, *(r.passes for r in part.records)})
    shown = costs if len(costs) < 6 else [costs[i * (len(costs) - 1) // 5] for i in range(6)]
    sizes = [
        _mark("no network" if n == 0 else f"{n} pass{'es' * (n != 1)}", "none", "o", math.sqrt(area(n))) for n in shown
    ]
    above = (math.ceil(len(methods) / 6) * KEY_ROW_IN + 0.1) / height
    figure.legend(handles=sizes, loc="lower center", bbox_to_anchor=(0.5, above), ncols=len(shown), fontsize=TINY,
                  frameon=False, labelcolor=MUTED, handletextpad=0.5)  # fmt: skip


def _mark(label: str, colour: str, marker: str, size: float) -> Line2D:
    return Line2D([], [], linestyle="", marker=marker, mfc=colour, mec=INK, mew=0.5, ms=size, label=label)
